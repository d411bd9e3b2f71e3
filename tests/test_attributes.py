"""Attributes of polygons against ground truth on the ellipsoid and slow references over pixels."""

import pathlib
import re

import numpy as np
import pyogrio.raw
import pytest
import scipy.ndimage
import shapely
from affine import Affine
from pyproj import Geod, Transformer
from rasterio.crs import CRS

from lgag_jax.geo.grid import Grid
from lgag_jax.mapping import ground_measures, predict, rasters, scene_page, schemas
from lgag_jax.options.mapping import Options
from tests.test_map_names import model  # noqa: F401
from tests.test_mapping import batch_sizes, picture, write_scene  # noqa: F401
from tests.test_polygons import drawn, labelled, noise, trace

_GEOD = Geod(ellps="WGS84")
_SYSTEMS = {  # CRS, place (longitude, latitude) and transform, which the place makes an offset of.
  "utm": ("EPSG:32644", (81.0, 27.0), (10, 0, 0, 0, -10, 0)),
  "rotated": ("EPSG:32644", (81.0, 27.0), (6, 8, 0, 8, -6, 0)),
  "not square": ("EPSG:32644", (81.0, 27.0), (10, 0, 0, 0, -40, 0)),
  "degrees": ("EPSG:4326", (80.0, 60.0), (0.0002, 0, 0, 0, -0.0001, 0)),
  "feet": ("EPSG:2263", (-74.0, 40.7), (10, 0, 0, 0, -10, 0)),
  "web mercator": ("EPSG:3857", (9.0, 65.0), (10, 0, 0, 0, -10, 0)),
  "polar": ("EPSG:3413", (-20.0, 80.0), (10, 0, 0, 0, -10, 0)),
  "date line": ("EPSG:4326", (180.0, -17.0), (0.0002, 0, 0, 0, -0.0002, 0)),
}


@pytest.mark.parametrize("bearing", [0.0, 35.0, 120.0])
@pytest.mark.parametrize("name", _SYSTEMS)
def test_rectangles_are_measured_on_the_ground(name, bearing):
  crs, place, transform = _SYSTEMS[name]
  offset = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(*place)
  grid = Grid(100, 100, CRS.from_user_input(crs), Affine.translation(*offset) @ Affine(*transform))
  to_grid = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
  points = []
  for along, across in ((-600, -150), (-600, 150), (0, 150), (600, 150), (600, -150), (100, -150)):
    distance, angle = np.hypot(along, across), np.degrees(np.arctan2(across, along))
    lon, lat, _ = _GEOD.fwd(*place, bearing + angle, distance)
    lon = lon + 360 if place[0] == 180 and lon < 0 else lon
    points.append(~grid.transform @ to_grid.transform(lon, lat))
  inner = shapely.Polygon(points)  # In pixels; the scale of feet and metres is that of the ellipsoid.
  ((length, width, found),) = ground_measures.rectangles(np.array([inner]), grid)
  assert length == pytest.approx(1200, rel=2e-3) and width == pytest.approx(300, rel=2e-3)
  assert abs((found - bearing + 90) % 180 - 90) < 0.2


def test_rectangles_without_a_place_are_unknown():
  outlines = np.array([shapely.box(0, 0, 3, 1), shapely.box(5, 5, 6, 6)])
  crs = CRS.from_epsg(4326)
  for grid in (
    Grid(9, 9, None, Affine(10, 0, 5e5, 0, -10, 3e6)),
    Grid(9, 9, crs, Affine(10, 0, 5e5, 0, -10, 3e6)),  # Metres that are called degrees.
  ):
    assert np.isnan(ground_measures.rectangles(outlines, grid)).all()


@pytest.mark.parametrize("block", [1, 1 << 21])
def test_outlines_that_touch_missing_data_or_the_border_are_marked(tmp_path, monkeypatch, block):
  monkeypatch.setattr(rasters, "PIXELS_AT_ONCE", block)
  masks = [
    drawn("""
      00000000
      01102200
      0x102200
      00000x00
      01000000
      00x00110
      00000000
    """),
    noise(np.random.default_rng(3), (80, 64)),
    drawn("000 010 000"),
  ]
  masks[1][15, :] = np.where(masks[1][15] == 0, 255, masks[1][15])  # At the border of a block.
  masks[1][16, ::3] = 255
  for i, mask in enumerate(masks):
    (tmp_path / str(i)).mkdir()
    missing = scipy.ndimage.binary_dilation(mask == 255)
    border = np.pad(np.zeros(np.subtract(mask.shape, 2), bool), 1, constant_values=True)
    expected = [((inside & missing).any(), (inside & border).any()) for _, inside in labelled(mask)]
    found = trace(tmp_path / str(i), mask)
    assert [(x.touches_missing, x.touches_border) for x in found] == expected


