"""Bands of terrain and spectral indices: against analytic surfaces, literal formulas, and in files."""

import dataclasses
import logging
import shutil
import types

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

from lgag_jax.bands import add, indices
from lgag_jax.bands.quantities import Quantity
from lgag_jax.config import Config, DataConfig
from lgag_jax.geo import scale
from lgag_jax.geo.companions import SceneFiles
from lgag_jax.geo.dem import open_dem
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.resampling import bilinear
from lgag_jax.geo.scene import open_scene
from lgag_jax.geo.terrain_layers import TerrainLayers
from lgag_jax.imagery import band_notes
from lgag_jax.imagery.opening import ImageError
from lgag_jax.mapping import map_names, scene_plans
from lgag_jax.options.bands import Settings
from lgag_jax.options.mapping import Options
from lgag_jax.options.tiling import Settings as Tiling
from lgag_jax.tiling import tile
from tests.test_terrain import _DEMS, centred, ground, plane, write_dem

UTM = CRS.from_epsg(32633)


def layers(path, grid, names, radius=100.0):
  """The layers of a whole scene, and where they are known."""
  with open_dem(path) as dem:
    return TerrainLayers(dem, "scene.tif", grid, names, radius).read(
      Window(0, 0, grid.width, grid.height))


def scene_in(crs, place, pixel, side=60):
  return centred(crs, place, (pixel, 0, 0, 0, -pixel, 0), side)


@pytest.mark.parametrize(("slope", "aspect"), [(3.0, 200.0), (40.0, 110.0)])
@pytest.mark.parametrize("name", ["utm", "rotated", "feet", "degrees at 60.0", "polar"])
@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857"])
def test_slope_and_aspect_are_those_of_a_plane(tmp_path, name, crs, slope, aspect):
  dem_crs, place, steps = _DEMS[name]
  grid = centred(dem_crs, place, steps, 90)
  dem = write_dem(
    tmp_path / "dem.tif", plane(*ground(grid, place), slope, aspect), dem_crs, grid.transform,
    dtype="float64",
  )
  scene = scene_in(crs, place, 1e-4 if crs == "EPSG:4326" else 10)
  values, known = layers(dem, scene, ("slope", "eastness", "northness"))
  assert known.all()
  np.testing.assert_allclose(values[..., 0], slope, atol=0.2)
  direction = np.degrees(np.arctan2(values[..., 1], values[..., 2]))
  assert np.abs((direction - aspect + 180) % 360 - 180).max() < 1.0


@pytest.mark.parametrize("name", ["utm", "feet", "degrees at 60.0", "polar"])
def test_curvature_is_that_of_a_bowl(tmp_path, name):
  crs, place, steps = _DEMS[name]
  grid = centred(crs, place, steps, 90)
  east, north = ground(grid, place)
  dem = write_dem(
    tmp_path / "dem.tif", (east**2 + north**2) / 2000, crs, grid.transform, dtype="float64")
  values, known = layers(dem, scene_in("EPSG:4326", place, 1e-4), ("curvature",))
  assert known.all()  # The Laplacian is 2 / 1000 everywhere.
  np.testing.assert_allclose(values[..., 0], np.degrees(np.arctan(-100 * 0.002)), atol=0.3)


@pytest.mark.parametrize("steps", [(10, 0, 0, 0, -10, 0), (8, 6, 0, 6, -8, 0), (10, 0, 0, 0, -20, 0)])
def test_relief_is_that_of_a_loop(tmp_path, steps):
  crs = "+proj=aeqd +lat_0=47 +lon_0=15 +datum=WGS84 +units=m"
  grid = centred(crs, (15, 47), steps, 24)
  heights = np.random.default_rng(0).uniform(0, 100, (24, 24)).astype(np.float32)
  heights[10:12, 5:9] = -9999
  dem = write_dem(tmp_path / "dem.tif", heights, crs, grid.transform)
  values, known = layers(dem, grid, ("relief",), radius=35.0)
  cols, rows = np.meshgrid(np.arange(24), np.arange(24))
  x, y = grid.transform @ (cols.astype(float), rows.astype(float))
  for row in range(24):
    for col in range(24):
      assert known[row, col] == (heights[row, col] != -9999)
      near = heights[(np.hypot(x - x[row, col], y - y[row, col]) <= 35) & (heights != -9999)]
      if known[row, col]:
        assert values[row, col, 0] == pytest.approx(near.max() - near.min(), abs=1e-3)


