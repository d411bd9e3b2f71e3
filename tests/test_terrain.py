"""Slopes and heights under polygons against analytic surfaces, and maps without flat ground."""

import csv
import functools
import logging

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely
from affine import Affine
from PIL import Image
from pyproj import Geod, Transformer
from rasterio.crs import CRS

from lgag_jax import api
from lgag_jax.geo import terrain
from lgag_jax.geo.dem import open_dem
from lgag_jax.geo.grid import Grid
from lgag_jax.imagery.opening import ImageError
from lgag_jax.mapping import judge, predict, rasters
from lgag_jax.options.mapping import Options, References
from tests.test_map_names import model  # noqa: F401
from tests.test_mapping import batch_sizes, read, write_scene  # noqa: F401

_GEOD = Geod(ellps="WGS84")
_SECOND = 1 / 3600
# CRS, place (longitude, latitude), and the transform of the DEM's pixels.
_DEMS = {
  "utm": ("EPSG:32633", (15.2, 47.0), (30, 0, 0, 0, -30, 0)),
  "equator": ("EPSG:32633", (13.0, 0.1), (30, 0, 0, 0, -30, 0)),
  "rotated": ("EPSG:32633", (15.2, 47.0), (24, 18, 0, 18, -24, 0)),
  "not square": ("EPSG:32633", (15.2, 62.0), (10, 0, 0, 0, -30, 0)),
  "south up": ("EPSG:32733", (15.2, -47.0), (30, 0, 0, 0, 30, 0)),
  "feet": ("EPSG:2263", (-74.0, 40.7), (90, 0, 0, 0, -90, 0)),
  "web mercator": ("EPSG:3857", (9.0, 65.0), (60, 0, 0, 0, -60, 0)),
  "polar": ("EPSG:3413", (-20.0, 80.0), (30, 0, 0, 0, -30, 0)),
  **{
    f"degrees at {latitude}": (
      "EPSG:4326", (15.2, latitude), (_SECOND * (2 if latitude > 50 else 1), 0, 0, 0, -_SECOND, 0))
    for latitude in (0.0, 30.0, 47.0, 60.0, 80.0, -75.0)
  },
  "date line": ("EPSG:4326", (180.0, -17.0), (_SECOND, 0, 0, 0, -_SECOND, 0)),
}


def write_dem(path, heights, crs, transform, *, dtype="float32", nodata=None, **profile):
  heights = np.atleast_3d(heights.T).T
  with rasterio.open(
    path, "w", driver="GTiff", height=heights.shape[1], width=heights.shape[2], count=len(heights),
    dtype=dtype, crs=crs and CRS.from_user_input(crs), transform=transform, nodata=nodata, **profile,
  ) as raster:
    raster.write(heights.astype(dtype))
  return path


def centred(crs, place, steps, side):
  """Returns the grid of `side` pixels whose centre is at a place (longitude, latitude)."""
  x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(*place)
  x += 360 * (place[0] == 180 and x < 0)
  transform = Affine.translation(x, y) @ Affine(*steps) @ Affine.translation(-side / 2, -side / 2)
  return Grid(side, side, CRS.from_user_input(crs), transform)


def ground(grid, place):
  """Returns metres to the east and to the north of a place, at the centres of a grid's pixels."""
  cols, rows = np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)
  lon, lat = grid.to_wgs84().transform(*(grid.transform @ (cols.ravel(), rows.ravel())))
  full = np.full(lon.shape, 1.0)
  angle, _, distance = _GEOD.inv(full * place[0], full * place[1], lon, lat)
  return tuple(
    (distance * part(np.radians(angle))).reshape(cols.shape) for part in (np.sin, np.cos)
  )


def plane(east, north, slope, aspect):
  """Returns heights of a plane that descends towards `aspect`."""
  along = east * np.sin(np.radians(aspect)) + north * np.cos(np.radians(aspect))
  return 1000 - np.tan(np.radians(slope)) * along


def measure(path, outlines, grid):
  with open_dem(path) as dem:
    return terrain.measure(dem, np.array(outlines, object), grid)


def scene_around(place, crs="EPSG:4326", pixel=1e-4, side=200):
  """Returns a scene's grid and an octagon in its pixels, 70 pixels wide."""
  grid = centred(crs, place, (pixel, 0, 0, 0, -pixel, 0), side)
  return grid, shapely.Point(side / 2, side / 2).buffer(35, quad_segs=2)


