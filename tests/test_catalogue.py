"""The published data sets: built from their original layouts, they hold what was written there."""

import importlib
import itertools
import json
import re
import shutil

import h5py
import numpy as np
import pytest
import tensorflow_datasets as tfds

from data.cas_landslide import cas_landslide_dataset_builder as cas
from lgag_jax.config import DataConfig
from lgag_jax.imagery.reading import UNKNOWN, ImageError
from lgag_jax.inputs import catalogue, sources, tfds_source
from lgag_jax.inputs import originals as shared
from lgag_jax.runtime import download
from tests import originals
from tests.commands import ROOT, call

KINDS = ("landslide", "non-landslide")


def open_split(place, name, channels, split="train", *, original=None, **fields):
  """Opens a split of a data set, which is built from <place>/original if it is new."""
  config = DataConfig(
    source="tfds", builder=f"data/{name}", directory=str(place / "tfds"), channels=channels,
    original=str(original or place / "original"), **fields,
  )
  return sources.open_source(config, split)


def read(*opened_sources):
  """Returns {id: (image, mask, label)} of all sources; asserts that no id comes twice."""
  examples = {}
  for source in opened_sources:
    for i, name in enumerate(source.ids):
      assert name not in examples
      examples[name] = *source.read(i), source.labels[i, 0]
  return examples


def names_of(source):
  """Returns the part of each id before the first slash or bracket."""
  return {re.split(r"[/\[]", name)[0] for name in source.ids}


def check_tiles(examples, written, side):
  """Compares tiles with the written images: each pixel is known in one tile, masks give the labels."""
  known_count = {name: np.zeros(mask.shape, int) for name, (_, mask) in written.items()}
  for tile, (image, mask, label) in examples.items():
    name, row, col = re.fullmatch(r"(.*)\[(\d+):(\d+)\]", tile).groups()
    rows, cols = slice(int(row), int(row) + side), slice(int(col), int(col) + side)
    original, truth = written[name][0][rows, cols], written[name][1][rows, cols]
    assert image.shape == original.shape == (side, side, original.shape[-1])
    np.testing.assert_array_equal(image, original.astype(image.dtype))
    known = mask != UNKNOWN
    np.testing.assert_array_equal(mask[known], truth[known])
    assert label == truth.any()
    known_count[name][rows, cols] += known
  assert all(np.all(count == 1) for count in known_count.values())


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("variant", "channels"), [("bijie", 3), ("bijie:rgb_dem", 4)])
def test_bijie(tmp_path, variant, channels, packed):
  written = originals.bijie(tmp_path / "original" / "Bijie-landslide-dataset")
  place = tmp_path / "original"
  if packed:
    place = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "original")
  train, held_out = (
    open_split(tmp_path, variant, channels, split, original=place) for split in ("train", "validation")
  )
  assert set(held_out.ids) == {f"{kind}/df{i:03d}" for i in (8, 9) for kind in KINDS}
  examples = read(train, held_out)
  assert set(examples) == set(written)
  for name, (image, mask, label) in examples.items():
    expected, dem, truth = written[name]
    if channels == 4:
      assert image.dtype == np.float32
      np.testing.assert_array_equal(image[..., 3], dem)
    np.testing.assert_array_equal(image[..., :3], expected)
    np.testing.assert_array_equal(mask, truth)
    assert label == name.startswith("landslide/")


@pytest.mark.parametrize(("variant", "channels"), [("gvlm", 3), ("gvlm:bitemporal", 6)])
def test_gvlm(tmp_path, variant, channels):
  written = originals.gvlm(tmp_path / "original" / "GVLM_CD")
  train, held_out = (open_split(tmp_path, variant, channels, s) for s in ("train", "validation"))
  assert names_of(held_out) == {"Tbilisi_Georgia"}
  assert names_of(train) == set(originals.SITES[:-1])
  examples = read(train, held_out)
  check_tiles(examples, {
    site: (np.concatenate([after, before], -1)[..., :channels], mask)
    for site, (after, before, mask) in written.items()
  }, 256)
  for site in written:  # The landslide of this tile lies in its overlap with an earlier tile.
    image, mask, label = examples[f"{site}[44:274]"]
    assert label == 1 and image.dtype == np.uint8 and np.all(mask[:212] == UNKNOWN)
    assert examples[f"{site}[0:256]"][2] == 0


