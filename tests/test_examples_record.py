"""A training whose data change between two starts is refused; changed validation images are told."""

import dataclasses
import logging
import shutil
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from lgag_jax import config as configs
from lgag_jax.inputs.sources import make_source
from lgag_jax.method import losses, registry
from lgag_jax.method.method import Outputs
from lgag_jax.runtime import files
from lgag_jax.state import MemoryBank
from lgag_jax.training import examples_record, loop, pseudo_masks
from tests.conftest import make_small_config
from tests.untrained import make_workdir

YES, NO = "landslide", "non-landslide"


def write(path, value=90):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(path)


def sources(config):
  return {split: make_source(config.data, split) for split in ("train", "validation")}


@pytest.fixture
def config(tmp_path):
  for folder in (YES, NO):
    for i in range(10):
      write(tmp_path / "set" / folder / f"m{i}.png")
  return configs.from_mapping(make_small_config(tmp_path / "set"))


def claim(config, workdir, *, started):
  loop._claim(config, sources(config), workdir, started=started)


def add_first(root):
  write(root / YES / "a0.png")


def remove(root):
  (root / NO / "m3.png").unlink()


def relabel(root):
  (root / YES / "m2.png").rename(root / NO / "m2b.png")


def rename(root):
  (root / YES / "m2.png").rename(root / YES / "m2b.png")


@pytest.mark.parametrize(("change", "words"), [
  (add_first, "had 16 examples, 8 of them positive; now it has 17, 9 of them"),
  (remove, "had 16 examples, 8 of them positive; now it has 15, 8 of them"),
  (relabel, "had 16 examples, 8 of them positive; now it has 16, 7 of them"),
  (rename, "still has 16 examples, but other names or labels"),
])
def test_training_examples_that_changed_are_refused(config, tmp_path, change, words):
  workdir = tmp_path / "wd"
  claim(config, workdir, started=False)
  claim(config, workdir, started=True)  # The same data resume.
  change(tmp_path / "set")
  with pytest.raises(ValueError, match=rf"wd was trained: the train split {words}.*new --workdir"):
    claim(config, workdir, started=True)
  claim(config, workdir, started=False)  # Nothing was trained yet, so the record is written anew.
  claim(config, workdir, started=True)


def repaint(root):
  write(root / YES / "m2.png", value=91)


def swap(root):
  (root / YES / "m2.png").rename(root / "spare.png")
  write(root / YES / "m2.png", value=89)
  (root / YES / "m2.png").rename(root / YES / "m3.png")
  (root / "spare.png").rename(root / YES / "m2.png")


def hide(root):
  (root / NO / "m1.png.aux.xml").write_text(
    '<PAMDataset><PAMRasterBand band="1"><NoDataValue>90</NoDataValue></PAMRasterBand></PAMDataset>'
  )


@pytest.mark.parametrize("change", [repaint, swap, hide])
def test_other_pixels_under_old_names_are_refused(config, tmp_path, change):
  workdir = tmp_path / "wd"
  claim(config, workdir, started=False)
  change(tmp_path / "set")
  with pytest.raises(ValueError, match=r"the train split has other pixels in images of the same names"):
    claim(config, workdir, started=True)


def test_copied_and_touched_images_are_the_same_images(config, tmp_path):
  claim(config, tmp_path / "wd", started=False)
  (tmp_path / "set" / YES / "m1.png").touch()
  shutil.copytree(tmp_path / "set", tmp_path / "copy")
  data = dataclasses.replace(config.data, directory=str(tmp_path / "copy"))
  examples_record.check(sources(dataclasses.replace(config, data=data)), tmp_path / "wd", config)
  claim(config, tmp_path / "wd", started=True)


def learning(config, method, drawn_pixel_weight):
  return dataclasses.replace(
    config, model=dataclasses.replace(config.model, method=method),
    loss=dataclasses.replace(config.loss, drawn_pixel_weight=drawn_pixel_weight),
  )


@pytest.mark.parametrize(("method", "weight", "learned"), [
  ("lgag", 0.0, False), ("lgag", 1.0, True), ("class_activation", 0.5, True),
  ("segmentation", 0.0, True),
])
def test_masks_count_where_they_are_learned_from(config, tmp_path, method, weight, learned):
  config = learning(config, method, weight)
  for name in ("masks/m0.png", "masks/m1.png"):
    write(tmp_path / "set" / name, value=1)
  claim(config, tmp_path / "wd", started=False)
  write(tmp_path / "set" / "masks" / "m0.png", value=0)
  if learned:
    with pytest.raises(ValueError, match=r"the train split has other masks.*new --workdir"):
      claim(config, tmp_path / "wd", started=True)
  else:  # They only judge maps.
    claim(config, tmp_path / "wd", started=True)


class _Batch(dict):
  """A batch that tells whether its mask is asked for."""

  def __missing__(self, key):
    raise LookupError(f"needs {key}")


