"""Scenes split by blocks: the splits share no pixel and keep their distance."""

import itertools
import logging
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.leaks import leaks
from lgag_jax import config
from lgag_jax.config import DataConfig
from lgag_jax.doctor import duplicate_checks, survey
from lgag_jax.imagery.reading import UNKNOWN, ImageError
from lgag_jax.inputs import blocks, patches
from tests.test_patches import make_data, write_manifest

SPLITS = ("train", "validation")


def options(root, **fields):
  return DataConfig(**{
    "directory": str(root), "source": "patches", "tile_size": 4, "block_size": 8, **fields,
  })


def opened(root, spec="train", **fields):
  return patches.PatchSource(options(root, **fields), spec)


def rectangles(source, name=None):
  """Returns the image, top, bottom, left and right of each tile."""
  return [
    (image.name, t.row, t.row + t.height, t.col, t.col + t.width)
    for image, _, t in source._tiles if name in (None, image.name)
  ]


def empty(sizes):
  return {name: np.zeros(size) for name, size in sizes.items()}


def painted(size, rectangles):
  area = np.zeros(size, bool)
  for _, top, bottom, left, right in rectangles:
    area[max(top, 0) : bottom, max(left, 0) : right] = True
  return area


def grown(rectangles, by):
  return [
    (name, top - by, bottom + by, left - by, right + by)
    for name, top, bottom, left, right in rectangles
  ]


def block_numbers(length, block, tile):
  """Returns the block number of each pixel along an axis."""
  numbers = [p // block for p in range(length)]
  if numbers.count(numbers[-1]) < tile and numbers[-1] > 0:
    numbers = [min(n, numbers[-1] - 1) for n in numbers]
  return numbers


@settings(max_examples=25, deadline=None)
@given(
  sizes=st.lists(st.tuples(st.integers(1, 45), st.integers(1, 45)), min_size=1, max_size=3),
  tile=st.integers(2, 6), more=st.integers(0, 10), reach=st.integers(0, 9),
  fraction=st.sampled_from([0.1, 0.2, 0.5]),
)
def test_splits_share_no_pixel_and_keep_their_distance(sizes, tile, more, reach, fraction):
  with tempfile.TemporaryDirectory() as root:
    named = {f"s{i}": size for i, size in enumerate(sizes)}
    make_data(path := pathlib.Path(root), empty(named))
    fields = {"tile_size": tile, "block_size": tile + more, "validation_fraction": fraction}
    try:
      apart = {s: opened(path, s, **fields, block_buffer=reach) for s in SPLITS}
      whole = {s: opened(path, s, **fields) for s in SPLITS}
    except ValueError as error:
      if not re.search("leaves none for|has no tile left", str(error)):
        raise
      return
  assert rectangles(apart["validation"]) == rectangles(whole["validation"])
  for name, size in named.items():
    train, held_out = (rectangles(apart[s], f"{name}.png") for s in SPLITS)
    everything = rectangles(whole["train"], f"{name}.png")
    near = painted(size, grown(held_out, reach))
    assert not (painted(size, train) & near).any()
    # All skipped tiles lie in the buffer.
    assert set(train) <= set(everything)
    for skipped in set(everything) - set(train):
      assert (painted(size, [skipped]) & near).any()
    # Without a buffer, each pixel is in exactly one split.
    assert (painted(size, everything) ^ painted(size, held_out)).all()
    rows, cols = (block_numbers(length, tile + more, tile) for length in size)
    for _, top, bottom, left, right in everything + held_out:
      assert len({*rows[top:bottom]}) == len({*cols[left:right]}) == 1
      assert (bottom - top, right - left) == (min(tile, size[0]), min(tile, size[1]))


@pytest.mark.parametrize("size", [(32, 32), (36, 52), (35, 41)])
def test_each_pixel_is_known_in_one_tile_of_one_split(tmp_path, size):
  make_data(tmp_path, empty({"a": size}))
  known_count = np.zeros(size, int)
  for split in SPLITS:
    source = opened(tmp_path, split)
    for i, (_, top, bottom, left, right) in enumerate(rectangles(source)):
      known_count[top:bottom, left:right] += source.read(i)[1] != UNKNOWN
  np.testing.assert_array_equal(known_count, 1)


def test_the_buffer_costs_whole_tiles_around_validation_and_no_others(tmp_path):
  make_data(tmp_path, empty({"a": (64, 64)}))
  train, held_out = (rectangles(opened(tmp_path, s, block_buffer=4)) for s in SPLITS)
  area = painted((64, 64), train), painted((64, 64), held_out)
  expected = ~painted((64, 64), grown(held_out, 4))
  np.testing.assert_array_equal(area[0], expected)
  assert len(held_out) == 4 * round(0.2 * 64)


@settings(max_examples=25, deadline=None)
@given(
  sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5),
  fraction=st.floats(0.05, 0.95), data=st.data(),
)
def test_the_validation_fraction_is_met_in_any_order(sizes, fraction, data):
  every = [
    (f"i{n}", r, c) for n, size in enumerate(sizes)
    for r, c in itertools.product(*map(range, size))
  ]
  count = round(fraction * len(every))
  if not 0 < count < len(every):
    with pytest.raises(ValueError, match=r"data\.validation_fraction=.*leaves none for"):
      blocks.assign_splits(every, fraction)
    return
  assigned = blocks.assign_splits(every, fraction)
  assert assigned.count("validation") == count
  shuffled = data.draw(st.permutations(every))
  again = dict(zip(shuffled, blocks.assign_splits(shuffled, fraction), strict=True))
  assert [again[block] for block in every] == assigned


