"""Workdirs that come from elsewhere: opened, they run nothing, and what is wrong is said."""

import gc
import json
import os
import pathlib
import pickle
import shutil
import zipfile

import jax
import numpy as np
import pytest

from lgag_jax import config as configs
from lgag_jax.evaluation import report, thresholds_file
from lgag_jax.inputs import sources, tfds_source
from lgag_jax.runtime import array_files, files, sharding
from lgag_jax.training import loop, restore
from tests import conftest

SCRIPT = "<script>alert(1)</script>"


class Payload:
  """Unpickled, it leaves a file."""

  def __init__(self, path):
    self._path = path

  def __reduce__(self):
    return os.mknod, (str(self._path),)


@pytest.fixture(scope="module")
def trained(image_folder, tmp_path_factory):
  """A workdir of a short training, and its images, under names that are HTML."""
  images = tmp_path_factory.mktemp("names")
  for name in ("landslide", "non-landslide", "masks"):
    (images / name).mkdir()
    for path in (image_folder / name).iterdir():
      shutil.copy(path, images / name / f"<img src=x onerror=alert(1)> {path.name}")
  config = conftest.make_small_config(images)
  config.model.method = "class_activation"
  config.train.epochs = 1
  workdir = tmp_path_factory.mktemp("foreign") / f"run{SCRIPT.replace('/', '')}"
  loop.train_and_evaluate(configs.from_mapping(config), workdir)
  return workdir, images


@pytest.fixture
def workdir(trained, tmp_path):
  return pathlib.Path(shutil.copytree(trained[0], tmp_path / trained[0].name))


def change(path, function):
  content = json.loads(path.read_text())
  content.pop("sha256", None)  # Whoever changes a file can remove its digest.
  function(content)
  path.write_text(json.dumps(content))


def test_a_report_shows_names_as_text(workdir):
  change(workdir / "eval" / "validation.json", lambda c: c.update(data=SCRIPT))
  change(workdir / "config.json", lambda c: c["data"].update(background=SCRIPT))
  page = report.write_report(workdir).read_text()
  assert "alert(1)" in page
  assert "<script" not in page
  assert "<img src=x" not in page
  assert page.count("<img ") == page.count('src="data:image/png;base64,')


@pytest.mark.parametrize("field", ["step", "examples"])
def test_a_report_takes_numbers_for_numbers(workdir, field):
  change(workdir / "eval" / "validation.json", lambda c: c.update({field: SCRIPT}))
  with pytest.raises(ValueError, match="alert"):
    report.write_report(workdir)
  assert not (workdir / "report.html").exists()


@pytest.mark.parametrize("name", ["eval/panels.npz", "eval/bank.npz"])
def test_arrays_that_are_pickles_are_refused(workdir, name, tmp_path):
  with (workdir / name).open("wb") as file:
    np.savez(file, **dict.fromkeys(("valid", "image"), np.array([Payload(tmp_path / "ran")], object)))
  with pytest.raises(ValueError, match=rf"{name} cannot be read: Object arrays"):
    report.write_report(workdir)
  (workdir / name).write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
  with pytest.raises(ValueError, match=rf"{name} cannot be read"):
    report.write_report(workdir)
  assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("name", "array", "mebibytes"), [
  ("panels", "image", 1100), ("panels", "anchors", 1100), ("bank", "features", 300),
])
def test_arrays_that_expand_are_refused_or_left_out_unread(workdir, name, array, mebibytes):
  path = workdir / "eval" / f"{name}.npz"
  arrays = dict(np.load(path))
  arrays.pop(array, None)
  np.savez_compressed(path, **arrays)
  with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
    with archive.open(f"{array}.npy", "w") as file:
      file.write(bytes(1000))
    archive.getinfo(f"{array}.npy").file_size = mebibytes << 20
  if array == "anchors":  # The report reads no such array.
    assert report.write_report(workdir).exists()
    return
  with pytest.raises(ValueError, match=rf"{name}\.npz cannot be read: .* claim {mebibytes}+ MiB, over"):
    report.write_report(workdir)


@pytest.mark.parametrize("names", [("a",), ("a", "missing"), ("a", "c")])
def test_only_the_arrays_that_are_named_are_read(tmp_path, names):
  np.savez_compressed(tmp_path / "x.npz", a=np.arange(9), b=np.zeros(10**6), c=np.ones(2))
  found = array_files.read_arrays(tmp_path / "x.npz", names, 10_000)
  assert sorted(found) == sorted({*names} - {"missing"})
  assert found["a"].tolist() == list(range(9))
  with pytest.raises(ValueError, match=r"x\.npz cannot be read: its arrays claim 7 MiB, over the"):
    array_files.read_arrays(tmp_path / "x.npz", (*names, "b"), 1 << 20)


def test_a_damaged_log_and_absurd_numbers_are_named(workdir):
  log = workdir / "metrics.jsonl"
  kept = log.read_text()
  for text in ("[" * 100_000 + "\n", '{"step":\n'):
    log.write_text(kept + text)
    with pytest.raises(ValueError, match=r"metrics\.jsonl is not valid JSON lines"):
      report.write_report(workdir)
  log.write_text(kept + '{"step": 3')  # Half a line is what a killed run leaves.
  report.write_report(workdir)
  change(workdir / "eval" / "validation.json", lambda c: c.update(step=float("inf")))
  with pytest.raises(ValueError, match="holds invalid evaluation files"):
    report.write_report(workdir)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"maps": 1}', "[" * 100_000])