@pytest.mark.parametrize(("slope", "aspect"), [(3.0, 200.0), (25.0, 0.0), (40.0, 110.0)])
@pytest.mark.parametrize("name", _DEMS)
def test_slope_and_aspect_are_those_of_a_plane(tmp_path, name, slope, aspect):
  crs, place, steps = _DEMS[name]
  grid = centred(crs, place, steps, 90)
  dem = write_dem(
    tmp_path / "dem.tif", plane(*ground(grid, place), slope, aspect), crs, grid.transform,
    dtype="float64",
  )
  scene, outline = scene_around(place)
  (under,) = measure(dem, [outline], scene)
  assert under.slope_mean == pytest.approx(slope, abs=0.1)
  assert under.slope_max == pytest.approx(slope, abs=0.2)
  assert abs((under.aspect - aspect + 180) % 360 - 180) < 0.5
  assert under.share == 1


@pytest.mark.parametrize("name", ["utm", "feet", "degrees at 60.0", "degrees at -75.0", "polar"])
def test_a_bowl_is_steep_at_its_edge_and_low_in_its_middle(tmp_path, name, monkeypatch):
  crs, place, steps = _DEMS[name]
  grid = centred(crs, place, steps, 121)
  east, north = ground(grid, place)
  heights = 500 + (east**2 + north**2) / 2000  # Its slope is the distance from the middle / 1000.
  dem = write_dem(tmp_path / "dem.tif", heights, crs, grid.transform, dtype="float64")
  scene = Grid(900, 900, CRS.from_epsg(4326), centred(
    "EPSG:4326", place, (1e-5 / np.cos(np.radians(place[1])), 0, 0, 0, -1e-5, 0), 900).transform)
  disc = shapely.Point(450, 450).buffer(400)  # 445 m, to the north and to the east.
  (under,) = measure(dem, [disc], scene)
  assert under.slope_max == pytest.approx(np.degrees(np.arctan(0.44)), abs=0.8)
  assert under.slope_mean == pytest.approx(np.degrees(np.arctan(0.44 * 2 / 3)), abs=0.8)
  assert under.lowest == pytest.approx(500, abs=0.3)
  assert under.height_range == pytest.approx(445**2 / 2000, rel=0.06)
  monkeypatch.setattr(terrain, "_BLOCK", 8)
  (blocks,) = measure(dem, [disc], scene)
  assert blocks.slope_mean == pytest.approx(under.slope_mean, abs=1e-3)
  assert (blocks.lowest, blocks.highest, blocks.share) == (under.lowest, under.highest, under.share)


def test_slopes_are_those_of_gdal(tmp_path, rng):
  """Horn's formula as gdaldem has it, on a square projected grid without distortion."""
  crs = "+proj=aeqd +lat_0=47 +lon_0=15 +datum=WGS84 +units=m"
  grid = centred(crs, (15, 47), (10, 0, 0, 0, -10, 0), 40)
  heights = rng.normal(scale=3, size=(40, 40)).cumsum(axis=0)
  dem = write_dem(tmp_path / "dem.tif", heights, crs, grid.transform, dtype="float64")
  for row, col in ((5, 7), (20, 20), (33, 12)):
    a = heights[row - 1 : row + 2, col - 1 : col + 2]
    across = (a[0, 2] + 2 * a[1, 2] + a[2, 2] - a[0, 0] - 2 * a[1, 0] - a[2, 0]) / 80
    down = (a[2, 0] + 2 * a[2, 1] + a[2, 2] - a[0, 0] - 2 * a[0, 1] - a[0, 2]) / 80
    (under,) = measure(dem, [shapely.box(col, row, col + 1, row + 1)], grid)
    assert under.slope_mean == pytest.approx(np.degrees(np.arctan(np.hypot(across, down))), abs=1e-3)
    assert (under.lowest, under.height_range) == (heights[row, col], 0)


@pytest.mark.parametrize("missing", ["nodata", -9999, -32768, np.nan, 1e30])
def test_missing_pixels_stay_missing(tmp_path, missing):
  crs, place, steps = _DEMS["utm"]
  grid = centred(crs, place, steps, 60)
  heights = plane(*ground(grid, place), 20.0, 90.0)
  heights[:, 30:] = -5 if missing == "nodata" else missing
  nodata = -5 if missing == "nodata" else None
  dem = write_dem(tmp_path / "dem.tif", heights, crs, grid.transform, nodata=nodata)
  boxes = [shapely.box(20, 20, 40, 40), shapely.box(35, 10, 45, 20), shapely.box(200, 9, 210, 20)]
  half, none, outside = measure(dem, boxes, grid)
  assert half.slope_mean == pytest.approx(20, abs=0.1) and half.slope_max < 20.2
  assert half.share == 9 / 20  # The last column has neighbours without data.
  assert half.lowest == heights[20:40, 29].min().astype("float32")
  assert none == outside == terrain.Terrain()


