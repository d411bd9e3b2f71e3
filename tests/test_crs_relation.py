"""Coordinate systems that cannot be related: the message names files, systems and remedy."""

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from pyogrio import raw
from rasterio.crs import CRS
from rasterio.windows import Window

from lgag_jax.geo import crs_relation
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.reference import open_reference
from lgag_jax.mapping import judge
from lgag_jax.options.mapping import Options, References
from lgag_jax.options.tiling import Settings
from lgag_jax.tiling import tile
from tests.test_judge_scenes import config_of

UTM = CRS.from_epsg(32644)
PLACE = Affine(2, 0, 5e5, 0, -2, 3e6)
# Some data sets' masks have the name alone.
UNRELATED = {
  "name only": 'LOCAL_CS["WGS 84 / UTM zone 44N",UNIT["metre",1]]',
  "survey": 'ENGCRS["b",EDATUM["d"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],'
            'LENGTHUNIT["metre",1]]',
  "Mars": 'GEOGCS["Mars",DATUM["Mars",SPHEROID["Mars",3396190,169.8944472]],PRIMEM["Reference",0],'
          'UNIT["degree",0.0174532925199433]]',
}


def write_raster(path, array, crs, transform=PLACE):
  with rasterio.open(
    path, "w", driver="GTiff", height=array.shape[-2], width=array.shape[-1], crs=crs,
    count=array.shape[0] if array.ndim == 3 else 1, dtype="uint8", transform=transform,
  ) as file:
    file.write(array if array.ndim == 3 else array[None])
  return path


def write_layer(path, crs):
  box = shapely.transform(shapely.box(3, 4, 9, 12), lambda p: np.stack(PLACE @ tuple(p.T), axis=1))
  raw.write(
    path, shapely.to_wkb(np.array([box], object)), [], [], crs=crs, geometry_type="Polygon",
    driver="GPKG",
  )
  return path


def read(path, grid):
  with open_reference(path, grid, ("landslide",)) as reference:
    return reference.read(Window(0, 0, grid.width, grid.height))


def square():
  array = np.zeros((24, 30), np.uint8)
  array[4:12, 3:9] = 1
  return array


@pytest.mark.parametrize("kind", UNRELATED)
@pytest.mark.parametrize("of_scene", [False, True])
@pytest.mark.parametrize("suffix", ["tif", "gpkg"])
def test_the_message_names_files_systems_and_remedy(tmp_path, monkeypatch, kind, of_scene, suffix):
  crs = CRS.from_user_input(UNRELATED[kind])
  of_labels, of_image = (UTM, crs) if of_scene else (crs, UTM)
  scene = write_raster(tmp_path / "s.tif", np.full((3, 24, 30), 90, np.uint8), of_image)
  path = tmp_path / f"labels.{suffix}"
  if suffix == "tif":
    write_raster(path, square(), of_labels)
  else:
    write_layer(path, of_labels.to_wkt())
  wrong = scene if of_scene else path
  command = "ogr2ogr" if wrong.suffix == ".gpkg" else "gdal_edit"
  name = crs_relation.full_name(crs).split("'")[1]
  systems = rf"EPSG:32644.*'{name}'" if of_scene else rf"'{name}'.*EPSG:32644"
  words = rf"labels\.{suffix} cannot label .*s\.tif.*{systems}.*{command}.* EPSG:32644 .*{wrong.name}"
  settings = Settings(input=str(scene), output=str(tmp_path / "o"), labels=str(path), tile_size=8)
  with pytest.raises(ValueError, match=words):
    tile.cut(settings)
  assert not (tmp_path / "o").exists()
  monkeypatch.setattr(judge.configs, "load", lambda path: config_of(("landslide",)))
  with pytest.raises(ValueError, match=words):
    judge.evaluate(tmp_path, scene, tmp_path / "out", Options(), References(labels=str(path)))


