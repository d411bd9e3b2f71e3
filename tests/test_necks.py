# ruff: noqa: F401, F811
"""Polygons that narrow necks join are split there, and nothing of them is lost."""

import json

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import scipy.ndimage
import shapely

from lgag_jax.mapping import necks, predict, unsplit
from lgag_jax.options.mapping import Options
from tests.test_map_names import model
from tests.test_mapping import batch_sizes
from tests.test_polygons import noise, trace


def discs(*centres, radius, shape, neck=0):
  """Returns discs of one class, joined along the row of the first one by a neck of so many pixels."""
  rows, cols = np.indices(shape)
  mask = np.zeros(shape, np.uint8)
  for row, col in centres:
    mask[np.hypot(rows - row, cols - col) <= radius] = 1
  row, first = centres[0]
  mask[row - neck // 2 : row - neck // 2 + neck, first : centres[-1][1]] = 1
  return mask


TWO = discs((20, 18), (20, 60), radius=12, shape=(40, 80), neck=4)


def test_two_discs_with_a_neck_are_two_polygons_whose_union_is_the_original(tmp_path):
  (whole,) = trace(tmp_path, TWO)
  first, second = trace(tmp_path, TWO, split_necks=60)  # 6 pixels of 10 m.
  assert first.whole is second.whole and first.whole is not None
  assert (first.whole.stable_id, first.whole.area_m2) == (whole.stable_id, whole.area_m2)
  assert first.whole.geometry.equals(whole.geometry)
  assert shapely.union(first.geometry, second.geometry).equals(whole.geometry)
  assert not shapely.intersection(first.geometry, second.geometry).area
  assert first.area_m2 + second.area_m2 == pytest.approx(whole.area_m2, rel=1e-9)
  assert first.pixels + second.pixels == whole.pixels
  assert len({first.stable_id, second.stable_id, whole.stable_id}) == 3 and whole.whole is None
  left, bottom, right, top = shapely.intersection(first.geometry, second.geometry).bounds
  assert 5e5 + 380 < left <= right < 5e5 + 410  # Its middle: the neck is that of columns 31 to 47.
  assert top - bottom == 40
  again = trace(tmp_path, TWO, split_necks=60)
  assert [one.stable_id for one in again] == [first.stable_id, second.stable_id]


@pytest.mark.parametrize(("width", "count"), [(30, 1), (40, 1), (60, 2), (200, 2), (260, 1)])
def test_only_necks_that_are_narrower_are_split(tmp_path, width, count):
  assert len(trace(tmp_path, TWO, split_necks=width)) == count  # The neck is 40 m wide, a disc 250 m.


def test_a_cut_lies_where_a_neck_is_narrowest(tmp_path):
  overlapping = discs((20, 18), (20, 38), radius=12, shape=(40, 60))
  first, second = trace(tmp_path, overlapping, split_necks=200)
  line = shapely.intersection(first.geometry, second.geometry)
  assert line.bounds[0] == pytest.approx(5e5 + 280, abs=10) and line.bounds[2] - line.bounds[0] <= 10


def test_convex_polygons_and_rings_stay(tmp_path):
  box = np.zeros((40, 60), np.uint8)
  box[5:30, 5:50] = 1
  ring = discs((20, 30), radius=18, shape=(40, 60)) - discs((20, 30), radius=8, shape=(40, 60))
  for mask in (box, ring, discs((20, 30), radius=15, shape=(40, 60))):
    (plain,), (split,) = trace(tmp_path, mask), trace(tmp_path, mask, split_necks=80)
    assert split == plain


def test_no_part_is_smaller_than_the_least_area(tmp_path):
  lobe = discs((20, 18), (20, 34), radius=4, shape=(40, 80), neck=2) | discs(
    (20, 60), radius=14, shape=(40, 80))
  lobe[19:21, 34:60] = 1
  assert len(trace(tmp_path, lobe, split_necks=40)) == 3
  for least, count in ((4_000, 3), (6_000, 2), (9_000, 1)):  # The small parts have 57 and 66 pixels.
    found = trace(tmp_path, lobe, split_necks=40, min_area=least)
    assert len(found) == count
    assert sum(one.pixels for one in found) == lobe.sum()
    assert min(one.area_m2 for one in found) >= least


@pytest.mark.parametrize("crs", ["EPSG:32644", "EPSG:2263", None])
def test_parts_have_the_figures_of_their_own_pixels(tmp_path, rng, crs):
  mask = noise(rng, (60, 70))
  scores = rng.integers(0, 101, (2, *mask.shape)).astype(np.uint8)
  plain = trace(tmp_path, mask, scores, crs)
  width = 3 * {None: 1, "EPSG:32644": 10, "EPSG:2263": 3.048}[crs]
  found = trace(tmp_path, mask, scores, crs, split_necks=width)
  assert len(found) > len(plain) and [one.id for one in found] == list(range(1, len(found) + 1))
  missing = scipy.ndimage.binary_dilation(mask == 255)
  with rasterio.open(tmp_path / "mask.tif") as raster:
    transform = raster.transform
  owner = np.zeros(mask.shape, int)
  for one in found:
    inside = ~rasterio.features.geometry_mask([one.geometry], mask.shape, transform)
    c = 1 if one.class_name == "slide" else 2
    assert not owner[inside].any() and (mask[inside] == c).all() and one.geometry.is_valid
    owner[inside] = one.id
    assert one.pixels == inside.sum() and one.touches_missing == missing[inside].any()
    assert one.mean_probability == pytest.approx(scores[c - 1][inside].mean() / 100)
    assert one.max_probability == pytest.approx(scores[c - 1][inside].max() / 100)
    edge = np.pad(inside[1:-1, 1:-1], 1)
    assert one.touches_border == (edge != inside).any()
  assert ((owner > 0) == ((mask == 1) | (mask == 2))).all()
  ids = {one.stable_id for one in plain}
  assert {one.whole.stable_id for one in found if one.whole} <= ids
  assert {(one.whole or one).stable_id for one in found} == ids


def test_regions_that_are_too_large_stay_whole_and_are_counted(tmp_path, monkeypatch, caplog):
  monkeypatch.setattr(necks, "_MOST_PIXELS", 1000)
  (whole,) = trace(tmp_path, TWO, split_necks=60)
  assert whole.whole is None and "1 regions are too large to be split at necks" in caplog.text


def map_two(folder, model, **options):
  """Maps a scene whose map is `TWO`; returns the function that reads a layer of a folder of the map."""
  path = folder / "two.tif"
  with rasterio.open(
    path, "w", driver="GTiff", height=40, width=80, count=3, dtype="uint8", crs="EPSG:32633",
    transform=rasterio.Affine(2, 0, 5e5, 0, -2, 5e6),
  ) as raster:
    raster.write(np.repeat(np.where(TWO == 1, 250, 5).astype(np.uint8)[None], 3, 0))
  predict.map_scenes(model, path, folder / "maps", Options(min_area=0, **options))
  return lambda name, layer: pyogrio.raw.read(folder / "maps" / name / "two_tif.gpkg", layer=layer)


@pytest.mark.parametrize("schema", ["plain", "usgs"])
def test_a_map_keeps_the_outlines_and_says_which_polygons_are_parts(
  model, batch_sizes, tmp_path, schema
):
  read = map_two(tmp_path, model, split_necks=12.0, schema=schema)
  meta, _, wkb, columns = read("polygons", "landslides")
  parts = dict(zip(meta["fields"], columns, strict=True))
  meta, _, outline, columns = read("unsplit", unsplit.LAYER)
  whole = dict(zip(meta["fields"], columns, strict=True))
  assert list(whole) == ["stable_id", "class", "area_m2"] and len(outline) == 1 and len(wkb) == 2
  (stable_id,) = whole["stable_id"]
  if schema == "plain":
    assert parts["part_of"].tolist() == [stable_id] * 2
    assert sum(parts["area_m2"]) == pytest.approx(whole["area_m2"][0])
  assert schema == "plain" or all(f"part of {stable_id}" in note for note in parts["Notes"])
  assert shapely.union_all(shapely.from_wkb(wkb)).equals(shapely.from_wkb(outline[0]))
  record = json.loads((tmp_path / "maps/scenes/two_tif.json").read_text())
  assert "unsplit/two_tif.gpkg" in record["files"] and "--split_necks=12.0" in record["flags"]
  map_two(tmp_path, model)
  assert not list((tmp_path / "maps/unsplit").iterdir())


def test_the_flag_is_checked():
  with pytest.raises(ValueError, match=r"--split_necks=-1\.0: must be 0 or more"):
    Options(split_necks=-1.0)