def test_a_dem_finer_than_the_scene_is_averaged_first(tmp_path):
  """Bushes of 1 m are no slope of a pixel of 10 m; nor does a fine DEM cost a large footprint."""
  place = (15.2, 47.0)
  grid = centred("EPSG:32633", place, (1, 0, 0, 0, -1, 0), 600)
  east, north = ground(grid, place)
  heights = plane(east, north, 20.0, 90.0) + np.random.default_rng(0).uniform(-1, 1, east.shape)
  dem = write_dem(tmp_path / "dem.tif", heights, "EPSG:32633", grid.transform)
  scene = centred("EPSG:32633", place, (10, 0, 0, 0, -10, 0), 20)
  values, known = layers(dem, scene, ("slope", "relief"), 80.0)
  assert known.all()
  np.testing.assert_allclose(values[..., 0], 20, atol=1.0)
  np.testing.assert_allclose(values[..., 1], 160 * np.tan(np.radians(20)), atol=4)


def test_interpolation_knows_what_it_uses():
  values, known = np.arange(16.0).reshape(4, 4, 1), np.ones((4, 4), bool)
  known[0, 0] = False
  half = Affine.translation(0.5, 0.5)
  found, valid = bilinear(values, known, (Affine.identity(), UTM), (half, UTM), (3, 3))
  assert valid.tolist() == [[False, True, True], [True] * 3, [True] * 3]
  assert found[1, 1, 0] == pytest.approx((5 + 6 + 9 + 10) / 4)


def test_indices_are_their_formulas():
  names = ["blue", "x", "green", "red", "nir", "swir1"]
  values = np.random.default_rng(0).integers(0, 60000, (2, 5, 7, 6))
  after, before = values.astype(np.uint16)
  after[0, 0], before[0, 1] = 0, 0
  found = indices.of_dates([after, before], names, ("ndvi", "ndwi", "bsi", "ndvi_change"))
  for row in range(5):
    for col in range(7):
      b, _, g, r, n, s = map(float, after[row, col])
      _, _, _, r0, n0, _ = map(float, before[row, col])
      share = lambda a, b: (a - b) / (a + b) if a + b else 0.0
      expected = {
        "ndvi": share(n, r), "ndwi": share(g, n), "bsi": share(s + r, n + b),
        "ndvi_change": share(n, r) - share(n0, r0),
      }
      for name, value in expected.items():
        assert found[name][row, col] == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize(("dtype", "full_scale"), [("uint8", 255), ("uint16", 10000), ("float32", 1)])
def test_files_hold_a_range_as_zero_to_full_scale(dtype, full_scale):
  quantity = Quantity("slope", 0, 90, "degrees")
  encoded = quantity.encode(np.array([-5.0, 0.0, 31.3, 90.0, 99.0]), np.dtype(dtype), full_scale)
  assert encoded.dtype == dtype
  np.testing.assert_allclose(encoded[[0, 1, 3, 4]], [0, 0, full_scale, full_scale])
  assert float(encoded[2]) / full_scale * 90 == pytest.approx(31.3, abs=0.18)
  assert quantity.notes(full_scale).text == f"slope, 0 to 90 degrees as 0 to {full_scale}"


@pytest.fixture
def files(tmp_path):
  """A scene of near infrared, red, green and blue with nodata, and a DEM below most of it."""
  grid = scene_in("EPSG:32633", (15.2, 47.0), 10, 120)
  pixels = np.random.default_rng(0).integers(1, 255, (4, 120, 120)).astype(np.uint8)
  pixels[:, :30, :20] = 0
  with rasterio.open(
    tmp_path / "scene.tif", "w", driver="GTiff", height=120, width=120, count=4, dtype="uint8",
    crs=grid.crs, transform=grid.transform, nodata=0, photometric="MINISBLACK",
  ) as raster:
    raster.write(pixels)
  below = centred("EPSG:4326", (15.2, 47.0), (1e-4, 0, 0, 0, -1e-4, 0), 240)
  heights = plane(*ground(below, (15.2, 47.0)), 30.0, 90.0)
  heights[:, 180:] = np.nan
  write_dem(tmp_path / "dem.tif", heights, "EPSG:4326", below.transform)
  return types.SimpleNamespace(
    folder=tmp_path, scene=tmp_path / "scene.tif", dem=tmp_path / "dem.tif", pixels=pixels, grid=grid)