def test_a_polygon_smaller_than_a_pixel_uses_the_pixels_that_it_touches(tmp_path):
  crs, place, steps = _DEMS["utm"]
  grid = centred(crs, place, steps, 20)
  dem = write_dem(
    tmp_path / "dem.tif", plane(*ground(grid, place), 15.0, 45.0), crs, grid.transform)
  for box in (shapely.box(5.1, 5.1, 5.2, 5.2), shapely.box(7.9, 5.1, 8.2, 5.2)):
    (under,) = measure(dem, [box], grid)
    assert under.slope_mean == pytest.approx(15, abs=0.1) and under.share == 1


def test_a_dem_around_the_date_line_serves_scenes_on_both_sides(tmp_path):
  crs, place, steps = _DEMS["date line"]
  grid = centred(crs, place, steps, 400)
  dem = write_dem(
    tmp_path / "dem.tif", plane(*ground(grid, place), 15.0, 45.0), crs, grid.transform,
    dtype="float64")
  for longitude in (179.96, 180.0, -179.96):
    scene, outline = scene_around((longitude, -17.0), "EPSG:32760", 5, 200)
    (under,) = measure(dem, [outline], scene)
    assert under.slope_mean == pytest.approx(15, abs=0.1) and under.share == 1


@pytest.mark.parametrize(("kind", "pattern"), [
  ("colours", r"has 3 bands, but a DEM has one band.*gdal_translate -b 1"),
  ("no crs", r"has no place on the Earth \(CRS: none\).*gdal_edit"),
  ("local", r"has no place on the Earth \(CRS: 'site'"),
  ("feet", r"gives heights in ft, but they must be in metres.*gdal_calc"),
  ("feet by notes", r"gives heights in us-ft, but they must be in metres"),
  ("feet by crs", r"gives heights in us survey foot, but they must be in metres"),
  ("scale", r"gives band 1 the scale 0.1"),
  ("gone", r"--dem=.*gone.tif: no such file.*gdalbuildvrt dem.vrt"),
  ("text", r"a.tif cannot be opened as an image"),
  ("vrt", r"not a plain file"),
])
def test_what_is_no_dem_is_refused(tmp_path, kind, pattern):
  path = tmp_path / ("gone.tif" if kind == "gone" else "a.tif")
  heights, transform = np.zeros((3, 8, 8)), Affine(10, 0, 5e5, 0, -10, 3e6)
  crs = {"no crs": None, "local": 'LOCAL_CS["site",UNIT["metre",1]]', "feet by crs": "EPSG:32633+6360"}
  if kind == "text":
    path.write_text("heights")
  elif kind == "vrt":
    path.write_text('<VRTDataset rasterXSize="8" rasterYSize="8">'
                    '<VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
                    "<SourceFilename>/vsicurl/http://a/b.tif</SourceFilename></SimpleSource>"
                    "</VRTRasterBand></VRTDataset>")
  elif kind != "gone":
    heights = heights if kind == "colours" else heights[0]
    write_dem(path, heights, crs.get(kind, "EPSG:32633"), transform)
    with rasterio.open(path, "r+") as raster:
      if kind == "feet":
        raster.set_band_unit(1, "ft")
      if kind == "scale":
        raster.scales = (0.1,)
    if kind == "feet by notes":
      band = '<PAMRasterBand band="1"><UnitType>US-ft</UnitType></PAMRasterBand>'
      path.with_name("a.tif.aux.xml").write_text(f"<PAMDataset>{band}</PAMDataset>")
  with pytest.raises(ImageError, match=pattern), open_dem(path):
    pass


@pytest.mark.parametrize("crs", ["EPSG:32633+5773", "EPSG:32633+3855"])
def test_heights_in_the_crs_of_a_dem_do_not_hide_its_place(tmp_path, crs):
  _, place, steps = _DEMS["utm"]
  grid = centred("EPSG:32633", place, steps, 60)
  dem = write_dem(tmp_path / "dem.tif", plane(*ground(grid, place), 15.0, 45.0), crs, grid.transform)
  (under,) = measure(dem, [scene_around(place)[1]], scene_around(place)[0])
  assert under.slope_mean == pytest.approx(15, abs=0.1)