@pytest.mark.parametrize("kind", ["name only", "survey"])
def test_equal_local_systems_need_no_relation(tmp_path, kind):
  """Formats change the text of a local system, which stays the same by name and unit."""
  crs = CRS.from_wkt(UNRELATED[kind])
  scene = write_raster(tmp_path / "s.tif", np.zeros((24, 30), np.uint8), crs)
  with rasterio.open(scene) as file:
    grids = [Grid.from_raster(file, scene), Grid(24, 30, crs, PLACE)]
  same = write_raster(tmp_path / "m.tif", square(), crs)
  shifted = write_raster(tmp_path / "n.tif", square(), crs, PLACE @ Affine.translation(2, 0))
  layer = write_layer(tmp_path / "a.gpkg", crs.to_wkt())
  for grid in grids:
    np.testing.assert_array_equal(read(same, grid), square())
    np.testing.assert_array_equal(read(layer, grid), square())
    np.testing.assert_array_equal(read(shifted, grid)[:, 2:], square()[:, :-2])
  feet = write_layer(tmp_path / "f.gpkg", UNRELATED[kind].replace('"metre",1', '"foot",0.3048'))
  with pytest.raises(ValueError, match="cannot be related"):
    read(feet, grids[0])


@pytest.mark.parametrize("text", [*UNRELATED.values(), "EPSG:5703", "EPSG:4978", "EPSG:32644"])
def test_a_place_on_the_earth_needs_a_system_of_it(text):
  """EPSG:5703 are heights alone, EPSG:4978 counts from the centre of the Earth."""
  grid = Grid(24, 30, CRS.from_user_input(text), PLACE)
  lies_on_earth = text == "EPSG:32644"
  assert (grid.to_wgs84() is not None) == (grid.gsd() is not None) == lies_on_earth
  assert grid.georeferenced


def test_coordinates_that_do_not_fit_their_system_have_no_resolution():
  for crs in (4326, 4979):
    assert Grid(24, 30, CRS.from_epsg(crs), PLACE).gsd() is None


HAYFORD = "+proj=utm +zone=33 +ellps=intl +units=m +no_defs +type=crs"


@pytest.mark.parametrize(("crs", "target", "ellipsoid"), [
  (HAYFORD, "EPSG:32633", "International 1924"), ("EPSG:25833", HAYFORD, "International 1924"),
  ("+proj=longlat +ellps=bessel +no_defs +type=crs", "EPSG:4326", "Bessel 1841"),
  ("+proj=tmerc +lat_0=49 +lon_0=-2 +ellps=airy +type=crs", "EPSG:4326", "Airy 1830"),
  (CRS.from_string("+proj=utm +zone=11 +ellps=clrk66"), CRS.from_epsg(32611), "Clarke 1866"),
])
def test_an_unknown_datum_is_named_once(caplog, crs, target, ellipsoid):
  crs_relation._warn_of_datums.cache_clear()
  for _ in range(3):
    assert crs_relation.transformer(crs, target) and crs_relation.transformer(target, crs)
  found = [line for line in caplog.messages if "does not name its datum" in line]
  assert len(found) == 1 and ellipsoid in found[0]


@pytest.mark.parametrize(("crs", "target"), [
  ("+proj=tmerc +lat_0=49 +lon_0=-2 +ellps=airy +type=crs", "EPSG:27700"),  # Both on one ellipsoid.
  ("EPSG:23033", "EPSG:32633"), ("EPSG:25833", "EPSG:32633"), ("EPSG:4490", "EPSG:32650"),
  ("+proj=utm +zone=33 +ellps=GRS80 +type=crs", "EPSG:32633"), ("EPSG:26711", "EPSG:32611"),
  ("+proj=sinu +R=6371007.181 +units=m +type=crs", "EPSG:4326"), ("EPSG:3857", "EPSG:4326"),
  ("+proj=utm +zone=33 +ellps=intl +towgs84=-87,-98,-121 +type=crs", "EPSG:32633"),
])
def test_known_datums_and_spheres_give_no_warning(caplog, crs, target):
  crs_relation._warn_of_datums.cache_clear()
  assert crs_relation.transformer(crs, target) and crs_relation.transformer(target, crs)
  assert "datum" not in caplog.text