def settings(files, *names, output="out", **more):
  more |= {"dem": str(files.dem)} if {"slope", "relief"} & set(names) else {}
  return Settings(str(files.scene), str(files.folder / output), names, **more)


NAMES = ("nir", "red", "green", "blue")


def test_a_scene_keeps_its_bands_and_its_nodata(files, caplog, monkeypatch):
  monkeypatch.setattr(add, "_SIDE", 64)
  caplog.set_level(logging.WARNING)
  lines = add.add(settings(files, "ndvi", "slope", names=NAMES))
  assert "the DEM has no data below" in caplog.text
  assert lines[-1].strip() == "--config.data.channels=6 --config.model.evidence_bands=5,6"
  with open_scene(files.folder / "out" / "scene.tif", 6) as scene:
    assert scene.grid == files.grid and scene.dtype == np.uint8
    texts = [note.text for note in scene.notes]
    assert texts[4:] == ["ndvi, -1 to 1 as 0 to 255", "slope, 0 to 90 degrees as 0 to 255"]
    assert scene.notes[5].tags["LGAG_HIGH"] == "90" and band_notes.added(scene.notes) == (5, 6)
    pixels, valid = scene.read(Window(0, 0, 120, 120))
  assert not valid[:30, :20].any() and not valid[:, 110:].any() and valid[40:, :60].all()
  np.testing.assert_array_equal(pixels[valid][:, :4], np.moveaxis(files.pixels, 0, -1)[valid])
  assert np.abs(pixels[valid][:, 5] / 255 * 90 - 30).max() < 0.5
  nir, red = (band[valid].astype(float) for band in files.pixels[:2])
  np.testing.assert_allclose(pixels[valid][:, 4] / 255 * 2 - 1, (nir - red) / (nir + red), atol=0.005)


def test_names_come_from_the_file(files):
  with rasterio.open(files.scene, "r+") as raster:
    raster.descriptions = ("NIR", "Red", "green", "b")
  add.add(settings(files, "ndvi", "ndwi"))
  with pytest.raises(ImageError, match="bsi needs swir1, red, nir, blue, but no band is named swir1"):
    add.add(settings(files, "bsi", output="other"))
  assert not (files.folder / "other").exists()


def test_the_change_of_an_index_needs_the_image_before(files):
  before = files.folder / "before.tif"
  before.write_bytes(files.scene.read_bytes())
  with rasterio.open(before, "r+") as raster:
    raster.write(files.pixels[[1, 0, 2, 3]])  # Near infrared and red change places.
  add.add(settings(files, "ndvi_change", names=NAMES, before=str(before), max_shift=0))
  with open_scene(files.folder / "out" / "scene.tif", 5) as scene:
    pixels, valid = scene.read(Window(0, 0, 120, 120))
  nir, red = (band[valid].astype(float) for band in files.pixels[:2])
  np.testing.assert_allclose(
    pixels[valid][:, 4] / 255 * 4 - 2, 2 * (nir - red) / (nir + red), atol=0.01)


@pytest.mark.parametrize(("names", "more", "pattern"), [
  (("slope", "height"), {}, r"--add=slope,height: must be different names among slope, aspect"),
  (("ndvi",), {"dem": "dem.tif"}, r"--dem is only used for slope, aspect.*--add=ndvi names none"),
  (("aspect",), {}, r"--add=aspect needs --dem, for aspect"),
  (("ndvi_change",), {}, r"--add=ndvi_change needs --before"),
  (("slope",), {"relief_radius": 5.0}, r"--relief_radius=5 needs relief in --add"),
  (("ndvi",), {"names": ("red", "red", "nir", "x")}, r"--names=red,red,nir,x: must be different"),
  (("ndvi",), {"names": ("red", "nir")}, r"has 4 bands, but --names=red,nir names 2"),
  (("relief",), {"relief_radius": 4.0}, r"--relief_radius=4: must be at least \d+ metres, a pixel"),
  (("ndvi",), {"max_value": 300.0, "names": NAMES}, r"holds uint8, which --max_value=300 does not fit"),
])
def test_bad_settings_are_refused(files, names, more, pattern):
  with pytest.raises(ValueError, match=pattern):
    add.add(settings(files, *names, **more))
  assert not (files.folder / "out").exists()


