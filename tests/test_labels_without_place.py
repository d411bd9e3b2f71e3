"""Labels and scenes of which one has no place are refused where they may not belong together."""

import json

import numpy as np
import pyogrio.raw
import pytest
import shapely
from affine import Affine
from PIL import Image

from lgag_jax.config import Config, DataConfig
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.shapes import read_shapes
from lgag_jax.imagery import listing
from lgag_jax.mapping import judge, predict
from lgag_jax.options.mapping import Options, References
from lgag_jax.tiling import tile
from tests.test_reference import write_layer
from tests.test_tile import NO, PLACE, YES, options, outlines, write_labels, write_scene

PIXELS = shapely.box(20, 20, 40, 30)
PLAIN = Grid(100, 128, None, Affine.identity())
COUNTED = [Grid(100, 128, None, Affine(1, 0, 0, 0, -1, corner)) for corner in (0, 100)]


def geojson(path, geometry):
  feature = {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(geometry)}
  path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
  return path


def write_scenes(folder, *names):
  folder.mkdir()
  for name in names:
    write_scene(folder / name)
  return str(folder)


def plain_mask(tmp_path):
  path = tmp_path / "mask.png"
  Image.fromarray(outlines("")).save(path)
  return path


@pytest.mark.parametrize(("scenes", "labels", "words"), [
  (("a.png", "b.png"), plain_mask, r"mask\.png is one .* 2 scenes, but it has no place"),
  (("a.tif", "b.tif"), plain_mask, r"mask\.png is one .* 2 scenes, but it has no place"),
  (("a.png", "b.tif"), lambda p: write_labels(p, "raster"), r"mask\.tif is one .*a\.png has no place"),
  (("a.tif", "b.png"), lambda p: write_labels(p, "polygons"), r"labels\.gpkg .*b\.png has no place"),
  (("a.png", "b.png"), lambda p: geojson(p / "l.json", PIXELS), r"l\.json .*a\.png has no place"),
])
def test_one_file_does_not_label_several_scenes_without_a_place(tmp_path, scenes, labels, words):
  folder = write_scenes(tmp_path / "in", *scenes)
  with pytest.raises(ValueError, match=words):
    tile.cut(options(tmp_path, input=folder, labels=str(labels(tmp_path))))
  assert not (tmp_path / "tiles").exists()


@pytest.mark.parametrize(("scenes", "labels"), [
  (("a.png",), plain_mask), (("a.png",), lambda p: geojson(p / "l.json", PIXELS)),
  (("a.tif", "b.tif"), lambda p: write_labels(p, "raster")),
  (("a.tif", "b.tif"), lambda p: write_labels(p, "polygons")),
])
def test_labels_that_belong_to_their_scenes_are_read(tmp_path, scenes, labels):
  folder = write_scenes(tmp_path / "in", *scenes)
  rows, _ = tile.cut(options(tmp_path, input=folder, labels=str(labels(tmp_path))))
  for name in scenes:
    assert {YES, NO} <= {row.label for row in rows if row.scene == name}


@pytest.mark.parametrize(("name", "geometry", "crs", "read"), [
  ("l.gpkg", shapely.box(500000, 3000000, 500010, 3000010), "EPSG:32644", False),
  ("l.shp", shapely.box(500000, 3000000, 500010, 3000010), "EPSG:32644", False),
  ("l.gpkg", shapely.box(13.1, 46.1, 13.11, 46.11), "EPSG:4326", False),
  ("l.gpkg", shapely.Point(13.1, 46.1), "EPSG:4326", False),
  ("l.geojson", shapely.box(13.1, 46.1, 13.11, 46.11), "EPSG:4326", False),
  ("l.geojson", PIXELS, "EPSG:4326", True), ("l.geojson", shapely.Point(13.5, 46.5), "EPSG:4326", True),
  ("l.gpkg", PIXELS, None, True), ("l.gpkg", PIXELS, "EPSG:32644", True),
])
def test_coordinates_on_the_earth_are_no_pixels(tmp_path, name, geometry, crs, read):
  path = write_layer(tmp_path / name, [geometry], crs=crs)
  if read:
    labels = read_shapes(path, PLAIN, ("landslide",))
    assert labels.geometries[0].equals(geometry)
    return
  with pytest.raises(ValueError, match=rf"{name} is in .*, but the scene has no place on the ground"):
    read_shapes(path, PLAIN, ("landslide",))