def test_a_least_slope_needs_a_dem():
  with pytest.raises(ValueError, match="--min_slope=10 needs --dem"):
    Options(min_slope=10)
  with pytest.raises(ValueError, match=r"--min_slope=90\.0: must be at least 0 and below 90 degrees"):
    Options(min_slope=90, dem="dem.tif")


@functools.cache
def valley(crs="EPSG:32633"):
  """Returns a scene's brightness u8[96, 128], 2 m per pixel, and heights on its grid.

  A lake and a road are as bright as the landslides on the slopes above them.
  """
  ground, heights = np.full((96, 128), 40, np.uint8), np.zeros((96, 128))
  cols = np.arange(128)
  heights += np.maximum(0, np.maximum(50 - cols, cols - 78)) * 2 * np.tan(np.radians(35))
  heights += 3 * np.sin(np.arange(96)[:, None] / 9) * (heights > 0)
  lake, road = (slice(20, 60), slice(54, 70)), (slice(0, 96), slice(72, 76))
  slides = (slice(10, 30), slice(10, 30)), (slice(50, 80), slice(95, 110))
  speck = (slice(90, 92), slice(60, 62))  # Smaller than the smallest polygon.
  for place in (lake, road, *slides, speck):
    ground[place] = 220
  heights[road] += np.linspace(0, 2, 96)[:, None]  # Descends gently.
  return ground, heights


def map_valley(model, folder, *, min_slope, missing=False, crs="EPSG:32633", **options):  # noqa: F811
  brightness, heights = valley()
  scene = write_scene(folder / "a.tif", np.repeat(brightness[..., None], 3, -1))
  with rasterio.open(scene) as raster:
    transform = raster.transform
  heights = np.where(np.arange(128) < 71, -9999, heights) if missing else heights
  dem = write_dem(folder / "dem.tif", heights, crs, transform, dtype="float64")
  options = Options(dem=str(dem), min_slope=min_slope, min_area=100, **options)
  result = predict.map_scenes(model, scene, folder / "maps", options)
  meta, _, shapes, columns = pyogrio.raw.read(folder / "maps/polygons/a_tif.gpkg")
  return result, shapely.from_wkb(shapes), dict(zip(meta["fields"], columns, strict=True))


@pytest.mark.usefixtures("batch_sizes")
@pytest.mark.parametrize("block", [1, 1 << 21])
def test_a_lake_and_a_road_never_enter(model, tmp_path, caplog, monkeypatch, block):  # noqa: F811
  monkeypatch.setattr(rasters, "_TILE_SIDE", 16)  # Regions cross blocks of 16 rows, or lie in one.
  monkeypatch.setattr(rasters, "PIXELS_AT_ONCE", block)
  caplog.set_level(logging.INFO)
  result, shapes, read_columns = map_valley(model, tmp_path, min_slope=10)
  brightness, _ = valley()
  expected = brightness == 220
  expected[:, 54:78] = False
  np.testing.assert_array_equal(read(tmp_path / "maps/mask/a_tif.tif")[0], expected)
  assert len(shapes) == 2
  assert (read_columns["slope_mean_deg"] > 30).all() and (read_columns["dem_share"] == 1).all()
  np.testing.assert_allclose(
    read_columns["height_range_m"],
    read_columns["elevation_max_m"] - read_columns["elevation_min_m"], rtol=1e-12)
  assert set(read_columns["dem"]) == {"dem.tif"}
  name = model.config.data.classes[0]
  assert result.rows[0][f"{name}_flat"] == 3 and result.rows[0][f"{name}_landslides"] == 2
  with (tmp_path / "maps/predictions.csv").open(newline="") as file:
    (row,) = csv.DictReader(file)
  assert row[f"{name}_flat"] == "3"
  assert float(row[f"{name}_share"]) == pytest.approx(expected.mean(), abs=1e-6)
  assert "3 regions with a mean slope under 10 degrees are not mapped" in caplog.text
  page = (tmp_path / "maps/report.html").read_text()
  assert "too flat" in page and "--min_slope dropped" in page and "To check" not in page


