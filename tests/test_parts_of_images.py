"""Examples that are other parts of the same images are noticed, although their names stay the same."""

import dataclasses

import numpy as np
import pytest

from lgag_jax.config import Config, DataConfig
from lgag_jax.inputs import pseudo
from lgag_jax.inputs.sources import make_source
from lgag_jax.runtime import files
from lgag_jax.training import examples_record, pseudo_masks
from tests.test_patches import make_data, write_manifest

PART = {"row_start": 0, "row_stop": 8, "col_start": 0, "col_stop": 8}


def write_parts(root, **changes):
  """Writes four images, each with a part for each split; `changes` are of the first training part."""
  rows = [
    {"file": f"{n}.png", "split": split, **PART, "col_start": start, "col_stop": start + 8}
    for split, start in (("train", 0), ("validation", 16)) for n in range(4)
  ]
  rows[0] |= changes
  write_manifest(root / "manifest.csv", rows)


@pytest.fixture
def config(tmp_path):
  mask = np.zeros((32, 32), np.uint8)
  mask[2:6] = 1
  make_data(tmp_path, {str(n): mask * (n % 2) for n in range(4)})
  write_parts(tmp_path)
  return Config(data=DataConfig(source="patches", directory=str(tmp_path)))


def train(config):
  return {"train": make_source(config.data, "train")}


CHANGES = [{"row_stop": 16}, {"col_stop": 16}, {"row_stop": 7, "col_stop": 7}]


@pytest.mark.parametrize("change", CHANGES)
def test_other_parts_are_refused(config, tmp_path, change):
  examples_record.write(train(config), tmp_path, config)
  examples_record.check(train(config), tmp_path, config)
  first = train(config)["train"]
  write_parts(tmp_path, **change)
  assert train(config)["train"].ids == first.ids
  with pytest.raises(ValueError, match=r"train split has other parts of the same images \(row_start"):
    examples_record.check(train(config), tmp_path, config)


@pytest.mark.parametrize("change", CHANGES)
def test_a_record_of_an_earlier_release_says_nothing_of_parts(config, tmp_path, change):
  examples_record.write(train(config), tmp_path, config)
  record = files.read_json(tmp_path / examples_record.FILE)
  assert record["train"].pop("parts")
  del record["sha256"]
  files.write_json(tmp_path / examples_record.FILE, record)
  write_parts(tmp_path, **change)
  examples_record.check(train(config), tmp_path, config)


def test_parts_of_images_at_another_place_are_the_same(config, tmp_path):
  (tmp_path / "b").mkdir()
  for name in ("images", "masks", "manifest.csv"):
    (tmp_path / name).rename(tmp_path / "b" / name)
  moved = dataclasses.replace(config.data, directory=str(tmp_path / "b"))
  found = pseudo.parts(make_source(moved, "train"))
  for name in ("images", "masks", "manifest.csv"):
    (tmp_path / "b" / name).rename(tmp_path / name)
  assert found == pseudo.parts(train(config)["train"]) != {}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("recorded", [True, False])
def test_pseudo_masks_of_other_parts_are_refused(config, tmp_path, change, recorded):
  source = train(config)["train"]
  index = {"source": pseudo.digest(source), "classes": list(config.data.classes)}
  full = index | pseudo.parts(source)
  (tmp_path / "pseudo").mkdir()
  files.write_json(tmp_path / "pseudo" / pseudo.INDEX, full if recorded else index)
  data = dataclasses.replace(config.data, pseudo_masks=str(tmp_path / "pseudo"))
  pseudo.PseudoSource(source, data)
  assert pseudo_masks._is_complete(tmp_path / "pseudo", full)
  write_parts(tmp_path, **change)
  other = train(config)["train"]
  changed = index | pseudo.parts(other)
  assert pseudo_masks._is_complete(tmp_path / "pseudo", changed) != recorded
  if recorded:
    with pytest.raises(ValueError, match=r"written for other parts of the images.*--mode=pseudo again"):
      pseudo.PseudoSource(other, data)
  else:  # Earlier releases did not record parts.
    pseudo.PseudoSource(other, data)