@pytest.mark.parametrize(("kind", "pattern"), [
  ("elsewhere", r"--dem=.*dem.tif does not overlap .*scene.tif"),
  ("no place", r"scene.tif has no place on the Earth.*gdal_edit"),
  ("empty", r"scene.tif has no pixel with data in all bands: the DEM has no heights below it"),
  ("int32", r"holds int32.*give --max_value"),
])
def test_scenes_that_do_not_fit_are_refused(files, kind, pattern):
  if kind == "empty":
    with rasterio.open(files.dem, "r+") as raster:
      raster.write(np.full((1, 240, 240), -9999, np.float32))
  else:
    crs = None if kind == "no place" else UTM
    x = 8e5 if kind == "elsewhere" else files.grid.transform.c
    place = files.grid.transform
    with rasterio.open(
      files.scene, "w", driver="GTiff", height=120, width=120, count=4,
      dtype="int32" if kind == "int32" else "uint8", crs=crs,
      transform=Affine(place.a, 0, x, 0, place.e, place.f),
    ) as raster:
      raster.write(files.pixels)
  with pytest.raises(ImageError, match=pattern):
    add.add(settings(files, "slope"))


def test_scenes_that_would_be_one_file_are_refused_before_any_is_read(files, monkeypatch):
  (files.folder / "b").mkdir()
  shutil.copy(files.scene, files.folder / "b" / "scene.tif")
  shutil.copy(files.scene, files.folder / "b" / "scene.tiff")
  monkeypatch.setattr(add, "_add_to_scene", lambda *_: pytest.fail("a scene was read"))
  one = dataclasses.replace(settings(files, "slope"), input=str(files.folder / "b"))
  with pytest.raises(ValueError, match=r"scene\.tiff? would both have the file .*out/scene\.tif"):
    add.add(one)


def test_tiles_say_which_bands_were_added(files):
  add.add(settings(files, "slope"))
  table = files.folder / "labels.csv"
  label = lambda col: "landslide" if col < 2 else "non-landslide"
  rows = [f"scene,{row},{col},{label(col)}" for row in range(4) for col in range(3)]
  table.write_text("\n".join(["scene,row,col,label", *rows]))
  cut = Tiling(
    str(files.folder / "out"), str(files.folder / "tiles"), labels=str(table), tile_size=32,
    block_size=32, block_buffer=0, validation_fraction=0.3)
  rows, command = tile.cut(cut)
  assert "--config.data.channels=5 --config.model.evidence_bands=5" in command
  name = next(row.image for row in rows if row.image)
  with rasterio.open(files.folder / "tiles" / name) as raster:
    notes = band_notes.read(raster, range(1, 6))
  assert band_notes.texts(notes) == ("", "", "", "", "slope, 0 to 90 degrees as 0 to 255")
  (files.folder / "out" / "other.tif").write_bytes((files.folder / "out" / "scene.tif").read_bytes())
  with rasterio.open(files.folder / "out" / "other.tif", "r+") as raster:
    raster.set_band_description(5, "relief")
  pattern = r"scene.tif has 'slope.* as band 5, but .*other.tif has 'relief'"
  with pytest.raises(ValueError, match=pattern):
    tile.cut(Tiling(**{**vars(cut), "output": str(files.folder / "more")}))


def added(path, *texts):
  """A file with bands that say what lgag has added, "" for others."""
  with rasterio.open(
    path, "w", driver="GTiff", height=64, width=64, count=len(texts), dtype="uint8", crs=UTM,
    transform=Affine(2, 0, 5e5, 0, -2, 5e6), photometric="MINISBLACK",
  ) as raster:
    raster.write(np.full((len(texts), 64, 64), 90, np.uint8))
    band_notes.write_added(raster, [
      band_notes.BandNotes(text, tags={band_notes.QUANTITY: "x"} if text else {}) for text in texts])
  return path


def test_mapping_refuses_other_bands_than_those_of_training(tmp_path):
  paths = [added(tmp_path / f"{name}.tif", "", "", "", name) for name in ("slope", "relief")]
  pixels = np.zeros((64, 64, 4), np.uint8)
  examples = types.SimpleNamespace(
    ids=["a", "b"], read_valid_pixels=lambda index: (pixels, pixels[..., 0] == 0),
    files=lambda index: (paths[index], None),
  )
  config = Config(data=DataConfig(channels=4))
  (tmp_path / "config.json").write_text("{}")
  with pytest.raises(ImageError, match=r"relief.tif has 'relief' as band 4, but .*slope.tif has"):
    scale.training_scale(examples, config)
  examples.ids = ["a"]
  found = scale.training_scale(examples, config)
  assert found == scale.Scale(64, pytest.approx(2.0, rel=1e-3), ("", "", "", "slope"))
  loaded = types.SimpleNamespace(
    workdir=tmp_path, config=config, network=types.SimpleNamespace(evidence=None), thresholds=[0.5],
    state=types.SimpleNamespace(step=1), choice="", scale_for=lambda _: found)
  skipped = []
  plans = scene_plans.plan_scenes(
    [SceneFiles(path) for path in paths], loaded, Options(), map_names.MapNames(tmp_path / "out"),
    lambda path, error: skipped.append((path, str(error))))
  assert [plan.path for plan in plans] == paths[:1]
  (path, error), = skipped
  assert path == paths[1] and "but this network was trained with 'slope'" in error


