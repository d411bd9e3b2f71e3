"""Shapes in windows, against rasterising and measuring them whole."""

import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.features import rasterize
from rasterio.windows import Window

from lgag_jax.geo import shape_index
from lgag_jax.geo.shape_index import INSET, ShapeIndex

SIDE = 300


def star(count, seed=0):
  """Returns a polygon whose outline goes in and out, on quarters of pixels so that it meets centres."""
  rng = np.random.default_rng(seed)
  angle = np.sort(rng.uniform(0, 2 * np.pi, count))
  radius = rng.uniform(60, 149, count)
  points = np.stack([150 + radius * np.cos(angle), 150 + radius * np.sin(angle)], axis=1)
  valid = shapely.make_valid(shapely.Polygon(np.round(4 * points) / 4))
  parts = shapely.get_parts(shapely.get_parts(valid))
  is_polygon = shapely.get_type_id(parts) == shapely.GeometryType.POLYGON
  return shapely.MultiPolygon(parts[is_polygon].tolist())


def with_holes(count, seed=0):
  """Returns a square with `count` ** 2 holes, some of them on pixel centres."""
  rng = np.random.default_rng(seed)
  step = SIDE / count
  corners = np.stack(np.meshgrid(np.arange(count), np.arange(count)), axis=-1).reshape(-1, 2) * step
  size = step * rng.uniform(0.2, 0.7, (len(corners), 1))
  shape = np.array([(0.5, 0.5), (0.5, 1.4), (1.3, 1.2), (1.2, 0.3)])
  holes = corners[:, None] + size[..., None] * shape
  return shapely.Polygon([(0, 0), (SIDE, 0), (SIDE, SIDE), (0, SIDE)], holes)


def spiral(count):
  angle = np.linspace(0, 24 * np.pi, count)
  outer, inner = 5 + 1.9 * angle, 2 + 1.9 * angle
  ring = [(150 + r * np.cos(a), 150 + r * np.sin(a))
          for r, a in (*zip(outer, angle, strict=True), *zip(inner[::-1], angle[::-1], strict=True))]
  return shapely.Polygon(ring)


SHAPES = {
  "star": lambda: [star(3000), star(900, 1)], "holes": lambda: [with_holes(40)],
  "spiral": lambda: [spiral(4000)],
  "parts": lambda: [shapely.MultiPolygon([
    shapely.affinity.scale(with_holes(20), 0.4, 0.4, origin=(0, 0)),
    shapely.affinity.translate(shapely.affinity.scale(spiral(900), 0.4, 0.4), 70, 70)])],
  "large and small": lambda: [star(2000), shapely.box(100.5, 90, 130, 200.5), with_holes(30),
                              shapely.Point(150, 150).buffer(9)],
}


def windows():
  rng = np.random.default_rng(3)
  for _ in range(60):
    yield Window(*rng.integers(-20, SIDE, 2), *rng.integers(1, 90, 2))
  yield from (Window(0, 0, SIDE, SIDE), Window(0, 120, SIDE, 7), Window(149, 149, 1, 1))


@pytest.mark.parametrize("kind", SHAPES)
def test_a_window_equals_that_of_whole_shapes(kind):
  geometries = np.array(SHAPES[kind](), object)
  classes = np.arange(1, len(geometries) + 1, dtype=np.uint8)
  assert (shapely.get_num_coordinates(geometries) > shape_index._LARGE).any()
  index = ShapeIndex(geometries, classes)
  for window in windows():
    expected = rasterize(
      zip(geometries, classes.tolist(), strict=True), out_shape=(window.height, window.width),
      transform=Affine.translation(window.col_off, window.row_off), dtype=np.uint8)
    np.testing.assert_array_equal(index.read(window), expected, err_msg=str(window))
    box = shape_index._box(window, INSET)
    for distance in (0.0, 0.7, 5.0):
      assert index.near(window, distance) == shapely.dwithin(geometries, box, distance).any()


def test_points_are_those_of_whole_features():
  rng = np.random.default_rng(0)
  points = np.round(4 * rng.uniform(0, 60, (500, 2))) / 4
  geometries = np.array([shapely.MultiPoint(part) for part in np.split(points, 100)], object)
  classes = rng.integers(1, 5, 100, np.uint8)
  index = ShapeIndex(geometries, classes)
  for window in windows():
    expected = rasterize(
      zip(geometries, classes.tolist(), strict=True), out_shape=(window.height, window.width),
      transform=Affine.translation(window.col_off, window.row_off), dtype=np.uint8)
    np.testing.assert_array_equal(index.read(window), expected)


@pytest.mark.parametrize(
  "kind", ["vertices", *(pytest.param(k, marks=pytest.mark.longest) for k in ("holes", "points"))])
def test_work_follows_what_lies_in_the_window(kind, monkeypatch):
  """A million vertices, ninety thousand holes or a million points: a window draws only its own."""
  if kind == "points":
    geometries = shapely.points(np.random.default_rng(0).uniform(0, SIDE, (1_000_000, 2)))
  else:
    geometries = np.array([with_holes(300) if kind == "holes" else spiral(500_000)], object)
  index, drawn = ShapeIndex(geometries, np.ones(len(geometries), np.uint8)), []

  def record(pairs, **options):
    drawn.append(sum(shapely.get_num_coordinates(shape) for shape, _ in pairs))
    return rasterize(pairs, **options)

  monkeypatch.setattr(shape_index, "rasterize", record)
  assert index.read(Window(140, 40, 16, 16)).any()
  assert index.near(Window(140, 40, 16, 16), 0.0)
  assert sum(drawn) < 30_000
