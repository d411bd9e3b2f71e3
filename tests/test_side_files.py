"""Files beside images: masks, notes and CRSs against GDAL, which reads them too; unplaced scenes."""

import re
import types

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC
from rasterio.windows import Window

from lgag_jax.config import Config
from lgag_jax.geo import placement, scale
from lgag_jax.geo.reference import open_reference
from lgag_jax.geo.scene import open_scene
from lgag_jax.imagery import listing, reading, reduction
from lgag_jax.imagery.reading import ImageError
from tests.test_reading import mask_of, pixels, write_png, write_tiff
from tests.test_scene import NORTH_UP, H, W

UTM = rasterio.CRS.from_epsg(32644)
VALID = np.arange(H * W).reshape(H, W) % W >= 20


def write_mask(path, valid):
  """Writes x.tif.msk as GDAL does."""
  with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as raster:
    raster.write_mask(valid)


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jp2"])
def test_a_mask_beside_an_image_is_missing_data(tmp_path, name):
  array = pixels(H, W)
  write_tiff(tmp_path / "m.tif", array)
  write_mask(tmp_path / "m.tif", VALID)
  path = write_tiff(tmp_path / "a.tif", array) if name == "a.tif" else tmp_path / name
  if name == "a.png":
    write_png(path, array)
  elif name == "a.jp2":
    write_tiff(path, array, driver="JP2OpenJPEG")
  before = listing.file_key(path)
  (tmp_path / "m.tif.msk").rename(f"{path}.msk")
  assert listing.file_key(path) != before
  with rasterio.open(path) as raster:
    np.testing.assert_array_equal(raster.dataset_mask() > 0, VALID)  # What GDAL says.
  np.testing.assert_array_equal(reading.read_pixels(path, 3)[1], VALID)
  with reading.open_raster(path) as raster:
    part = reading.read_valid_mask(raster, Window(10, 3, 30, 8))
  np.testing.assert_array_equal(part, VALID[3:11, 10:40])
  with open_scene(path, 3) as scene:
    np.testing.assert_array_equal(scene.valid(Window(15, 0, 10, 5)), VALID[:5, 15:25])
    np.testing.assert_array_equal(scene.read(Window(0, 0, 40, 40), (8, 8))[1], VALID[:8, :40:5])


def test_a_mask_of_another_size_is_refused(tmp_path):
  path = write_tiff(tmp_path / "a.tif", pixels(H, W))
  write_tiff(tmp_path / "a.tif.msk", pixels(5, 6, 1))
  with pytest.raises(ImageError, match=r"a\.tif\.msk is a GTiff of \(5, 6\).*restore or remove"):
    reading.read_pixels(path, 3)


def notes(path, *, crs=UTM, transform=NORTH_UP, more=""):
  place = ", ".join(map(str, transform.to_gdal())) if transform else ""
  place = f"<GeoTransform>{place}</GeoTransform>" if transform else ""
  srs = f"<SRS>{crs.to_wkt()}</SRS>" if crs else ""
  path.with_name(f"{path.name}.aux.xml").write_text(f"<PAMDataset>{srs}{place}{more}</PAMDataset>")


@pytest.mark.parametrize("case", ["tif", "png", "crs", "transform", "override"])
def test_notes_beside_an_image_place_it_as_in_gdal(tmp_path, case):
  path = tmp_path / ("a.png" if case == "png" else "a.tif")
  own = {"crs": {"transform": NORTH_UP}, "transform": {"crs": UTM},
         "override": {"crs": "EPSG:4326", "transform": NORTH_UP @ NORTH_UP}}.get(case, {})
  write_png(path, pixels(H, W)) if case == "png" else write_tiff(path, pixels(H, W), **own)
  notes(path, crs=None if case == "transform" else UTM, transform=None if case == "crs" else NORTH_UP)
  with rasterio.open(path) as theirs, open_scene(path, 3) as ours:
    assert (ours.grid.crs, ours.grid.transform) == (theirs.crs, theirs.transform) == (UTM, NORTH_UP)


def test_gdal_s_web_mercator_is_a_crs(tmp_path):
  path = write_png(tmp_path / "a.png", pixels(H, W))
  notes(path, crs=rasterio.CRS.from_epsg(3857))
  with open_scene(path, 3) as scene:
    assert scene.grid.crs == rasterio.CRS.from_epsg(3857)


def test_a_nodata_value_in_notes_is_missing_data(tmp_path):
  array = np.where(VALID[..., None], np.maximum(pixels(H, W), 1), np.uint8(0))
  path = write_png(tmp_path / "a.png", array)
  band = '<PAMRasterBand band="{}"><NoDataValue>0</NoDataValue></PAMRasterBand>'
  notes(path, crs=None, transform=None, more="".join(map(band.format, (1, 2, 3))))
  np.testing.assert_array_equal(reading.read_pixels(path, 3)[1], VALID)
  with open_scene(path, 3) as scene:
    np.testing.assert_array_equal(scene.valid(Window(0, 0, W, H)), VALID)