@pytest.mark.usefixtures("batch_sizes")
def test_an_evaluation_sees_the_map_without_flat_ground(model, tmp_path):  # noqa: F811
  result, shapes, _ = map_valley(model, tmp_path, min_slope=10)
  with rasterio.open(tmp_path / "a.tif") as raster:
    truth = write_dem(
      tmp_path / "truth.tif", valley()[0] == 220, raster.crs, raster.transform, dtype="uint8")
  options = Options(dem=str(tmp_path / "dem.tif"), min_slope=10, min_area=100)
  found = judge.evaluate_maps(
    result, {tmp_path / "a.tif": truth}, tmp_path / "maps", options, References(labels=str(truth)))
  objects = found["classes"][model.config.data.classes[0]]["objects"][0]
  assert (objects["polygons"], objects["landslides"], objects["detected"]) == (len(shapes), 5, 2)


@pytest.mark.usefixtures("batch_sizes")
def test_without_a_least_slope_all_is_mapped_and_measured(model, tmp_path):  # noqa: F811
  result, shapes, read_columns = map_valley(model, tmp_path, min_slope=0)
  assert len(shapes) == 4
  assert np.count_nonzero(read_columns["slope_mean_deg"] < 10) == 2
  np.testing.assert_array_equal(read(tmp_path / "maps/mask/a_tif.tif")[0], valley()[0] == 220)
  assert result.rows[0][f"{model.config.data.classes[0]}_flat"] is None
  assert "too flat" not in (tmp_path / "maps/report.html").read_text()


@pytest.mark.usefixtures("batch_sizes")
def test_nothing_is_dropped_where_the_dem_has_no_data(model, tmp_path, caplog):  # noqa: F811
  _, shapes, read_columns = map_valley(model, tmp_path, min_slope=10, missing=True)
  mask = read(tmp_path / "maps/mask/a_tif.tif")[0]
  assert mask[20:60, 54:70].all() and not mask[:, 72:76].any()  # The lake stays, the road does not.
  assert len(shapes) == 3
  assert np.isnan(read_columns["slope_mean_deg"]).sum() == 2
  text = "2 of 3 polygons lie where dem.tif has no data, or data for less than half of them"
  assert text in caplog.text and text in (tmp_path / "maps/report.html").read_text()


@pytest.mark.usefixtures("batch_sizes")
def test_another_dem_is_another_map(model, tmp_path):  # noqa: F811
  assert len(map_valley(model, tmp_path, min_slope=10)[1]) == 2
  assert len(map_valley(model, tmp_path, min_slope=10, missing=True)[1]) == 3
  assert len(map_valley(model, tmp_path, min_slope=0, missing=True)[1]) == 4


@pytest.mark.usefixtures("batch_sizes")
@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_a_scene_without_a_place_keeps_all(model, tmp_path, caplog, name):  # noqa: F811
  brightness, heights = valley()
  pixels = np.repeat(brightness[..., None], 3, -1)
  if name == "a.png":
    Image.fromarray(pixels).save(tmp_path / name)
  else:
    write_scene(tmp_path / name, pixels, crs=None)
  dem = write_dem(tmp_path / "dem.tif", heights, "EPSG:32633", Affine(2, 0, 5e5, 0, -2, 5e6))
  options = Options(dem=str(dem), min_slope=10)
  predict.map_scenes(model, tmp_path / name, tmp_path / "maps", options)
  (mask,) = (tmp_path / "maps/mask").glob("a_*.[tp][in][fg]")
  np.testing.assert_array_equal(read(mask)[0], brightness == 220)
  text = "Its place on the Earth is unknown, so --dem is not used"
  assert text in caplog.text and text in (tmp_path / "maps/report.html").read_text()


@pytest.mark.usefixtures("batch_sizes")
def test_a_dem_beside_the_scenes_is_no_scene(model, tmp_path, monkeypatch):  # noqa: F811
  map_valley(model, tmp_path, min_slope=10)
  monkeypatch.chdir(tmp_path)
  options = Options(dem="dem.tif", min_slope=10)
  result = predict.map_scenes(model, tmp_path, tmp_path / "maps", options)
  assert [plan.path.name for plan in result.plans] == ["a.tif"] and not result.skipped
  with pytest.raises(ValueError, match=r"--input holds only --dem=dem.tif: name the scene"):
    predict.map_scenes(model, tmp_path / "dem.tif", tmp_path / "maps", options)


@pytest.mark.parametrize("option", ["dem", "review"])
@pytest.mark.parametrize("image", [np.zeros((8, 8, 3), np.uint8), "s.tif"], ids=["array", "file"])
def test_maps_in_memory_take_neither_dem_nor_review(model, option, image):  # noqa: F811
  with pytest.raises(ValueError, match=rf"`options\.{option}` needs `output`"):
    api.Model(model).predict(image, options=Options(**{option: "given"}))
