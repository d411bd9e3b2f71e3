"""Polygons of a map against sums over its pixels; vector files and styles as a GIS reads them."""

import dataclasses
import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import scipy.ndimage
import shapely
from affine import Affine
from pyproj import Geod, Transformer
from rasterio.crs import CRS

from lgag_jax import __version__
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.scale import WindowPlan
from lgag_jax.imagery.reading import ImageError
from lgag_jax.mapping import polygons, qgis_style, rasters, regions, scene_plans, vectors
from lgag_jax.mapping.schemas import Provenance
from lgag_jax.options.mapping import Options

_NAMES = ("slide", "flow")
FIELDS = [
  "id", "class", "area_m2", "perimeter_m", "mean_probability", "max_probability", "pixels", "source",
  "stable_id", "part_of", "confidence", "length_m", "width_m", "bearing_deg", "touches_nodata",
  "touches_border",
  "slope_mean_deg", "slope_max_deg", "aspect_deg", "elevation_min_m", "elevation_max_m",
  "height_range_m", "dem_share", "dem", "gsd_m", "method", "version", "event", "image_date",
  "before_date", "review_status",
]
_UTM = ("EPSG:32644", (10, 0, 5e5, 0, -10, 3e6))
_FEET = ("EPSG:2263", (10, 0, 9.8e5, 0, -10, 2e5))
_LOCAL = 'LOCAL_CS["site",UNIT["metre",1]]'
_GRIDS = {
  "utm": _UTM,
  "rotated": ("EPSG:32644", (6, 8, 5e5, 8, -6, 3e6)),
  "not square": ("EPSG:32644", (10, 0, 5e5, 0, -40, 3e6)),
  "degrees": ("EPSG:4326", (0.002, 0, 80, 0, -0.002, 60)),
  "feet": _FEET,
  "web mercator": ("EPSG:3857", (50, 0, 1e6, 0, -50, 8399737.9)),
}


def write(folder, mask, scores=None, crs=_UTM[0], transform=_UTM[1], tile=16):
  """Writes a mask and its probabilities [C, H, W], by default 0.5."""
  if scores is None:
    scores = np.full((len(_NAMES), *mask.shape), 50, np.uint8)
  profile = {
    "driver": "GTiff", "height": mask.shape[0], "width": mask.shape[1], "crs": crs and
    CRS.from_user_input(crs), "transform": Affine(*transform), "tiled": True, "blockxsize": tile,
    "blockysize": tile, "compress": "deflate",
  }
  for name, values in (("mask.tif", mask[None]), ("scores.tif", scores)):
    nodata = 255 if values.dtype == np.uint8 else np.nan
    with rasterio.open(
      folder / name, "w", count=len(values), dtype=values.dtype, nodata=nodata, **profile
    ) as raster:
      raster.write(values)
  return folder / "mask.tif", folder / "scores.tif"


def trace(folder, mask, scores=None, crs=_UTM[0], transform=None, **options):
  if transform is None:
    transform = _FEET[1] if crs == "EPSG:2263" else _UTM[1]
  return trace_files(*write(folder, mask, scores, crs, transform), **options)


def trace_files(mask_path, scores_path, names=_NAMES, source="a.tif", **options):
  with (
    rasters.open_map_raster(mask_path, 1) as mask,
    rasters.open_map_raster(scores_path, len(names)) as scores,
  ):
    return list(polygons.trace(mask, scores, names, source, **options))


def drawn(text):
  """Returns the mask that a text draws: one digit per pixel, x for no data."""
  rows = text.split()
  return np.array([[255 if c == "x" else int(c) for c in row] for row in rows], np.uint8)


def noise(rng, shape=(48, 40)):
  """Returns ragged regions with holes, of two classes that touch, and some pixels without data."""
  smooth = scipy.ndimage.gaussian_filter(rng.normal(size=shape), 1.2)
  mask = np.digitize(smooth, (0.05, 0.25)).astype(np.uint8)
  mask[rng.random(shape) < 0.05] = 255
  return mask


def labelled(mask):
  """Yields (class, bool [H, W]) of the regions by their last pixels."""
  found = []
  for c in (1, 2):
    labels, count = scipy.ndimage.label(mask == c)
    found += [(c, labels == i + 1) for i in range(count)]
  return sorted(found, key=lambda item: np.flatnonzero(item[1])[-1])