@pytest.mark.parametrize("name", ["config.json", "thresholds.json", "eval/validation.json"])
def test_json_that_is_something_else_is_named(workdir, name, content):
  (workdir / name).write_text(content)
  with pytest.raises(ValueError, match=f"{name}|holds invalid evaluation files"):
    report.write_report(workdir)


def test_thresholds_must_be_numbers(workdir):
  config = configs.load(workdir / "config.json")
  for wrong in (["0.5"], [], [0.5, 0.5], None, 0.5):
    change(
      workdir / "thresholds.json",
      lambda c, wrong=wrong: c["maps"]["class_activation"].update(otsu=wrong),
    )
    with pytest.raises(ValueError, match=r"thresholds\.json is not what"):
      thresholds_file.load_thresholds(workdir, config)


def test_evaluation_runs_no_builder_from_elsewhere(workdir, tmp_path, monkeypatch):
  """Its folder is where Python would look for it: beside the command's own."""
  builder = tmp_path / "theirs" / "evil"
  builder.mkdir(parents=True)
  (builder / "evil_dataset_builder.py").write_text(f"import os\nos.mknod({str(tmp_path / 'ran')!r})\n")
  change(
    workdir / "config.json", lambda c: c["data"].update(source="tfds", builder="theirs/evil")
  )
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(ValueError, match=r"would run code: data\.builder=theirs/evil\. lgag refuses"):
    loop.evaluate_workdir(workdir)
  assert not (tmp_path / "ran").exists()


def evil_set(folder, module, name="evilset", config=""):
  """A prepared data set whose features are a class of a module of the data's own."""
  version = folder / name / config / "1.0.0"
  version.mkdir(parents=True)
  split = {"name": "train", "shardLengths": ["1"], "numBytes": "1"}
  files.write_json(version / "dataset_info.json", {
    "name": name, "version": "1.0.0", "fileFormat": "array_record", "splits": [split],
    **({"configName": config} if config else {})})
  image = {"pythonClassName": f"{module}.Image"}
  files.write_json(version / "features.json", {
    "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
    "featuresDict": {"features": {"image": image}},
  })


@pytest.mark.parametrize("builder", [
  "evilset", "EvilSet", "evil_conf:plain", "evil_conf/plain", "EvilConf/plain:1.0.0", "evil_conf",
  "evil_set:../elsewhere", "other",
])
def test_a_prepared_data_set_imports_nothing(small_config, tmp_path, monkeypatch, builder):
  (tmp_path / "got").mkdir()
  (tmp_path / "got" / "evil.py").write_text(f"import os\nos.mknod({str(tmp_path / 'ran')!r})\n")
  for name, config in (
    ("evilset", ""), ("evil_set", ""), ("evil_conf", "plain"), ("elsewhere", ""), ("hidden", ""),
  ):
    evil_set(tmp_path / "got", "got.evil", name, config)
  for name, default in (("evil_conf", "plain"), ("other", "../hidden")):
    (tmp_path / "got" / name / ".config").mkdir(parents=True)
    files.write_json(tmp_path / "got" / name / ".config" / "metadata.json", {
      "default_config_name": default})
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(tmp_path)
  small_config.data.update(source="tfds", builder=builder, directory=str(tmp_path / "got"))
  match = r"features\.json would run code: got\.evil\.Image|leaves the folder of the data set"
  with pytest.raises(ValueError, match=match):
    sources.open_source(configs.from_mapping(small_config).data, "train")
  assert not (tmp_path / "ran").exists()


def test_a_link_to_a_builder_of_ours_is_that_builder(workdir, tmp_path, monkeypatch):
  (workdir / "pkg").symlink_to(tfds_source.PACKAGED_BUILDERS / "synthetic_landslides")
  (workdir / "__init__.py").write_text(f"import os\nos.mknod({str(tmp_path / 'ran')!r})\n")
  change(workdir / "config.json", lambda c: c["data"].update(
    source="tfds", builder=f"{workdir.name}/pkg", directory=str(tmp_path / "none")))
  monkeypatch.chdir(workdir.parent)
  monkeypatch.syspath_prepend(workdir.parent)
  data = configs.load(workdir / "config.json").data
  builder = tfds_source.open_builder(data)
  assert builder.name == "synthetic_landslides"
  assert not (tmp_path / "ran").exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_checkpoint_of_other_shapes_is_refused(workdir):
  change(workdir / "config.json", lambda c: c["model"].update(head_width=24))
  with pytest.raises(ValueError, match="does not fit the config"):
    restore.restore(workdir, sharding.make_mesh())
  gc.collect()  # Orbax leaves unfinished reads, which are told of when they go.


def test_evaluation_waits_for_nobody(workdir):
  with loop.lock.acquire(workdir), pytest.raises(ValueError, match="is in use by process"):
    loop.evaluate_workdir(workdir)
  assert jax.process_count() == 1