@pytest.mark.parametrize("side", [64, 128])
@pytest.mark.parametrize("validation", [0, 2])
def test_landslide4sense(tmp_path, side, validation):
  written = originals.landslide4sense(tmp_path / "original", validation=validation)
  variant = "landslide4sense" + (":patches_128" if side == 128 else "")
  train, held_out = (open_split(tmp_path, variant, 14, s) for s in ("train", "validation"))
  numbers = [9, 10] if not validation else [1, 2]
  folder = "ValidData" if validation else "TrainData"
  expected = {f"{folder}/{number}" for number in numbers}
  assert {name.partition("[")[0] for name in held_out.ids} == expected
  check_tiles(read(train, held_out), written, side)
  assert read(train)[train.ids[0]][0].dtype == np.float32


def test_cas_landslide(tmp_path):
  written = originals.cas_landslide(tmp_path / "original")
  train, held_out = (open_split(tmp_path, "cas_landslide", 3, s) for s in ("train", "validation"))
  assert names_of(held_out) == {"Wenchuan"}
  check_tiles(read(train, held_out), written, 256)
  assert {cas.region(name) for name in originals.REGIONS} == {
    "hokkaido iburi-tobu", "jiuzhai valley", "lombok", "moxi town", "palu", "wenchuan",
  }


def test_hr_gldd(tmp_path):
  written = originals.hr_gldd(tmp_path / "original")
  splits = [open_split(tmp_path, "hr_gldd", 4, split) for split in ("train", "validation")]
  splits.append(open_split(tmp_path, "hr_gldd", 4, train_split="test"))
  assert [names_of(source) for source in splits] == [{"train"}, {"val"}, {"test"}]
  check_tiles(read(*splits), written, 64)


# The same number of steps for all, so that data sets with equal channels share compiled programs.
TINY = (
  "--config.data.image_size=64", "--config.model.head_width=8",
  "--config.model.method=class_activation", "--config.train.epochs=1", "--config.train.min_steps=4",
  "--config.train.batch_size=8", "--config.train.evaluate_every=0", "--config.localize.batch_size=8",
)
SMALL = {
  "cas_landslide": {"regions": ("Lombok", "palu", "Wenchuan")}, "gvlm": {"sites": originals.SITES[2:]},
}


@pytest.mark.longest
@pytest.mark.parametrize("name", list(catalogue.TABLE))
def test_training_and_evaluation_from_the_original(tmp_path, name):
  getattr(originals, name)(tmp_path / "original", **SMALL.get(name, {}))
  result = call(
    f"--config=configs/{name}.py", f"--config.data.original={tmp_path / 'original'}",
    f"--config.data.directory={tmp_path / 'tfds'}", f"--workdir={tmp_path / 'run'}", *TINY,
    JAX_NUM_CPU_DEVICES="1", JAX_DISABLE_MOST_OPTIMIZATIONS="1",
  )
  assert result.returncode == 0, result.stderr
  evaluation = json.loads((tmp_path / "run" / "eval" / "validation.json").read_text())
  assert evaluation["examples"] > 0
  assert "step\": 4," in (tmp_path / "run" / "metrics.jsonl").read_text()
  assert "landslide" in evaluation["classes"]
  assert (tmp_path / "run" / "report.html").exists()


def damage_h5(path, change):
  with h5py.File(path, "r+") as file:
    del file["img"]
    change(file)


def external(file):
  file["img"] = h5py.ExternalLink("mask_1.h5", "mask")


def virtual(file):
  layout = h5py.VirtualLayout(shape=(128, 128, 14), dtype="f8")
  file.create_virtual_dataset("img", layout)