def on_the_ground(inside, crs, transform):
  """Sums the geodesic areas of pixels one by one, and the lengths of the edges of the region."""
  geod, to_wgs84 = Geod(ellps="WGS84"), Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
  place = lambda col, row: to_wgs84.transform(*(Affine(*transform) @ (col, row)))
  area = perimeter = 0.0
  padded = np.pad(inside, 1)
  for row, col in np.argwhere(inside):
    corners = [place(col + x, row + y) for x, y in ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0))]
    area += abs(geod.polygon_area_perimeter(*zip(*corners, strict=True))[0])
    for side, (y, x) in enumerate(((-1, 0), (0, 1), (1, 0), (0, -1))):
      if not padded[row + 1 + y, col + 1 + x]:
        perimeter += geod.inv(*corners[side], *corners[side + 1])[2]
  return area, perimeter


@pytest.mark.parametrize("name", _GRIDS)
def test_areas_and_perimeters_are_those_of_the_pixels(tmp_path, name):
  crs, transform = _GRIDS[name]
  mask = np.zeros((40, 60), np.uint8)
  mask[:2, :] = mask[2, ::2] = 1  # A comb at the border: its straight back bends, its teeth do not.
  mask[10:39, 5:30] = 2
  mask[15:20, 10:12] = 0
  mask[25:27, 9:22] = 0
  found = trace(tmp_path, mask, crs=crs, transform=transform)
  assert [x.class_name for x in found] == ["slide", "flow"]
  for landslide, (_, inside) in zip(found, labelled(mask), strict=True):
    area, perimeter = on_the_ground(inside, crs, transform)
    assert landslide.area_m2 == pytest.approx(area, rel=1e-6)
    assert landslide.perimeter_m == pytest.approx(perimeter, rel=1e-6)
    assert landslide.pixels == inside.sum()
    map_area = inside.sum() * abs(Affine(*transform).determinant)
    assert landslide.geometry.area == pytest.approx(map_area, rel=1e-9)
  assert len(found[1].geometry.interiors) == 2


@pytest.mark.parametrize("float_scores", [False, True])
def test_every_region_is_a_valid_polygon_with_its_own_pixels_figures(
  tmp_path, rng, float_scores, monkeypatch
):
  monkeypatch.setattr(rasters, "PIXELS_AT_ONCE", 1)  # Blocks of a row of tiles: regions cross them.
  mask = noise(rng)
  scores = rng.integers(0, 101, (2, *mask.shape)).astype(np.uint8)
  scores[rng.random(scores.shape) < 0.2] = 255
  if float_scores:
    scores = np.where(scores == 255, np.nan, scores / 100).astype(np.float32)
  found = trace(tmp_path, mask, scores)
  expected = labelled(mask)
  assert [x.id for x in found] == list(range(1, len(expected) + 1))
  assert len(found) > 20
  assert any(len(x.geometry.interiors) > 1 for x in found)
  for landslide, (c, inside) in zip(found, expected, strict=True):
    assert landslide.geometry.geom_type == "Polygon" and landslide.geometry.is_valid
    burnt = rasterio.features.rasterize(
      [landslide.geometry], mask.shape, transform=Affine(*_UTM[1])
    )
    np.testing.assert_array_equal(burnt, inside)
    assert (landslide.class_name, landslide.pixels) == (_NAMES[c - 1], inside.sum())
    assert landslide.source == "a.tif"
    own = scores[c - 1][inside]
    own = own[np.isfinite(own)] if float_scores else own[own != 255] / 100
    if own.size:
      assert landslide.mean_probability == pytest.approx(own.astype(float).mean(), abs=1e-9)
      assert landslide.max_probability == pytest.approx(own.max(), abs=1e-9)
    else:
      assert landslide.mean_probability is landslide.max_probability is None


def test_blocks_leave_no_trace(tmp_path, rng, monkeypatch):
  mask = noise(rng, (96, 80))
  mask[5:90, 30:33] = 1  # One is open over many blocks.
  whole = trace(tmp_path, mask)
  monkeypatch.setattr(rasters, "PIXELS_AT_ONCE", 1)
  cut = trace(tmp_path, mask)
  assert max(x.geometry.bounds[3] - x.geometry.bounds[1] for x in cut) > 800
  for one, other in zip(whole, cut, strict=True):
    shapes = one.geometry.normalize(), other.geometry.normalize()
    np.testing.assert_array_equal(*map(shapely.get_coordinates, shapes))  # Not a corner more.
    measured = ("area_m2", "perimeter_m", "length_m", "width_m", "bearing_deg")
    for name in measured:
      assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-9)
    same = {**dict.fromkeys(measured, 0), "geometry": None}
    assert dataclasses.replace(one, **same) == dataclasses.replace(other, **same)


