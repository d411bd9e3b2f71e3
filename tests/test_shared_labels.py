"""One file of labels for several scenes is refused if it means other ground in each of them."""

import numpy as np
import pyogrio.raw
import pytest
import shapely
from affine import Affine

from lgag_jax.geo import companions
from lgag_jax.mapping import judge
from lgag_jax.options.mapping import Options, References
from lgag_jax.options.tiling import Settings
from lgag_jax.tiling import tile
from tests.test_judge_scenes import config_of
from tests.test_label_reach import BOX, PLACE, SIDE, write_mask, write_scene

pytestmark = pytest.mark.filterwarnings("ignore:'crs' was not provided")
YES, NO = "landslide", "non-landslide"
BESIDE = shapely.box(500340, 4999400, 500600, 4999600)


def write_layer(path, crs=None, shape=BOX, **fields):
  values = [np.array(value, object) for value in fields.values()]
  pyogrio.raw.write(
    path, shapely.to_wkb([shape]), values, list(fields), crs=crs, geometry_type="Polygon")
  return path


def scenes(folder, *systems):
  (folder / "in").mkdir()
  for name, crs in zip("abc", systems, strict=False):
    write_scene(folder / f"in/{name}.tif", crs=crs)
  return str(folder / "in")


def labels_of(folder, form, crs=None):
  """Returns the flags that name a file of labels, of the name `form`."""
  path = folder / form
  if form == "mask.tif":
    return {"labels": str(write_mask(path, PLACE, crs))}
  if form == "none.shp":
    slides = write_layer(folder / "slides.gpkg", "EPSG:32633")
    return {"labels": str(slides), "negative_labels": str(write_layer(path, crs, BESIDE))}
  if form == "decided.gpkg":
    slides = write_layer(folder / "slides.gpkg", "EPSG:32633")
    review = write_layer(path, crs, BESIDE, decision=["not_landslide"])
    return {"labels": str(slides), "review": str(review)}
  return {"labels": str(write_layer(path, crs))}


def cut(folder, source, **flags):
  rows, _ = tile.cut(Settings(
    input=source, output=str(folder / "tiles"), tile_size=16, validation_fraction=0.0, **flags))
  return {row.scene for row in rows if row.label in (YES, NO)}


COUNTED = Affine(1, 0, 0, 0, -1, 0)
IN_PIXELS = shapely.box(10, -30, 30, -10)


def counted(folder, form, *places):
  """Writes scenes with world files, a layer or a mask; returns the flags that name the labels."""
  (folder / "in").mkdir()
  for name, place in zip("abc", places, strict=False):
    scene = write_scene(folder / f"in/{name}.tif", crs=None, place=Affine.identity())
    numbers = 1, 0, 0, -1, place.c + 0.5, place.f - 0.5
    scene.with_suffix(".tfw").write_text("\n".join(map(str, numbers)))
  if form == "mask.tif":
    return {"labels": str(write_mask(folder / form, COUNTED, world=True))}
  return {"labels": str(write_layer(folder / form, shape=IN_PIXELS))}


@pytest.mark.parametrize("form", ["a.shp", "a.gpkg", "mask.tif"])
@pytest.mark.parametrize("corner", [0, SIDE])
def test_world_files_that_count_pixels_give_no_place(tmp_path, form, corner):
  places = [COUNTED, Affine.translation(0, corner) @ COUNTED]
  flags = counted(tmp_path, form, *places)
  words = rf"{form} is one .* 2 scenes, but .*a\.tif and .*b\.tif only count their pixels"
  with pytest.raises(ValueError, match=words):
    cut(tmp_path, str(tmp_path / "in"), **flags)


@pytest.mark.parametrize("form", ["a.gpkg", "mask.tif"])
@pytest.mark.parametrize("places", [(COUNTED,), (COUNTED, Affine.translation(SIDE, 0) @ COUNTED)])
def test_parts_of_one_picture_are_read(tmp_path, form, places):
  flags = counted(tmp_path, form, *places)
  assert "a.tif" in cut(tmp_path, str(tmp_path / "in"), **flags)


@pytest.mark.parametrize("flag", ["before", "clouds"])
@pytest.mark.parametrize("corner", [0, SIDE])
def test_one_image_before_serves_one_picture_whose_pixels_are_counted(tmp_path, flag, corner):
  other = Affine.translation(SIDE, 0) @ COUNTED
  counted(tmp_path, "a.gpkg", COUNTED, other, Affine.translation(0, corner) @ COUNTED)
  scenes = sorted((tmp_path / "in").glob("*.tif"))
  file = write_scene(tmp_path / "one.tif")
  with pytest.raises(ValueError, match=rf"--{flag}=.*one\.tif is one file for 3 .*c\.tif has no place"):
    companions.find(scenes, Options(**{flag: str(file)}))
  assert [getattr(one, flag) for one in companions.find(scenes[:2], Options(**{flag: str(file)}))] == [
    file, file]


FORMS = ("a.shp", "a.gpkg", "mask.tif", "none.shp", "decided.gpkg")


@pytest.mark.parametrize("form", FORMS)
def test_a_file_without_a_system_is_refused_for_scenes_of_several(tmp_path, form):
  source = scenes(tmp_path, "EPSG:32633", "EPSG:32633", "EPSG:32632")
  command = "gdal_edit.py -a_srs EPSG:32633" if form == "mask.tif" else "ogr2ogr -a_srs EPSG:32633 new"
  words = rf"{form} is one .* 3 scenes, but it has no .*a\.tif is in .*32633.*c\.tif in .*32632"
  with pytest.raises(ValueError, match=rf"{words}.*{command}.*{form}"):
    cut(tmp_path, source, **labels_of(tmp_path, form))
  assert not (tmp_path / "tiles").exists()


@pytest.mark.parametrize(("form", "crs", "systems"), [
  *((form, "EPSG:32633", ("EPSG:32633", "EPSG:32632")) for form in FORMS),
  ("a.shp", None, ("EPSG:32633", "EPSG:32633")), ("mask.tif", None, ("EPSG:32633", "EPSG:32633")),
  ("a.gpkg", None, ("EPSG:32633", "EPSG:25833")),  # Their numbers mean the same places.
  ("a.shp", None, (None,)), ("mask.tif", None, (None,)), ("a.gpkg", None, (None, "EPSG:32633")),
])
def test_a_file_whose_numbers_mean_one_place_is_read(tmp_path, form, crs, systems):
  flags = labels_of(tmp_path, form, crs)
  assert "a.tif" in cut(tmp_path, scenes(tmp_path, *systems), **flags)


@pytest.mark.parametrize("form", ["a.shp", "a.gpkg"])
def test_an_evaluation_refuses_it_before_it_maps(tmp_path, monkeypatch, form):
  monkeypatch.setattr(judge.configs, "load", lambda path: config_of((YES,)))
  source = scenes(tmp_path, "EPSG:32632", "EPSG:32633")
  with pytest.raises(ValueError, match=rf"{form} is one .* 2 scenes, but it has no coordinate"):
    judge.evaluate(
      tmp_path, source, tmp_path / "out", Options(), References(**labels_of(tmp_path, form)))