@pytest.mark.parametrize("method", registry.OWN.values(), ids=lambda method: method.name)
def test_all_that_trains_on_masks_is_said_to(config, method):
  outputs, bank = mock.Mock(spec=Outputs), mock.Mock(spec=MemoryBank)
  outputs.logits = outputs.fused_logits = np.zeros((1, 2, 2, 1))
  for weight in (0.0, 0.5):
    one = learning(config, method.name, weight)
    asked = set()
    for term in losses.of_method(method, one):
      try:
        term.value(outputs, _Batch(), bank, one)
      except Exception as error:  # Most terms fail on these outputs before they need the batch.
        asked.add(str(error))
    assert method.learns_masks(one) == ("needs mask" in asked)


def test_drawn_masks_of_a_record_of_an_earlier_release_are_not_checked(config, tmp_path):
  write(tmp_path / "set" / "masks/m0.png", value=1)
  examples_record.write(sources(config), tmp_path, config)
  write(tmp_path / "set" / "masks/m0.png", value=0)
  examples_record.check(sources(config), tmp_path, learning(config, "lgag", 1.0))


def test_a_record_of_an_earlier_release_says_nothing_of_pixels(config, tmp_path):
  workdir = tmp_path / "wd"
  claim(config, workdir, started=False)
  record = files.read_json(workdir / examples_record.FILE)
  for entry in (record["train"], record["validation"]):
    del entry["images"]
  del record["sha256"]
  files.write_json(workdir / examples_record.FILE, record)
  repaint(tmp_path / "set")
  claim(config, workdir, started=True)


def test_an_older_workdir_without_a_record_is_not_checked(config, tmp_path):
  claim(config, tmp_path / "wd", started=True)
  add_first(tmp_path / "set")
  claim(config, tmp_path / "wd", started=True)
  assert not (tmp_path / "wd" / examples_record.FILE).exists()


def test_validation_examples_that_changed_are_told(config, tmp_path, caplog):
  root = tmp_path / "set"
  (root / "manifest.csv").write_text("image,split\n" + "".join(
    f"{k}/{k[:3]}{i}.png,{'validation' if i > 7 else 'train'}\n" for k in (YES, NO) for i in range(10)
  ))
  for folder in (YES, NO):
    for path in (root / folder).iterdir():
      path.rename(path.with_name(folder[:3] + path.name[1:]))
  claim(config, tmp_path / "wd", started=False)
  (root / YES / "lan9.png").unlink()
  with caplog.at_level(logging.WARNING):
    claim(config, tmp_path / "wd", started=True)
  assert "the validation split had 4 examples, 2 of them positive; now it has 3, 1 of" in caplog.text


def test_a_damaged_record_is_named(config, tmp_path):
  claim(config, tmp_path / "wd", started=False)
  (tmp_path / "wd" / examples_record.FILE).write_text("[]")
  with pytest.raises(ValueError, match=r"examples\.json is damaged"):
    claim(config, tmp_path / "wd", started=True)


@pytest.mark.longest
def test_evaluation_refuses_changed_training_images(config, tmp_path):
  workdir = make_workdir(tmp_path / "wd", config)
  examples_record.write(sources(config), workdir, config)
  add_first(tmp_path / "set")
  for job in (loop.evaluate_workdir, pseudo_masks.write):
    with pytest.raises(ValueError, match=r"now it has 17, .*new --workdir"):
      job(workdir)


@pytest.mark.parametrize(("name", "content"), [
  ("report.html", "precious"), ("metrics.jsonl", "{}"), ("eval/validation.json", "{}"),
  ("config.json", '{"mine": 1}'), ("config.json", "[]"), ("examples.json", "[]"),
  ("examples.json", '{"mine": {"digest": 1}, "train": 2}'), ("examples.json", "{"),
  ("normalisation.json", "{}"), ("colour_evidence.npz", "x"), ("eval/validation.md", "mine"),
  ("eval/panels.npz", "x"), ("eval/bank.npz", "x"),
  ("scenes/a_tif.json", '{"stem": "a_tif", "files": ["mask/a_tif.tif"]}'),
])
def test_a_training_replaces_no_file_of_another_origin(config, tmp_path, name, content):
  workdir = tmp_path / "wd"
  (workdir / name).parent.mkdir(parents=True)
  (workdir / name).write_text(content)
  with pytest.raises(ValueError, match=rf"wd/{name[:6]}.* is not of a training.*--workdir"):
    claim(config, workdir, started=False)
  assert [p.read_text() for p in workdir.rglob("*.*")] == [content]


def test_a_start_that_was_killed_before_its_config_was_written_is_started_again(config, tmp_path):
  examples_record.write(sources(config), tmp_path / "wd", config)  # As earlier releases did, first.
  claim(config, tmp_path / "wd", started=False)
  assert (tmp_path / "wd" / "config.json").exists()
