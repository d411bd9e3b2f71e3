"""Kept trunk outputs: one split's are never another's, and what changed is computed anew."""

import dataclasses
import functools
import logging
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from lgag_jax import config as configs
from lgag_jax.inputs import pipeline, sources, trunk_outputs
from lgag_jax.runtime import lock, sharding
from lgag_jax.training import fill_trunk_outputs, loop, restore


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


@functools.cache
def started(model):
  """The network and its first state, which do not depend on the data: tracing them takes seconds."""
  network, _, state = restore.start(model, sharding.make_mesh(), 1)
  return network, state


def open_split(split, config, workdir):
  mesh = sharding.make_mesh()
  of_data = {"directory": "", "on_bad_image": "error"}
  network, state = started(
    dataclasses.replace(config, data=dataclasses.replace(config.data, **of_data))
  )
  source = sources.open_source(config.data, split)
  return fill_trunk_outputs.open_split(source, network, state, config, mesh, workdir)


@pytest.mark.longest
def test_splits_with_the_same_names_are_kept_apart(split_folders, small_config, tmp_path):
  small_config.data.directory = str(split_folders)
  config = configs.from_mapping(small_config)
  work = tmp_path / "work"
  train, validation = (open_split(split, config, work) for split in ("train", "validation"))
  assert len(list((work / "features").glob("*/"))) == 2
  assert not np.array_equal(train.train_read(0)[0], validation.train_read(0)[0])
  again = open_split("train", config, work)
  assert len(list((work / "features").glob("*/"))) == 2
  np.testing.assert_array_equal(train.train_read(0)[0], again.train_read(0)[0])

  # A changed image is another example.
  Image.fromarray(np.full((64, 64, 3), 9, np.uint8)).save(split_folders / "train/landslide/0.png")
  open_split("train", config, work)
  assert len(list((work / "features").glob("*/"))) == 3


def test_masks_are_read_as_they_are_now(split_folders, small_config, tmp_path):
  small_config.data.directory = str(split_folders)
  config = configs.from_mapping(small_config)
  split = open_split("validation", config, tmp_path / "work")
  positive = int(np.flatnonzero(split.source.labels[:, 0])[0])
  assert np.sum(split.train_read(positive)[-2] == 1) == 24 * 24
  path = split_folders / "validation" / "masks" / "0.PNG"
  Image.fromarray(np.zeros((64, 64), np.uint8)).save(path)
  split = open_split("validation", config, tmp_path / "work")
  assert np.sum(split.train_read(positive)[-2] == 1) == 0


def test_a_negative_never_takes_a_positives_mask(split_folders, small_config):
  small_config.data.directory = str(split_folders)
  config = configs.from_mapping(small_config)
  source = sources.open_source(config.data, "train")
  read = pipeline.Reader(source, config.data)
  shown = [np.any(read(i)[1] == 1) for i in range(len(source.ids))]
  assert shown == (source.labels[:, 0] > 0).tolist()
  assert set(shown) == {True, False}


def test_two_masks_of_one_name_are_refused(split_folders, small_config):
  masks = split_folders / "train" / "masks"
  os.rename(masks / "1.PNG", masks / "0.png")
  small_config.data.directory = str(split_folders)
  with pytest.raises(ValueError, match="differ only in their suffix"):
    sources.open_source(configs.from_mapping(small_config).data, "train")


def test_the_upper_bound_needs_masks(split_folders, small_config, tmp_path):
  for split in ("train", "validation"):
    shutil.rmtree(split_folders / split / "masks")
  small_config.data.directory = str(split_folders)
  small_config.model.method = "segmentation"
  with pytest.raises(ValueError, match="needs masks"):
    loop.train_and_evaluate(configs.from_mapping(small_config), tmp_path / "work")