SCATTERED = np.random.default_rng(3).random((H, W)) > 0.02
REDUCED = (13, 20)


def strictly_reduced(valid, shape):
  """Returns which reduced pixels have only valid contributions, pixel by pixel."""
  (h, w), result = shape, np.zeros(shape, bool)
  for row, col in np.ndindex(*shape):
    rows = [r for r in range(H) if row * H < (r + 1) * h and r * h < (row + 1) * H]
    cols = [c for c in range(W) if col * W < (c + 1) * w and c * w < (col + 1) * W]
    result[row, col] = valid[np.ix_(rows, cols)].all()
  return result


@pytest.mark.parametrize(("dtype", "largest", "options"), [
  (np.uint8, 1, {}), (np.uint8, 1, {"nbits": 1}), (np.uint8, 255, {}), (np.uint16, 255, {}),
  (np.float32, 0.5, {}), (np.float32, np.nan, {}),
])
def test_only_zero_in_a_mask_beside_an_image_is_missing(tmp_path, dtype, largest, options):
  path = write_tiff(tmp_path / "a.tif", pixels(H, W))
  values = np.where(SCATTERED, 1 if np.isnan(largest) else largest, 0).astype(dtype)
  if np.isnan(largest):
    values[~SCATTERED] = np.nan
  write_tiff(tmp_path / "m.tif", values, **options).rename(f"{path}.msk")
  with open_scene(path, 3) as scene:
    for shape in ((H, W), REDUCED):
      expected = strictly_reduced(SCATTERED, shape)
      np.testing.assert_array_equal(scene.read(Window(0, 0, W, H), shape)[1], expected)
      assert 0.2 < expected.mean() < 1


@pytest.mark.filterwarnings("ignore::rasterio.errors.NodataShadowWarning")
@pytest.mark.parametrize("case", ["notes", "file and notes", "mask and nodata", "alpha and nodata"])
def test_no_missing_value_is_averaged_into_a_valid_pixel(tmp_path, case, monkeypatch):
  monkeypatch.setattr(reduction, "_PIECE", 400)  # Several strips.
  array = np.where(SCATTERED[..., None], 200, -9999).astype(np.int16).repeat(4, axis=-1)
  array[::9, ::13][SCATTERED[::9, ::13]] = -1  # Nodata of the file: GDAL does not average it.
  known = SCATTERED & (array[..., 0] != -1)
  own = None if case == "notes" else -1
  array = array[..., :3] if case != "alpha and nodata" else array
  if case == "alpha and nodata":
    array[..., 3] = np.where(SCATTERED, 255, 0)
  with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
    path = write_tiff(
      tmp_path / "a.tif", array, nodata=own, alpha="YES" if array.shape[-1] == 4 else "NO",
      photometric="RGB")
    if case == "mask and nodata":
      with rasterio.open(path, "r+") as raster:
        raster.write_mask(SCATTERED)
  if "notes" in case:
    band = '<PAMRasterBand band="{}"><NoDataValue>{}</NoDataValue></PAMRasterBand>'
    more = "".join(band.format(number, -9999) for number in (1, 2, 3))
    notes(path, crs=None, transform=None, more=more)
  with open_scene(path, 3) as scene:
    valid = scene.valid(Window(0, 0, W, H))
    reduced, where = scene.read(Window(0, 0, W, H), REDUCED)
  np.testing.assert_array_equal(valid, SCATTERED if case == "notes" else known)
  assert set(np.unique(reduced[where])) <= ({200} if own else set(range(-1, 201)))
  assert where.mean() > 0.2
  if case == "notes":
    np.testing.assert_array_equal(where, strictly_reduced(SCATTERED, REDUCED))


def test_both_nodata_values_of_a_mask_mean_unknown(tmp_path):
  mask = np.array([[0, 1, 1], [254, 255, 1]], np.uint8)
  path = write_tiff(tmp_path / "m.tif", mask, nodata=255)
  band = '<PAMRasterBand band="1"><NoDataValue>254</NoDataValue></PAMRasterBand>'
  notes(path, crs=None, transform=None, more=band)
  np.testing.assert_array_equal(mask_of(path), [[0, 1, 1], [255, 255, 1]])