def test_landslides_come_out_where_they_end(tmp_path, rng, monkeypatch):
  monkeypatch.setattr(rasters, "PIXELS_AT_ONCE", 1)
  rows, block_pieces = [], regions._block_pieces
  monkeypatch.setattr(
    regions, "_block_pieces", lambda *block: rows.append(block[2]) or block_pieces(*block)
  )
  paths = write(tmp_path, noise(rng))
  with (
    rasters.open_map_raster(paths[0], 1) as mask,
    rasters.open_map_raster(paths[1], len(_NAMES)) as scores,
  ):
    first = next(polygons.trace(mask, scores, _NAMES, "a.tif"))
  ends = (_UTM[1][5] - first.geometry.bounds[1]) / 10
  assert rows == list(range(int(ends) + 1))  # No row is read before it is needed.


def test_corners_separate_regions_and_holes_stay(tmp_path):
  mask = drawn("""
    110000
    101000
    010220
    xx1200
    xx0001
  """)
  found = trace(tmp_path, mask)
  assert [(x.class_name, x.pixels) for x in found] == [
    ("slide", 3), ("slide", 1), ("slide", 1), ("slide", 1), ("flow", 3), ("slide", 1),
  ]
  ring = drawn("""
    11110
    10011
    11001
    01111
  """)
  (tmp_path / "ring").mkdir()
  (only,) = trace(tmp_path / "ring", ring)
  assert only.geometry.is_valid and only.pixels == 14 and len(only.geometry.interiors) == 1
  assert only.geometry.area == 1400


def test_small_polygons_are_skipped_by_ground_area(tmp_path):
  mask = drawn("1100 0001 0200 2200")
  sizes = lambda **options: [(x.id, x.pixels) for x in trace(tmp_path, mask, **options)]
  assert sizes() == [(1, 2), (2, 1), (3, 3)]
  assert sizes(min_area=150) == [(1, 2), (2, 3)]  # Square metres: a pixel has 100.
  assert sizes(min_area=150, crs="EPSG:2263") == []  # Square feet, of which a pixel has 100.
  assert sizes(min_area=20, crs="EPSG:2263") == [(1, 3)]
  assert sizes(min_area=2, crs=None) == sizes(min_area=2, crs=_LOCAL) == [(1, 2), (2, 3)]  # Pixels.


@pytest.mark.parametrize(("reduction", "side", "pixels"), [
  (1, 256, 16), (1, 128, 16), (1, 512, 64), (3, 256, 144),  # The network gets 256 pixels.
])
def test_the_smallest_polygon_has_16_pixels_of_scene_and_network(reduction, side, pixels):
  plan = WindowPlan(reduction, side, 256)
  assert scene_plans.min_area(Options(), plan, 0.5) == pixels * 0.25
  assert scene_plans.min_area(Options(min_area=7), plan, 0.5) == 7


@pytest.mark.parametrize(
  ("crs", "unit"), [("EPSG:32644", 1.0), ("EPSG:2263", 1200 / 3937), (None, 0.1)]
)
def test_simplified_outlines_stay_near_the_tolerance(tmp_path, crs, unit):
  mask = noise(np.random.default_rng(0))
  found = trace(tmp_path, mask, crs=crs)
  corners = lambda landslides: sum(shapely.get_num_coordinates(x.geometry) for x in landslides)
  for distance in (8.0, 15.0, 1e6):  # In the CRS's units; a pixel has 10.
    simple = trace(tmp_path, mask, crs=crs, simplify=distance * unit)
    for one, other in zip(found, simple, strict=True):
      assert other.geometry.is_valid and other.geometry.area >= one.geometry.area / 2
      # GEOS takes a ring's first corner away last, which moves it by up to the tolerance again.
      assert one.geometry.hausdorff_distance(other.geometry) <= 2 * distance
      assert dataclasses.replace(other, geometry=one.geometry) == one
    if distance < 1e6:
      assert corners(simple) < 0.8 * corners(found)
  # A bump a pixel high goes by a tolerance above a pixel.
  bump = np.pad(np.ones((6, 20), np.uint8), ((0, 1), (0, 0)))
  bump[6, 10] = 1
  (tmp_path / "bump").mkdir()
  counts = [corners(trace(tmp_path / "bump", bump, crs=crs, simplify=d * unit)) for d in (9.9, 10.1)]
  assert counts[0] > counts[1] == 5


_ODD = ("a 'slide' & <flow> \"x\"", "滑坡 é")


