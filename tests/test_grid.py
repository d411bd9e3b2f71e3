"""The ground resolution of a grid in coordinates of any unit."""

import math

import pytest
from affine import Affine
from rasterio.crs import CRS

from lgag_jax.geo.grid import Grid

_LOCAL = 'LOCAL_CS["site",UNIT["metre",1]]'


def grid(crs, *transform):
  return Grid(100, 100, crs, Affine(*transform))


@pytest.mark.parametrize(
  ("crs", "transform", "expected"),
  [
    ("EPSG:32644", (0.08, 0, 5e5, 0, -0.08, 3e6), 0.08),
    ("EPSG:32644", (10, 0, 5e5, 0, -40, 3e6), 20.0),  # Not square: the geometric mean.
    ("EPSG:32644", (6, 8, 5e5, 8, -6, 3e6), 10.0),  # Rotated.
    ("EPSG:2263", (1, 0, 9.8e5, 0, -1, 2e5), 1200 / 3937),  # US survey feet.
    # At 60 degrees north a degree of the ellipsoid is 55,800 by 111,412 metres.
    ("EPSG:4326", (1e-4, 0, 80, 0, -1e-4, 60), math.sqrt(5.5800 * 11.1412)),
    ("EPSG:3857", (1, 0, 0, 0, -1, 8399737.9), 0.5),  # Web Mercator stretches lengths twofold there.
  ],
)
def test_ground_resolution_in_metres(crs, transform, expected):
  assert grid(CRS.from_user_input(crs), *transform).gsd() == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("crs", [None, CRS.from_wkt(_LOCAL)])
def test_no_ground_resolution_without_a_position_on_the_earth(crs):
  assert grid(crs, 1, 0, 0, 0, -1, 0).gsd() is None
  assert grid(crs, 1, 0, 5, 0, -1, 0).georeferenced
  assert not grid(None, 1, 0, 0, 0, 1, 0).georeferenced


@pytest.mark.parametrize(("transform", "placed"), [
  ((1, 0, 0, 0, 1, 0), False), ((1, 0, 0, 0, -1, 0), False), ((1, 0, 0, 0, -1, "height"), False),
  ((1, 0, 256, 0, -1, 0), True), ((1, 0, 0, 0, -1, 512), True), ((0.5, 0, 0, 0, -0.5, 0), True),
])
@pytest.mark.parametrize("crs", [None, CRS.from_epsg(32633)])
def test_numbers_of_pixels_are_no_place(crs, transform, placed):
  height = grid(None, 1, 0, 0, 0, 1, 0).height
  numbers = [height if number == "height" else number for number in transform]
  assert grid(crs, *numbers).placed == placed