def test_a_prj_completes_a_world_file_unless_it_is_a_shapefile_s(tmp_path):
  path = write_tiff(tmp_path / "a.tif", pixels(H, W))
  (tmp_path / "a.tfw").write_text("2 0 0 -2 500001 3099999")
  (tmp_path / "a.prj").write_text(UTM.to_wkt(version="WKT1_ESRI"))
  with open_scene(path, 3) as scene:
    assert scene.grid.transform == NORTH_UP and scene.grid.gsd() == pytest.approx(2, rel=1e-2)
  (tmp_path / "a.shp").touch()
  with open_scene(path, 3) as scene:
    assert scene.grid.crs is None
  (tmp_path / "a.shp").unlink()
  (tmp_path / "a.prj").write_text("/etc/passwd")
  with pytest.raises(ImageError, match=r"a\.prj is invalid: its CRS"):
    open_scene(path, 3)


def test_world_file_and_crs_may_be_named_in_capitals(tmp_path):
  path = write_tiff(tmp_path / "X.TIF", pixels(H, W))
  (tmp_path / "X.TFW").write_text("2 0 0 -2 500001 3099999")
  (tmp_path / "X.PRJ").write_text(UTM.to_wkt())
  with open_scene(path, 3) as scene:
    assert (scene.grid.crs, scene.grid.transform) == (UTM, NORTH_UP)
  (tmp_path / "X.SHP").touch()
  with open_scene(path, 3) as scene:
    assert scene.grid.crs is None


def test_side_files_that_are_not_read_are_named(tmp_path):
  path = write_tiff(tmp_path / "a.tif", pixels(H, W))
  assert placement.unread_warning(path) == ""
  (tmp_path / "a.tif.ovr").touch()
  assert placement.unread_warning(path) == "lgag does not read a.tif.ovr beside it."


def write_unplaced(tmp_path, case):
  zeros = [0.0] * 17
  rpcs = RPC(
    height_off=0, height_scale=100, lat_off=46.9, lat_scale=0.01, long_off=15, long_scale=0.01,
    line_off=20, line_scale=20, samp_off=20, samp_scale=20, line_num_coeff=[0, 0, -1, *zeros],
    line_den_coeff=[1, 0, 0, *zeros], samp_num_coeff=[0, 1, 0, *zeros],
    samp_den_coeff=[1, 0, 0, *zeros], err_bias=None, err_rand=None,
  )
  options = {"rpcs": {"rpcs": rpcs}, "crs": {"crs": UTM}, "rpcs and crs": {"rpcs": rpcs, "crs": UTM}}
  path = write_tiff(tmp_path / "a.tif", pixels(H, W), **options.get(case, {}))
  if case == "gcps":
    with rasterio.open(path, "r+") as raster:
      points = [(0, 0), (0, W), (H, 0), (H, W)]
      raster.gcps = [GroundControlPoint(r, c, *(NORTH_UP @ (c, r)), 0) for r, c in points], UTM
  elif case.startswith("aux"):
    more = "<GCPList/>" if "gcps" in case else ""
    notes(path, crs=UTM if "crs" in case else None, transform=None, more=more)
  elif case == "rpb":
    (tmp_path / "a.RPB").touch()
  elif case == "prj":
    (tmp_path / "a.prj").write_text(UTM.to_wkt())
  return path


@pytest.mark.parametrize(("case", "words"), [
  ("gcps", "ground control points.*gdalwarp -tps"), ("aux gcps", "control points.*gdalwarp -tps"),
  ("aux gcps crs", "ground control points.*gdalwarp -tps"), ("rpcs", "RPCs.*gdalwarp -rpc"),
  ("rpb", "RPCs.*gdalwarp -rpc"), ("rpcs and crs", "RPCs.*gdalwarp -rpc"), ("none", "^$"),
  ("crs", "a CRS, but neither.*-a_ullr"), ("aux crs", "a CRS, but neither.*-a_ullr"),
  ("prj", "a CRS, but neither.*-a_ullr"),
])
def test_a_scene_without_a_transform_has_no_place(tmp_path, case, words):
  path = write_unplaced(tmp_path, case)
  with open_scene(path, 3) as scene:
    grid = scene.grid
  assert not grid.georeferenced and grid.gsd() is None
  examples = types.SimpleNamespace(
    ids=[path.name], files=lambda index: (path, None),
    read_valid_pixels=lambda index: (np.zeros((8, 8, 3)), np.ones((8, 8), bool)))
  assert scale.training_scale(examples, Config()).gsd is None
  text = placement.unplaced_warning(grid)
  assert bool(text) == (case != "none")
  assert re.search(words, text)
  if text:
    labels = tmp_path / "l.geojson"
    labels.write_text('{"type": "FeatureCollection", "features": []}')
    with pytest.raises(ValueError, match=f"l.geojson cannot label the scene: .*{words}"):
      open_reference(labels, grid, ("landslide",)).__enter__()