def test_the_scale_of_training_knows_what_was_added(tmp_path):
  bands = ("", "", "", "slope, 0 to 90 degrees as 0 to 255")
  scale.save(scale.Scale(64, 2.5, bands), tmp_path)
  assert scale.load(tmp_path, None).bands == bands
  note = lambda text: band_notes.BandNotes(text, tags={band_notes.QUANTITY: "x"} if text else {})
  check = lambda texts: band_notes.check("a.tif", list(map(note, texts)), bands, "the network has")
  check(bands)
  for text in ("", "relief"):
    with pytest.raises(ImageError, match=r"a\.tif has .* as band 4, but the network has 'slope, 0 to"):
      check((*bands[:3], text))


@pytest.mark.parametrize(("data", "written", "fits"), [
  ({}, "255", True), ({}, "10000", False), ({"max_value": 10000.0}, "10000", True),
  ({"max_value": 10000.0}, "255", False), ({"normalise": "train"}, "10000", True),
])
def test_training_divides_added_bands_as_they_were_written(tmp_path, data, written, fits):
  path, pixels = added(tmp_path / "a.tif", "", "", "", "slope"), np.zeros((64, 64, 4), np.uint8)
  with rasterio.open(path, "r+") as raster:
    raster.update_tags(4, **{band_notes.FULL_SCALE: written})
  examples = types.SimpleNamespace(
    ids=["a"], read_valid_pixels=lambda index: (pixels, pixels[..., 0] == 0),
    files=lambda index: (path, None))
  config = Config(data=DataConfig(channels=4, **data))
  if fits:
    assert any(scale.training_scale(examples, config).bands)
    return
  needed = data.get("max_value", 255)
  pattern = rf"a\.tif holds 'slope' as band 4, but .*--max_value={needed:g}, or .*max_value={written}"
  with pytest.raises(ImageError, match=pattern):
    scale.training_scale(examples, config)


def test_grids_of_other_systems_meet_at_the_date_line(tmp_path):
  crs, place, steps = _DEMS["date line"]
  grid = centred(crs, place, steps, 400)
  dem = write_dem(
    tmp_path / "dem.tif", plane(*ground(grid, place), 15.0, 45.0), crs, grid.transform, dtype="float64")
  for longitude in (179.98, -179.98):
    values, known = layers(dem, scene_in("EPSG:32760", (longitude, -17.0), 20), ("slope",))
    assert known.all()
    np.testing.assert_allclose(values[..., 0], 15, atol=0.2)


def test_a_scene_beside_the_dem_has_nothing_known(tmp_path):
  grid = Grid(20, 20, UTM, Affine(10, 0, 5e5, 0, -10, 5e6))
  dem = write_dem(tmp_path / "dem.tif", np.ones((20, 20)), UTM, grid.transform)
  half = Grid(20, 20, UTM, grid.transform @ Affine.translation(15, 0))
  values, known = layers(dem, half, ("slope", "curvature", "relief"))
  assert known[1:-1, :3].all() and not known[:, 6:].any()
  assert np.abs(values[known]).max() < 1e-9


@pytest.mark.parametrize(("free", "message"), [
  (0, "No space left on device, nothing was written"),
  (1 << 30, r"scene\.tif could not be written: Write failed"),
])
def test_a_full_disk_is_said_to_be_full(files, monkeypatch, free, message):
  def write(*_, **__):
    raise rasterio.errors.RasterioIOError("Write failed. See previous exception for details.")

  monkeypatch.setattr(rasterio.io.DatasetWriter, "write_mask", write)
  monkeypatch.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(free=free))
  with pytest.raises(OSError, match=message):
    add.add(settings(files, "ndvi", names=NAMES))
  assert not (files.folder / "out").exists()