@pytest.mark.parametrize(("name", "make", "damage", "words"), [
  ("bijie", originals.bijie, lambda r: shutil.rmtree(r / "landslide" / "mask"),
   r"original: the folder landslide/mask/ is missing. Expected layout:\n +landslide/image"),
  ("bijie", originals.bijie, lambda r: (r / "landslide" / "mask" / "df003.png").unlink(),
   r"landslide/mask/ has no file named df003 for .*image/df003\.png"),
  ("bijie", originals.bijie, lambda r: (r / "landslide" / "mask" / "df003.png").write_bytes(b"no"),
   r"mask/df003\.png cannot be opened"),
  ("bijie", lambda r: originals.hr_gldd(r), lambda r: None, "the data set is not there"),
  ("gvlm", originals.gvlm, lambda r: (r / "Askja_Iceland" / "im2.png").unlink(),
   "the site Askja_Iceland has no im2. Expected layout"),
  ("gvlm", lambda r: originals.gvlm(r, originals.SITES[:1]), lambda r: None, "at least two sites"),
  ("landslide4sense", originals.landslide4sense,
   lambda r: shutil.rmtree(r / "TrainData" / "mask"), r"the folder TrainData/mask/ is missing"),
  ("landslide4sense", originals.landslide4sense,
   lambda r: (r / "TrainData" / "mask" / "mask_4.h5").unlink(), r"mask_4\.h5 is missing"),
  ("landslide4sense", originals.landslide4sense,
   lambda r: (r / "TrainData" / "img" / "image_4.h5").write_bytes(b"x"), r"image_4\.h5 cannot be read"),
  ("landslide4sense", originals.landslide4sense,
   lambda r: damage_h5(r / "TrainData" / "img" / "image_1.h5", external), r"1\.h5 .*has no 'img'"),
  ("landslide4sense", originals.landslide4sense,
   lambda r: damage_h5(r / "TrainData" / "img" / "image_1.h5", virtual), r"does not itself contain"),
  ("cas_landslide", originals.cas_landslide, lambda r: (r / "palu" / "mask" / "1.tif").unlink(),
   "palu/mask/ has no mask named 1"),
  ("hr_gldd", originals.hr_gldd, lambda r: (r / "valY.npy").unlink(), r"valY\.npy missing"),
  ("hr_gldd", originals.hr_gldd, lambda r: np.save(r / "trainX.npy", np.full(3, None)),
   r"trainX\.npy cannot be read"),
  ("hr_gldd", originals.hr_gldd,
   lambda r: np.save(r / "trainX.npy", np.full((8, 128, 128, 4), np.nan)), "image 0, holds values"),
])
def test_problems_of_published_files_are_named(tmp_path, name, make, damage, words):
  make(tmp_path / "original")
  damage(tmp_path / "original")
  with pytest.raises(ValueError, match=words):
    open_split(tmp_path, name, 3)
  assert not list((tmp_path / "tfds").glob(f"{name}/*/1.0.0"))


def test_published_files_come_from_the_user_or_are_downloaded(tmp_path, monkeypatch):
  with pytest.raises(FileNotFoundError, match="nowhere: no such archive, and no such folder"):
    open_split(tmp_path, "bijie", 3, original=tmp_path / "nowhere")
  with pytest.raises(ValueError, match=r"x\.rar: the URL must end in \.zip"):
    open_split(tmp_path, "bijie", 3, original="https://example.org/x.rar")
  config = DataConfig(source="tfds", builder="data/bijie", directory=str(tmp_path / "tfds"))
  with pytest.raises(ValueError, match=r"add --config\.data\.original=FOLDER(.|\n)*Bijie_pages"):
    sources.open_source(config, "train")
  monkeypatch.setattr(
    download, "fetch_record", lambda record, folder, **_: originals.hr_gldd(folder)
  )
  config = {"source": "tfds", "directory": str(tmp_path / "tfds")}
  arrays = DataConfig(**config, builder="data/hr_gldd", channels=4)
  assert len(sources.open_source(arrays, "train").ids) == 32
  originals.bijie(tmp_path / "tfds" / "downloads" / "manual" / "bijie")  # TFDS's own place.
  assert len(sources.open_source(DataConfig(**config, builder="data/bijie"), "train").ids) == 16
  # The data set exists already, so the URL of a workdir's config is not used.
  url = DataConfig(**config, builder="data/bijie", original="https://example.org/x.zip")
  assert len(sources.open_source(url, "validation", from_workdir=True).ids) == 4


def test_an_archive_at_a_url_is_downloaded_checked_and_unpacked(tmp_path, monkeypatch):
  originals.hr_gldd(tmp_path / "original" / "inside")
  packed = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "original")
  requests = []

  def fetch(url, target, *, checksum, max_bytes):
    requests.append((url, checksum))
    target.parent.mkdir(parents=True)
    return shutil.copy(packed, target)

  monkeypatch.setattr(download, "fetch", fetch)
  url = "https://example.org/sets/my%20set.zip"
  source = open_split(tmp_path, "hr_gldd", 4, original=f"{url}#sha256={'0' * 64}")
  assert requests == [(url, f"sha256:{'0' * 64}")]
  assert len(source.ids) == 32
  assert (tmp_path / "tfds" / "downloads" / "hr_gldd" / "my set.zip").exists()