def test_leftovers_of_a_kill_go_and_a_damaged_cache_is_named(split_folders, small_config, tmp_path):
  small_config.data.directory = str(split_folders)
  config = configs.from_mapping(small_config)
  open_split("train", config, tmp_path / "work")
  (cache,) = (tmp_path / "work" / "features").glob("*/")
  # Killed while it filled: no index yet, half an array.
  half = cache.rename(f"{cache}.partial")
  (half / "index.json").unlink()
  (half / "tap0.npy").write_bytes(b"half")
  open_split("train", config, tmp_path / "work")
  assert list(cache.parent.glob("*/")) == [cache]

  array = cache / "tap0.npy"
  array.write_bytes(array.read_bytes()[:-1])
  with pytest.raises(ValueError, match=rf"{cache.name} is damaged .*remove it"):
    open_split("train", config, tmp_path / "work")


def test_a_second_run_waits_for_the_first_ones_cache(split_folders, small_config, tmp_path, caplog):
  caplog.set_level(logging.INFO, "lgag_jax")
  small_config.data.directory = str(split_folders)
  config = configs.from_mapping(small_config)
  open_split("train", config, tmp_path / "first")
  (cache,) = (tmp_path / "first" / "features").glob("*/")
  target = tmp_path / "second" / "features"
  held = lock.try_acquire(target / f"{cache.name}.lock")

  def finish(_):
    shutil.copytree(cache, target / cache.name)
    held.close()

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(lock.time, "sleep", finish)
    patch.setattr(fill_trunk_outputs, "_fill", lambda *_: pytest.fail("filled again"))
    split = open_split("train", config, tmp_path / "second")
  assert len(split.train_read(0)) > 2
  assert f"Waiting for process {os.getpid()} on" in caplog.text


def test_no_room_is_said_before_the_work(split_folders, small_config, tmp_path, monkeypatch):
  small_config.data.directory = str(split_folders)
  config = configs.from_mapping(small_config)
  monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 99, 1))
  with pytest.raises(OSError, match=r"No space left on device for trunk outputs.*feature_cache_gib=0"):
    open_split("train", config, tmp_path / "work")
  assert not list((tmp_path / "work" / "features").glob("*/"))


def test_an_image_that_was_bad_is_left_out_until_its_outputs_are_made_anew(
  split_folders, small_config, tmp_path, caplog
):
  path = split_folders / "train" / "landslide" / "0.png"
  whole, status = path.read_bytes(), path.stat()
  path.write_bytes(bytes(len(whole)))
  os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
  small_config.data.update(directory=str(split_folders), on_bad_image="skip")
  config = configs.from_mapping(small_config)
  split = open_split("train", config, tmp_path / "work")
  bad = split.source.ids.index("landslide/0.png")
  assert split.train_read(bad)[-1] == 0
  # Mended, with the same size and time: what was kept of it is still of a black image.
  path.write_bytes(whole)
  os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
  split = open_split("train", config, tmp_path / "work")
  assert [split.train_read(i)[-1] for i in range(len(split.source.ids))].count(0) == 1
  assert split.train_read(bad)[-1] == 0
  assert "1 images were bad when their trunk outputs were cached" in caplog.text


@pytest.mark.parametrize(("parts", "run"), [(1, 8), (2, 4), (4, 1), (3, 2)])
def test_each_sample_has_its_own_row(parts, run):
  places = [trunk_outputs.place(i, parts, run) for i in range(31)]
  for part in range(parts):
    rows = [row for p, row in places if p == part]
    assert rows == list(range(len(rows)))
  assert [part for part, _ in places] == [i // run % parts for i in range(31)]


@pytest.mark.parametrize(("name", "content"), [
  ("holiday.partial", "beach.jpg"), ("holiday.partial", "tap0.npy"),
  ("0123456789abcdef01234567.partial", "beach.jpg"), ("0123456789abcdef01234567.partial", "tap0.npy"),
])
def test_only_a_cache_that_was_being_filled_is_a_leftover(tmp_path, name, content):
  (tmp_path / name).mkdir()
  (tmp_path / name / content).touch()
  (tmp_path / "fedcba9876543210fedcba98.partial").symlink_to(tmp_path / name)
  fill_trunk_outputs._remove_leftovers(tmp_path)
  is_leftover = name.startswith("0") and content.startswith("tap")
  assert (tmp_path / name).exists() != is_leftover
  assert (tmp_path / "fedcba9876543210fedcba98.partial").is_symlink()
  assert (tmp_path / name).with_suffix(".lock").exists() == is_leftover
