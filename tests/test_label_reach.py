"""Labels that lie in none of the scenes of a call are refused, with the system that may place them."""

import numpy as np
import pyogrio.raw
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.windows import Window

from lgag_jax.geo.grid import Grid
from lgag_jax.geo.reference import open_reference
from lgag_jax.mapping import judge
from lgag_jax.options.mapping import Options, References
from lgag_jax.options.tiling import Settings
from lgag_jax.tiling import tile
from tests.test_judge_scenes import config_of

SIDE = 64
PLACE = Affine(10, 0, 500000, 0, -10, 5000000)
GRID = Grid(SIDE, SIDE, rasterio.crs.CRS.from_epsg(32633), PLACE)
BOX = shapely.box(500100, 4999700, 500300, 4999900)


def write_scene(path, *, crs="EPSG:32633", place=PLACE):
  pixels = np.random.default_rng(0).integers(1, 250, (3, SIDE, SIDE), np.uint8)
  with rasterio.open(
    path, "w", driver="GTiff", height=SIDE, width=SIDE, count=3, dtype="uint8", crs=crs, transform=place
  ) as raster:
    raster.write(pixels)
  return path


def write_layer(path, geometry, crs):
  wkb = shapely.to_wkb(np.array([geometry]))
  pyogrio.raw.write(path, wkb, [], [], crs=crs, geometry_type="Polygon")
  return path


def write_mask(path, place, crs=None, world=False):
  values = np.zeros((SIDE, SIDE), np.uint8)
  values[10:30, 10:30] = 1
  with rasterio.open(
    path, "w", driver="GTiff", height=SIDE, width=SIDE, count=1, dtype="uint8",
    **({} if world else {"crs": crs, "transform": place}),
  ) as raster:
    raster.write(values, 1)
  if world:
    numbers = place.a, 0, 0, place.e, place.c + place.a / 2, place.f + place.e / 2
    path.with_suffix(".tfw").write_text("\n".join(map(str, numbers)))
  return path


def in_system(code):
  to_system = pyproj.Transformer.from_crs("EPSG:32633", code, always_xy=True)
  return shapely.transform(BOX, lambda points: np.stack(to_system.transform(*points.T), axis=1))


FAR = shapely.transform(BOX, lambda points: points + 30000)
DEGREES = Affine(1e-4, 0, 15.0, 0, -1e-4, 45.15)
# Labels that lie in no scene, and the system in which they would.
LAYERS = [
  ("a.gpkg", BOX, "EPSG:32632", "EPSG:32633"),
  ("a.shp", BOX, "EPSG:25834", "EPSG:32633"),
  ("a.gpkg", in_system("EPSG:25832"), "EPSG:25831", "EPSG:25832"),
  ("a.gpkg", FAR, "EPSG:32633", ""),
  ("a.geojson", shapely.box(16, 46, 16.1, 46.1), "EPSG:4326", ""),
]
MASKS = [
  (DEGREES, None, "EPSG:4326"), (PLACE, "EPSG:32634", "EPSG:32633"),
  (Affine.translation(5e4, 0) @ PLACE, "EPSG:32633", ""),
]


def refusal(code, labels, command):
  place = rf"It would lie there in .*\({code}\)\..*{command} -a_srs {code}.*{labels.name}"
  return rf"{labels.name}: nothing of it lies in .*s\.tif\. It covers x .*" + (
    place if code else "Check both coordinate reference systems")


def cut(folder, labels, source):
  settings = Settings(
    input=str(source), output=str(folder / "tiles"), labels=str(labels), tile_size=16,
    validation_fraction=0.0)
  return {(row.scene, row.row, row.col) for row in tile.cut(settings)[0] if row.label == "landslide"}


@pytest.mark.parametrize(("name", "shape", "crs", "code"), LAYERS)
def test_a_layer_beside_the_scene_is_refused(tmp_path, monkeypatch, name, shape, crs, code):
  scene = write_scene(tmp_path / "s.tif")
  labels = write_layer(tmp_path / name, shape, crs)
  with pytest.raises(ValueError, match=refusal(code, labels, "ogr2ogr")):
    cut(tmp_path, labels, scene)
  assert not (tmp_path / "tiles").exists()
  monkeypatch.setattr(judge.configs, "load", lambda path: config_of(("landslide",)))
  with pytest.raises(ValueError, match=refusal(code, labels, "ogr2ogr")):  # Before anything is mapped.
    judge.evaluate(tmp_path, scene, tmp_path / "out", Options(), References(labels=str(labels)))


