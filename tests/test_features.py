"""Kept trunk outputs: one split's are never another's, and what changed is computed anew."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from lgag_jax import config as configs
from lgag_jax import input_pipeline, partition, session, sources, train


@pytest.fixture
def split_folders(tmp_path, image_folder):
  """train/ and validation/ with the same file names but other pixels, and masks."""
  for split, first in (("train", 0), ("validation", 6)):
    for name, stem in (("landslide", "slide"), ("non-landslide", "quiet")):
      (tmp_path / split / name).mkdir(parents=True)
      for i in range(4):
        number = first + i + (20 if stem == "quiet" else 0)
        source = image_folder / name / f"{stem}_{number:02d}.png"
        shutil.copy(source, tmp_path / split / name / f"{i}.png")
    (tmp_path / split / "masks").mkdir()
    for i in range(4):
      mask = image_folder / "masks" / f"slide_{first + i:02d}.png"
      shutil.copy(mask, tmp_path / split / "masks" / f"{i}.PNG")
  return tmp_path


def open_split(split, config, workdir):
  mesh = partition.make_mesh()
  network, _, state = session.start(config, mesh, 1)
  source = sources.open_source(config.data, split)
  return session.open_split(source, network, state, config, mesh, workdir)


def test_splits_with_the_same_names_are_kept_apart(split_folders, small_config, tmp_path):
  small_config.data.directory = str(split_folders)
  config = configs.from_mapping(small_config)
  work = tmp_path / "work"
  train, validation = (open_split(split, config, work) for split in ("train", "validation"))
  assert len(list((work / "features").iterdir())) == 2
  assert not np.array_equal(train.read(0)[0], validation.read(0)[0])
  again = open_split("train", config, work)
  assert len(list((work / "features").iterdir())) == 2
  np.testing.assert_array_equal(train.read(0)[0], again.read(0)[0])

  # A changed image is another example.
  Image.fromarray(np.full((64, 64, 3), 9, np.uint8)).save(split_folders / "train/landslide/0.png")
  open_split("train", config, work)
  assert len(list((work / "features").iterdir())) == 3


def test_masks_are_read_as_they_are_now(split_folders, small_config, tmp_path):
  small_config.data.directory = str(split_folders)
  config = configs.from_mapping(small_config)
  split = open_split("validation", config, tmp_path / "work")
  positive = int(np.flatnonzero(split.source.labels[:, 0])[0])
  assert np.sum(split.read(positive)[-2] == 1) == 24 * 24
  path = split_folders / "validation" / "masks" / "0.PNG"
  Image.fromarray(np.zeros((64, 64), np.uint8)).save(path)
  split = open_split("validation", config, tmp_path / "work")
  assert np.sum(split.read(positive)[-2] == 1) == 0


def test_a_negative_never_takes_a_positives_mask(split_folders, small_config):
  small_config.data.directory = str(split_folders)
  config = configs.from_mapping(small_config)
  source = sources.open_source(config.data, "train")
  read = input_pipeline.Reader(source, config.data)
  for i, label in enumerate(source.labels[:, 0]):
    assert np.any(read(i)[1] == 1) == (label > 0)


def test_two_masks_of_one_name_are_refused(split_folders, small_config):
  masks = split_folders / "train" / "masks"
  os.rename(masks / "1.PNG", masks / "0.png")
  small_config.data.directory = str(split_folders)
  with pytest.raises(ValueError, match="share a name"):
    sources.open_source(configs.from_mapping(small_config).data, "train")


def test_the_upper_bound_needs_masks(split_folders, small_config, tmp_path):
  for split in ("train", "validation"):
    shutil.rmtree(split_folders / split / "masks")
  small_config.data.directory = str(split_folders)
  small_config.model.method = "supervised"
  with pytest.raises(ValueError, match="needs masks"):
    train.train_and_evaluate(configs.from_mapping(small_config), tmp_path / "work")