@pytest.mark.parametrize(("crs", "transform", "count"), [
  ("EPSG:3857", (10, 0, 0, 0, -10, 5e8), 2), ("EPSG:3395", (10, 0, 0, 0, -10, 9e8), 2),
  ("EPSG:32644", (10, 0, 5e5, 0, -10, 3e6), 0), (_LOCAL, (10, 0, 5e5, 0, -10, 3e6), 0),
  ("EPSG:4326", (10, 0, 5e5, 0, -10, 3e6), 0),  # Nowhere on the Earth: the area is unknown, not zero.
])
def test_regions_without_an_area_are_no_landslides(tmp_path, caplog, crs, transform, count):
  found = trace(tmp_path, drawn("1100 0000 0022"), crs=crs, transform=transform)
  assert len(found) == 2 - count
  assert not any(landslide.area_m2 == 0 for landslide in found)
  assert ("a.tif: 2 regions have an area of 0 m²" in caplog.text) == bool(count)


@pytest.mark.parametrize("crs", ["EPSG:32644", "EPSG:2263", None, _LOCAL])
@pytest.mark.parametrize("empty", [False, True])
def test_vector_files_read_back(tmp_path, crs, empty):
  mask = drawn("11110 10010 11110 00022") * (not empty)
  scores = np.full((2, *mask.shape), 40, np.uint8)
  scores[1] = 255  # Class two has no probability.
  paths = write(tmp_path, mask, scores, crs)
  found = trace_files(*paths, _ODD, "scène\udce9.tif")
  with rasterio.open(paths[0]) as raster:
    grid = Grid.from_raster(raster, paths[0])
  gpkg, geojson = tmp_path / "out" / "a.gpkg", tmp_path / "out" / "a.geojson"
  gpkg.parent.mkdir()
  for path in (gpkg, geojson, gpkg.with_name("a.gpkg-wal"), gpkg.with_name("a.gpkg-journal")):
    path.write_text("old")
  placed = crs not in (None, _LOCAL)
  written = [gpkg, geojson] if placed else [gpkg]
  provenance = Provenance(2.5, "lgag on a trunk", (0.5,), "Storm 'A' 滑坡", "2024-02-29")
  assert vectors.write(found, grid, gpkg, geojson, provenance) == written
  assert sorted(gpkg.parent.iterdir()) == sorted(written)

  assert pyogrio.list_layers(gpkg)[0].tolist() == ["landslides", "Polygon"]
  meta, _, shapes, columns = pyogrio.raw.read(gpkg, layer="landslides")
  assert (meta["crs"] is None) == (crs is None)
  if placed:
    assert meta["crs"] == crs
  read = dict(zip(meta["fields"], columns, strict=True))
  assert list(read) == FIELDS
  features = json.loads(geojson.read_text())["features"] if placed else []
  if empty:
    assert len(shapes) == len(features) == 0
    return
  for geometry, landslide in zip(shapely.from_wkb(shapes), found, strict=True):
    assert geometry.equals(landslide.geometry)
  assert read["class"].tolist() == list(_ODD)
  assert read["source"].tolist() == ["scène\\udce9.tif"] * 2
  assert read["pixels"].tolist() == [10, 2]
  np.testing.assert_allclose(read["mean_probability"], [0.4, np.nan])
  assert read["stable_id"].tolist() == [x.stable_id for x in found]
  assert read["touches_border"].tolist() == [True, True]
  assert read["gsd_m"].tolist() == [2.5, 2.5]
  assert read["image_date"].astype(str).tolist() == ["2024-02-29"] * 2
  assert read["version"].tolist() == [f"lgag_jax {__version__}"] * 2
  assert read["review_status"].tolist() == ["not reviewed"] * 2
  areas = [x.area_m2 if placed else np.nan for x in found]
  np.testing.assert_allclose(read["area_m2"], areas)
  for feature, landslide in zip(features, found, strict=placed):
    check_feature(feature, landslide, crs)


def check_feature(feature, landslide, crs):
  properties = feature["properties"]
  assert list(properties) == FIELDS
  assert (properties["event"], properties["image_date"]) == ("Storm 'A' 滑坡", "2024-02-29")
  assert properties["touches_border"] is landslide.touches_border
  assert (properties["id"], properties["class"]) == (landslide.id, landslide.class_name)
  assert properties["mean_probability"] == landslide.mean_probability
  outline, *holes = feature["geometry"]["coordinates"]
  assert shapely.LinearRing(outline).is_ccw and not any(shapely.LinearRing(h).is_ccw for h in holes)
  to_wgs84 = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
  expected = shapely.transform(
    landslide.geometry, lambda xy: np.stack(to_wgs84.transform(*xy.T), axis=1)
  )
  assert shapely.geometry.shape(feature["geometry"]).hausdorff_distance(expected) < 2e-7
  assert all(round(x, 7) == x for ring in (outline, *holes) for point in ring for x in point)