@pytest.mark.parametrize("grid", COUNTED)
@pytest.mark.parametrize(("name", "geometry", "crs", "read"), [
  ("l.gpkg", shapely.box(13.1, 46.1, 13.11, 46.11), "EPSG:4326", False),
  ("l.shp", shapely.box(500000, 3000000, 500010, 3000010), "EPSG:32644", False),
  ("l.gpkg", PIXELS, "EPSG:32644", True), ("l.geojson", PIXELS, "EPSG:4326", True),
])
def test_world_files_that_count_pixels_are_no_place(tmp_path, grid, name, geometry, crs, read):
  drawn = shapely.transform(geometry, lambda p: np.array([grid.transform @ tuple(q) for q in p]))
  path = write_layer(tmp_path / name, [drawn if read else geometry], crs=crs)
  if read:
    assert read_shapes(path, grid, ("landslide",)).geometries[0].equals(geometry)
    return
  with pytest.raises(ValueError, match=rf"{name} is in .*, but the scene has no place on the ground"):
    read_shapes(path, grid, ("landslide",))


def test_scenes_of_one_name_do_not_share_a_reference_without_a_place(tmp_path, monkeypatch):
  folder = write_scenes(tmp_path / "in", "a.png")
  Image.open(tmp_path / "in/a.png").save(tmp_path / "in/a.jpg")
  (tmp_path / "labels").mkdir()
  plain_mask(tmp_path).rename(tmp_path / "labels/a.png")
  monkeypatch.setattr(judge.configs, "load", lambda path: Config(data=DataConfig()))
  monkeypatch.setattr(predict, "map_scenes", lambda *_: pytest.fail("mapped"))
  judged = lambda labels: judge.evaluate(
    tmp_path, folder, tmp_path / "out", Options(), References(labels=str(labels)))
  with pytest.raises(ValueError, match=r"a\.jpg would both have the reference .*labels/a\.png"):
    judged(tmp_path / "labels")
  with pytest.raises(ValueError, match=r"l\.json is one file .*a\.jpg has no place on the ground"):
    judged(geojson(tmp_path / "l.json", PIXELS))


@pytest.mark.parametrize(("names", "scenes"), [
  (("a.tif", "a.tif.ovr", "a.tif.msk"), ["a.tif"]), (("a.vrt", "a.vrt.ovr"), ["a.vrt"]),
  (("a.tif", "b.ovr", "c.tif.msk"), ["a.tif", "b.ovr", "c.tif.msk"]),
  (("a.tif", "a.tif.aux.xml", "a.tif.msk.ovr", "a.prj", "a.tfw", "a.TFWX"), ["a.TFWX", "a.tif"]),
  (("S.PNG", "S.PGW", "S.png.aux.xml", "S.PNG.aux.xml", "b.prj"), ["S.PNG", "S.png.aux.xml", "b.prj"]),
])
def test_masks_and_overviews_of_scenes_are_no_scenes(tmp_path, names, scenes):
  for name in names:
    (tmp_path / name).touch()
  assert [path.name for path in listing.scene_files(f"{tmp_path}/*")] == scenes


def test_outlines_of_tiles_of_a_scene_with_a_crs_alone_are_still_read(tmp_path):
  folder = write_scenes(tmp_path / "in", "a.tif")
  fields = {"input": folder, "labels": str(write_labels(tmp_path, "polygons"))}
  rows, _ = tile.cut(options(tmp_path, **fields))
  place = lambda points: np.array([~PLACE @ tuple(point) for point in points])
  meta, _, wkb, data = pyogrio.raw.read(tmp_path / "tiles" / "tiles.gpkg")
  moved = shapely.to_wkb(shapely.transform(shapely.from_wkb(wkb), place))
  earlier = tmp_path / "earlier.gpkg"  # Such scenes counted as placed at the origin of their CRS.
  pyogrio.raw.write(
    earlier, moved, data, meta["fields"], crs="EPSG:32644", geometry_type="Polygon", layer="tiles",
    layer_metadata=pyogrio.read_info(tmp_path / "tiles" / "tiles.gpkg")["layer_metadata"],
  )
  write_scene(tmp_path / "in" / "a.tif", place=None)
  again, _ = tile.cut(options(tmp_path, input=folder, labels=str(earlier), output=str(tmp_path / "b")))
  assert [row.label for row in again] == [row.label for row in rows]