@pytest.mark.parametrize(("place", "crs", "code"), MASKS)
def test_a_mask_beside_the_scene_is_refused(tmp_path, monkeypatch, place, crs, code):
  scene = write_scene(tmp_path / "s.tif")
  labels = write_mask(tmp_path / "m.tif", place, crs, world=crs is None)
  with pytest.raises(ValueError, match=refusal(code, labels, "gdal_edit.py")):
    cut(tmp_path, labels, scene)
  monkeypatch.setattr(judge.configs, "load", lambda path: config_of(("landslide",)))
  with pytest.raises(ValueError, match=refusal(code, labels, "gdal_edit.py")):
    judge.evaluate(tmp_path, scene, tmp_path / "out", Options(), References(labels=str(labels)))


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_one_of_several_scenes_is_enough(tmp_path, order):
  """The other scene has no landslides."""
  (tmp_path / "scenes").mkdir()
  places = dict(zip(order, (PLACE, Affine.translation(30000, 0) @ PLACE), strict=True))
  for name, place in places.items():
    write_scene(tmp_path / "scenes" / f"{name}.tif", place=place)
  positives = cut(tmp_path, write_layer(tmp_path / "a.gpkg", BOX, "EPSG:32633"), tmp_path / "scenes")
  assert positives and {name for name, _, _ in positives} == {f"{order[0]}.tif"}
  nowhere = write_layer(tmp_path / "far.gpkg", FAR, "EPSG:32633")
  with pytest.raises(ValueError, match=r"far\.gpkg: nothing of it lies in .* or in any other scene"):
    cut(tmp_path / "scenes", nowhere, tmp_path / "scenes")


EMPTY = '{"type": "FeatureCollection", "features": []}'


def test_an_empty_layer_of_a_scene_s_name_says_that_there_is_no_landslide(tmp_path, monkeypatch):
  labels = tmp_path / "labels"
  for folder in (labels, tmp_path / "scenes"):
    folder.mkdir()
  for name in "ab":
    write_scene(tmp_path / "scenes" / f"{name}.tif")
  (labels / "a.geojson").write_text(EMPTY)
  write_layer(labels / "b.gpkg", BOX, "EPSG:32633")
  monkeypatch.setattr(judge.configs, "load", lambda path: config_of(("landslide",)))
  mapped = []
  monkeypatch.setattr(judge.predict, "map_scenes", lambda *arguments: mapped.append(arguments))
  monkeypatch.setattr(judge, "evaluate_maps", lambda *arguments: {})
  monkeypatch.setattr(judge.thresholds_file, "load_indices", lambda *arguments: [None])
  evaluate = lambda given: judge.evaluate(
    tmp_path, tmp_path / "scenes", tmp_path / "out", Options(), References(labels=str(given)))
  evaluate(labels)
  assert len(mapped) == 1
  with open_reference(labels / "a.geojson", GRID, ("landslide",), may_be_empty=True) as reference:
    assert not reference.read(Window(0, 0, SIDE, SIDE)).any()
    assert not reference.near(Window(0, 0, SIDE, SIDE), 1e6)
  with pytest.raises(ValueError, match=r"a\.geojson holds no feature with a geometry\."):
    evaluate(labels / "a.geojson")  # For all scenes.
  (labels / "b.gpkg").unlink()
  (labels / "b.geojson").write_text(EMPTY)
  with pytest.raises(ValueError, match=r"It holds no feature\. Scenes without landslides need"):
    evaluate(labels)
  assert len(mapped) == 1


def test_the_given_system_places_the_labels(tmp_path):
  scene = write_scene(tmp_path / "s.tif")
  box = in_system("EPSG:25832")
  assert cut(tmp_path, write_layer(tmp_path / "a.gpkg", box, "EPSG:25832"), scene)