def test_wrong_rasters_are_named(tmp_path):
  mask = drawn("130 000")
  with pytest.raises(ValueError, match=r"mask\.tif holds class 3, but only 2"):
    trace(tmp_path, mask)
  with pytest.raises(ValueError, match=r"scores\.tif has 1 bands, but it must have 2"):
    trace(tmp_path, mask, np.zeros((1, 2, 3), np.uint8))
  write(tmp_path, mask)
  (tmp_path / "other").mkdir()
  mask_path, _ = write(tmp_path / "other", mask, transform=(9, *_UTM[1][1:]))
  with pytest.raises(ValueError, match=r"scores\.tif and .*mask\.tif differ in size, transform or CRS"):
    trace_files(mask_path, tmp_path / "scores.tif")
  noisy = np.random.default_rng(0).integers(1, 3, (64, 64)).astype(np.uint8)
  mask_path, scores_path = write(tmp_path, noisy)
  mask_path.write_bytes(mask_path.read_bytes()[:-300])
  with pytest.raises(ImageError, match=r"mask\.tif"):
    trace_files(mask_path, scores_path)


def test_a_file_that_does_not_fit_on_the_disk_is_not_left(tmp_path, monkeypatch):
  found = trace(tmp_path, drawn("10 01"))
  grid = Grid(2, 2, CRS.from_epsg(32644), Affine(*_UTM[1]))
  gpkg, geojson = tmp_path / "out" / "a.gpkg", tmp_path / "out" / "a.geojson"
  whole = pyogrio.raw.write
  # When the disk is full GDAL writes a part and raises no error.
  monkeypatch.setattr(pyogrio.raw, "write", lambda path, geometry, data, *rest, **options: whole(
    path, geometry[:1], [column[:1] for column in data], *rest, **options
  ))
  with pytest.raises(OSError, match=r"a\.gpkg.*1 of 2 features written.*disk"):
    vectors.write(found, grid, gpkg, geojson)
  assert list(gpkg.parent.iterdir()) == []


def test_styles_name_every_class_and_hide_the_background():
  names = (*_ODD, "bell\x07")
  mask = ElementTree.fromstring(qgis_style.mask_style(names))
  assert mask.tag == "qgis" and mask.find("pipe/rasterrenderer").get("type") == "paletted"
  entries = [x.attrib for x in mask.iterfind("pipe/rasterrenderer/colorPalette/paletteEntry")]
  assert [x["value"] for x in entries] == ["0", "1", "2", "3"]
  assert [x["alpha"] for x in entries] == ["0", "255", "255", "255"]
  assert [x["label"] for x in entries[1:]] == [*_ODD, "bell\ufffd"]
  assert len({x["color"] for x in entries}) == 4
  for percent, top in ((True, 100), (False, 1)):
    ramp = ElementTree.fromstring(qgis_style.probability_style(percent)).find(
      "pipe/rasterrenderer[@type='singlebandpseudocolor']/rastershader/colorrampshader"
    )
    values = [float(item.get("value")) for item in ramp]
    assert values == sorted(values) and (values[0], values[-1]) == (0, top)
    assert ramp[0].get("alpha") == "0" and ramp[-1].get("alpha") == "255"
  several = ElementTree.fromstring(qgis_style.polygon_style(names))
  assert several.get("labelsEnabled") == "0"
  assert several.find("renderer-v2").get("attr") == "class"
  symbols = {x.get("name"): x for x in several.iterfind("renderer-v2/symbols/symbol[@type='fill']")}
  categories = several.findall("renderer-v2/categories/category")
  assert [x.get("value") for x in categories] == [*_ODD, "bell\ufffd"]
  for category in categories:
    layer = symbols[category.get("symbol")].find("layer[@class='SimpleFill']")
    options = {x.get("name"): x.get("value") for x in layer.iterfind("Option/Option")}
    assert options == {x.get("k"): x.get("v") for x in layer.iterfind("prop")}
    assert 0 < int(options["color"].split(",")[3]) < 255
  one = ElementTree.fromstring(qgis_style.polygon_style(names[:1])).find("renderer-v2")
  assert one.get("type") == "singleSymbol" and one.find("categories") is None
  assert len(one.findall("symbols/symbol")) == 1