@pytest.mark.parametrize("name", ["images/a.png", "images/Hang ä.tif", "b"])
def test_validation_is_spread_over_a_scene(name):
  side, fraction = 20, 0.2
  every = [(name, r, c) for r, c in itertools.product(range(side), repeat=2)]
  assigned = blocks.assign_splits(every, fraction)
  held_out = {b[1:] for b, split in zip(every, assigned, strict=True) if split == "validation"}
  assert not any((r + 1, c) in held_out or (r, c + 1) in held_out for r, c in held_out)
  for top, left in itertools.product(range(0, side, 5), repeat=2):
    within = sum((r, c) in held_out for r in range(top, top + 5) for c in range(left, left + 5))
    assert abs(within - 25 * fraction) <= 2


def test_the_split_is_the_same_in_every_process_and_on_every_machine():
  code = (
    "from lgag_jax.inputs import blocks;"
    "every = [(n, r, c) for n in 'ab' for r in range(4) for c in range(5)];"
    "print(''.join(s[0] for s in blocks.assign_splits(every, 0.25)))"
  )
  outputs = {
    subprocess.run(
      [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, check=True,
      capture_output=True, text=True,
    ).stdout.strip() for seed in ("0", "1")
  }
  assert outputs == {"tttttvtvttttttvtvtvttvtvttttttvtvttttttv"}


def test_the_split_does_not_depend_on_the_folder_nor_on_the_manifests_order(tmp_path):
  scenes = empty(dict.fromkeys("abc", (32, 24)))
  make_data(tmp_path / "one", scenes)
  make_data(tmp_path / "two", scenes)
  write_manifest(tmp_path / "two" / "manifest.csv", [{"file": f"{name}.png"} for name in "cab"])
  for split in SPLITS:
    first, second = (opened(tmp_path / folder, split) for folder in ("one", "two"))
    assert sorted(first.ids) == sorted(second.ids)
    assert first.ids != second.ids


def test_scenes_smaller_than_a_block_go_to_one_split(tmp_path):
  names = [f"s{i}" for i in range(10)]
  make_data(tmp_path, empty({name: (7, 3) if name == "s0" else (8, 8) for name in names}))
  train, held_out = (
    {name for name, *_ in rectangles(opened(tmp_path, s, block_buffer=50))} for s in SPLITS
  )
  assert len(held_out) == 2
  assert train | held_out == {f"{name}.png" for name in names}
  assert not train & held_out


def test_parts_of_a_scene_share_its_blocks(tmp_path):
  make_data(tmp_path, empty({"a": (64, 64)}))
  part = {"file": "a.png", "row_start": 3, "row_stop": 60, "col_start": 0, "col_stop": 40}
  other = {**part, "row_start": 21, "col_start": 22, "col_stop": 64}
  write_manifest(tmp_path / "manifest.csv", [part, other])
  train, held_out = (rectangles(opened(tmp_path, s, block_buffer=3)) for s in SPLITS)
  assert not (painted((64, 64), train) & painted((64, 64), grown(held_out, 3))).any()
  # Blocks begin at row 3 and column 0. The second part begins inside a block, and gives no strips.
  assert {bottom - top for _, top, bottom, _, _ in train + held_out} == {4}
  assert {right - left for *_, left, right in train + held_out} == {4}
  for _, top, bottom, left, right in train + held_out:
    assert (top - 3) // 8 == min((bottom - 4) // 8, 6)
    assert left // 8 == (right - 1) // 8


def test_slices_count_blocks_and_keep_the_distance_too(tmp_path):
  make_data(tmp_path, empty({"a": (64, 64)}))
  whole = set(rectangles(opened(tmp_path)))
  half = set(rectangles(opened(tmp_path, "train[:50%]")))
  assert half < whole
  assert half | set(rectangles(opened(tmp_path, "train[50%:]"))) == whole
  fields = {"train_split": "train[:60%]", "validation_split": "train[60%:]", "block_buffer": 2}
  train = rectangles(opened(tmp_path, "train[:60%]", **fields))
  inner = rectangles(opened(tmp_path, "train[60%:]", **fields))
  validation = rectangles(opened(tmp_path, "validation"))
  near = painted((64, 64), grown(inner + validation, 2))
  assert train
  assert not (painted((64, 64), train) & near).any()
  assert set(inner) == set(rectangles(opened(tmp_path, "train[60%:]")))


def test_splits_that_share_blocks_are_refused(tmp_path):
  make_data(tmp_path, empty({"a": (64, 64)}))
  with pytest.raises(ValueError, match=r"data\.train_split='train\+validation'.*share 13 of 64 blocks"):
    opened(tmp_path, train_split="train+validation")
  with pytest.raises(ValueError, match=r"Split 'test'.*The splits are"):
    opened(tmp_path, "test")


def test_splits_in_a_manifest_come_first(tmp_path, caplog):
  make_data(tmp_path, empty({"a": (16, 16), "b": (16, 16)}))
  rows = [{"file": "a.png", "split": "validation"}, {"file": "b.png", "split": "train"}]
  write_manifest(tmp_path / "manifest.csv", rows)
  train = opened(tmp_path, block_buffer=4)
  assert {name for name, *_ in rectangles(train)} == {"b.png"}
  assert len(train.ids) == 16
  assert "data.block_size=8 is ignored" in caplog.text


def test_skipped_tiles_are_counted(tmp_path, caplog):
  make_data(tmp_path, empty({"a": (64, 64)}))
  caplog.set_level(logging.INFO)
  whole = len(opened(tmp_path).ids)
  assert not caplog.text
  count = len(opened(tmp_path, block_buffer=1).ids)
  assert count < whole
  assert f"train: skipped {whole - count} of {whole} tiles: within data.block_buffer=1" in caplog.text


@pytest.mark.parametrize(
  ("fields", "message"),
  [({"block_size": 3}, r"data\.block_size=3.*data\.tile_size from 1 to this, not 4"),
   ({"tile_size": 0}, r"data\.block_size=8.*not 0"),
   ({"source": "folder"}, r"data\.block_size=8: needs data\.source='patches'"),
   ({"block_size": -8}, r"data\.block_size=-8: must not be negative"),
   ({"block_buffer": -1}, r"data\.block_buffer=-1: must not be negative"),
   ({"block_size": 0, "block_buffer": 1}, r"data\.block_buffer=1: set data\.block_size")],
)
def test_sizes_that_do_not_fit_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    options("", **fields)


def test_splits_without_a_block_or_a_tile_are_refused(tmp_path):
  make_data(tmp_path, empty({"a": (16, 8)}))
  for split in SPLITS:
    with pytest.raises(ValueError, match=r"fraction=0\.2 of 2 blocks leaves none for val.*Raise"):
      opened(tmp_path, split)
    with pytest.raises(ValueError, match=r"fraction=0\.9 of 2 blocks leaves none for train.*Lower"):
      opened(tmp_path, split, validation_fraction=0.9)
  assert opened(tmp_path, validation_fraction=0.5, block_buffer=4).ids
  with pytest.raises(ValueError, match=r"'train' has no tile left: all 4 .*block_buffer=5.*Lower"):
    opened(tmp_path, validation_fraction=0.5, block_buffer=5)


def test_a_scene_that_cannot_be_opened_does_not_change_the_split(tmp_path):
  make_data(tmp_path, empty({"a": (64, 64)}))
  expected = opened(tmp_path).ids
  (tmp_path / "images" / "b.png").write_bytes(b"no image")
  with pytest.raises(ImageError, match=r"b\.png"):
    opened(tmp_path)
  source = opened(tmp_path, on_bad_image="skip")
  assert source.ids == expected
  assert [path.rsplit("/")[-1] for path in source.skipped] == ["b.png"]


def texture(side):
  noise = np.random.default_rng(0).normal(size=(side // 2, side // 2, 3))
  small = Image.fromarray(np.clip(128 + 40 * noise, 0, 255).astype(np.uint8))
  return np.asarray(small.resize((side, side), Image.Resampling.BICUBIC))


def test_leaks_across_splits_are_counted_and_named(tmp_path):
  masks, pixels = empty({"a": (192, 192)}), texture(192).copy()
  make_data(tmp_path, masks, images={"a": pixels})
  fields = {"tile_size": 32, "block_size": 64}
  whole = config.Config(data=options(tmp_path, **fields))
  assert leaks(whole) == []
  train, held_out = (rectangles(opened(tmp_path, s, **fields)) for s in SPLITS)
  for (_, r, _, c, _), (_, top, _, left, _), darker in zip(train, held_out[:2], (0, 5), strict=False):
    pixels[top : top + 32, left : left + 32] = np.maximum(pixels[r : r + 32, c : c + 32], 20) - darker
    pixels[r : r + 32, c : c + 32] = np.maximum(pixels[r : r + 32, c : c + 32], 20)
  make_data(tmp_path, masks, images={"a": pixels})
  names = leaks(whole)
  pairs = [
    f"images/a.png[{r}:{c}] and images/a.png[{top}:{left}], {kind}"
    for (_, r, _, c, _), (_, top, _, left, _), kind in zip(
      train, held_out[:2], ("pixel for pixel the same", "nearly the same image"), strict=False
    )
  ]
  assert names == pairs
  findings = duplicate_checks.check(survey.read(whole.data).examples)
  assert [f.files for f in findings] == [(name.partition(",")[0],) for name in names]
  (tmp_path / "masks" / "a.png").unlink()
  with pytest.raises(ValueError, match=r"Cannot compare.*no mask named a"):
    leaks(whole)
  # Both splits need the scene, which is reported once.
  assert [name for name, _ in survey.read(whole.data).faults] == ["images/a.png"]