class Shapes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Images with the types and channels of `image`, and masks with several values."""

  name = "shapes"
  VERSION = tfds.core.Version("1.0.0")
  image = tfds.features.Image(shape=(5, 7, 3), dtype=np.uint16)
  values = np.arange(105, dtype=np.uint16).reshape(5, 7, 3) * 600

  def _info(self):
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({
      "image": self.image, "label": tfds.features.ClassLabel(names=["no", "landslide"]),
      "mask": tfds.features.Tensor(shape=(5, 7), dtype=np.int64),
    }))

  def _split_generators(self, dl_manager):
    return {"train": self._generate_examples()}

  def _generate_examples(self):
    mask = np.zeros((5, 7), np.int64)
    mask[0, :4] = 1, 255, 7, 1
    for label in (0, 1):
      yield label, {"image": self.values, "label": label, "mask": mask}


@pytest.mark.parametrize(("image", "dtype", "channels"), [
  (tfds.features.Image(shape=(5, 7, 3), dtype=np.uint16), np.uint16, 3),
  (tfds.features.Image(shape=(5, 7, 1), dtype=np.uint16), np.uint16, 1),
  (tfds.features.Image(shape=(None, None, 1), dtype=np.float32), np.float32, 1),
  (tfds.features.Tensor(shape=(None, None, 9), dtype=np.uint16, encoding="zlib"), np.uint16, 9),
  (tfds.features.Tensor(shape=(None, None, 14), dtype=np.float32, encoding="bytes"), np.float32, 14),
  (tfds.features.Tensor(shape=(5, 7, 2), dtype=np.float32), np.float32, 2),
])
def test_images_of_all_types_and_masks_of_several_values(
  tmp_path, monkeypatch, image, dtype, channels
):
  values = (np.arange(35 * channels) * 600 % 65536).reshape(5, 7, channels).astype(dtype)
  values[-1, -1] = 0
  monkeypatch.setattr(Shapes, "image", image)
  monkeypatch.setattr(Shapes, "values", values)
  monkeypatch.setattr(
    tfds_source, "open_builder", lambda config: Shapes(data_dir=tmp_path)
  )
  config = {"source": "tfds", "builder": "shapes", "channels": channels}
  source = sources.open_source(DataConfig(**config, mask_ignore=7), "train")
  read, mask = source.read(0)
  assert read.dtype == dtype
  np.testing.assert_array_equal(read, values)
  np.testing.assert_array_equal(mask[0], [1, UNKNOWN, UNKNOWN, 1, 0, 0, 0])
  with pytest.raises(ImageError, match=r"holds class 7.*data\.mask_ignore"):
    sources.open_source(DataConfig(**config), "train").read(0)


def test_every_data_set_has_all_its_parts():
  for name, data_set in catalogue.TABLE.items():
    for file in ("README.md", "CITATIONS.bib", "TAGS.txt", f"{name}_dataset_builder.py"):
      assert (ROOT / "data" / name / file).stat().st_size, file
    builder = importlib.import_module(f"data.{name}.{name}_dataset_builder").Builder
    config = importlib.import_module(f"configs.{name}").get_config()
    assert config.data.builder == f"data/{name}"
    assert builder.BUILDER_CONFIGS[0].channels == config.data.channels
    for flags, _ in data_set.variants:
      assert flags.split()[0].rpartition(":")[2] in {c.name for c in builder.BUILDER_CONFIGS}
    assert data_set.licence in catalogue.text()
    assert data_set.page in builder.MANUAL_DOWNLOAD_INSTRUCTIONS
    assert f"]({name})" in (ROOT / "data" / "README.md").read_text()


def test_the_list_is_printed():
  result = call("--mode=datasets")
  assert result.returncode == 0
  assert all(f"configs/{name}.py" in result.stdout for name in catalogue.TABLE)
  result = call("--mode=datasets", "--name=gvlm")
  assert result.stdout.strip() == catalogue.text("gvlm")
  wrong = call("--mode=datasets", "--name=gvml")
  assert wrong.returncode == 1
  assert "choose one of bijie, gvlm" in wrong.stderr


@pytest.mark.parametrize(("count", "held_out"), [(1, 0), (2, 1), (3, 1), (10, 2), (17, 3)])
def test_the_last_fifth_is_held_out(count, held_out):
  names = [f"n{i:02d}" for i in range(count)]
  assert shared.validation_names(list(itertools.chain(names, names))) == set(names[count - held_out :])