def test_a_landslide_keeps_its_id(tmp_path, monkeypatch):
  mask = noise(np.random.default_rng(0))
  first = trace(tmp_path, mask)
  ids = [x.stable_id for x in first]
  assert len(set(ids)) == len(ids) > 20 and all(len(name) == 16 for name in ids)
  assert [x.stable_id for x in trace(tmp_path, mask, simplify=30)] == ids
  large = trace(tmp_path, mask, min_area=800)
  assert [x.stable_id for x in large] == [x.stable_id for x in first if x.pixels >= 8]
  monkeypatch.setattr(rasters, "PIXELS_AT_ONCE", 1)
  assert [x.stable_id for x in trace(tmp_path, mask)] == ids
  other = np.where(mask == 2, 0, mask)  # Without the other class, numbers change, identities do not.
  assert [x.stable_id for x in trace(tmp_path, other)] == [
    x.stable_id for x in first if x.class_name == "slide"
  ]
  assert not set(ids) & {x.stable_id for x in trace(tmp_path, mask, source="b.tif")}
  moved = trace(tmp_path, mask, transform=(10, 0, 6e5, 0, -10, 3e6))
  assert not set(ids) & {x.stable_id for x in moved}


def test_confidence_is_a_class_of_the_mean_probability(tmp_path):
  mask = drawn("10101 00000 20201")
  scores = np.full((2, 3, 5), 50, np.uint8)
  scores[0, 0, ::2] = 40, 62, 81
  scores[1, 2, :4] = 80, 0, 94, 0
  scores[0, 2, 4] = 255
  found = trace(tmp_path, mask, scores, thresholds=(0.4, 0.8))
  assert [x.confidence for x in found] == ["low", "medium", "high", "low", "high", None]
  assert {x.confidence for x in trace(tmp_path, mask, scores)} == {None}


@pytest.mark.parametrize("date", ["26.4.2015", "20150426", "2015-02-30", "2015", "yesterday"])
def test_a_wrong_date_of_the_imagery_is_refused(date):
  with pytest.raises(ValueError, match=rf"--image_date={date}: must be a date such as 2015-04-26"):
    Options(image_date=date)
  with pytest.raises(ValueError, match=rf"--before_date={date}: must be a date such as 2015-04-26"):
    Options(before="before.tif", before_date=date)


def test_the_image_before_is_not_the_later_one():
  assert Options(before="b.tif", before_date="2024-02-29", image_date="2024-02-29").before_date
  with pytest.raises(ValueError, match="--before_date=2024-03-01: must be not later than --image_date"):
    Options(before="b.tif", before_date="2024-03-01", image_date="2024-02-29")
  with pytest.raises(ValueError, match="--before_date=2024-03-01 needs --before"):
    Options(before_date="2024-03-01")


def test_the_page_names_both_dates():
  results = [{"event": "Storm", "image_date": "2024-02-29", "before_date": "2023-08-01"}]
  assert scene_page._events([*results, {}, {"event": ""}]) == [
    "Event: Storm. Date of the imagery: 2024-02-29. Date of the imagery before: 2023-08-01."]


def test_the_name_of_an_event_is_one_line():
  assert Options(event="Gorkha 'é' 地震", image_date="2015-04-26").event
  with pytest.raises(ValueError, match="must be text on one line"):
    Options(event="a\nb")


@pytest.mark.usefixtures("batch_sizes")
def test_polygons_and_page_carry_the_event(model, tmp_path):  # noqa: F811
  scene = write_scene(tmp_path / "a.tif", picture(64, 64))
  options = Options(event="Storm <b>A</b>", image_date="2024-02-29", min_area=0)
  predict.map_scenes(model, scene, tmp_path / "maps", options)
  meta, _, _, columns = pyogrio.raw.read(tmp_path / "maps/polygons/a_tif.gpkg")
  read = dict(zip(meta["fields"], columns, strict=True))
  assert len(read["id"]) > 0
  assert set(read["event"]) == {"Storm <b>A</b>"}
  assert set(read["image_date"].astype(str)) == {"2024-02-29"}
  assert set(read["method"]) == {
    f"{model.config.model.method} on {model.config.model.trunk}, step 1, score threshold 0.500"
  }
  assert set(read["confidence"]) <= {"low", "medium", "high"}
  np.testing.assert_allclose(read["gsd_m"], 2.0, rtol=0.01)  # The scale varies in a UTM zone.
  page = (tmp_path / "maps/report.html").read_text()
  assert "Event: Storm &lt;b&gt;A&lt;/b&gt;. Date of the imagery: 2024-02-29." in page


def test_the_page_of_events_tells_every_column():
  text = (pathlib.Path(__file__).parent.parent / "docs/events.md").read_text()
  section = text.split("## Attributes of polygons")[1].split("\nAll figures")[0]
  first_cells = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
  named = [name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)]
  assert named == [field.name for field in schemas.PLAIN]
