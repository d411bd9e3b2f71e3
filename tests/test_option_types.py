"""Values of options as callers from Python write them."""

import pathlib

import numpy as np
import pytest

import lgag_jax
from lgag_jax.imagery import arrays
from lgag_jax.options.mapping import Options


@pytest.mark.parametrize(("fields", "flags"), [
  ({"threshold": 0.5}, ["--threshold=0.5"]),
  ({"threshold": np.array([0.25, 0.5])}, ["--threshold=0.25,0.5"]),
  ({"bands": [4, 3, np.int64(2)]}, ["--bands=4,3,2"]), ({"bands": (4.0, 3.0)}, ["--bands=4,3"]),
  ({"gsd": np.float32(10)}, ["--gsd=10.0"]), ({"tile_size": 64.0}, ["--tile_size=64"]),
  ({"dem": pathlib.Path("a/dem.tif")}, ["--dem=a/dem.tif"]),
  ({"clouds": None, "threshold": None, "gate": None}, []),
])
def test_other_forms_of_a_value_mean_the_same(fields, flags):
  assert Options(**fields).flags() == flags


@pytest.mark.parametrize(("fields", "message"), [
  ({"threshold": "0.5"}, r"--threshold='0.5' \(str\): must be numbers such as \(0.6,\)"),
  ({"threshold": ("0.5",)}, r"--threshold=\('0.5',\) \(tuple\): must be numbers"),
  ({"bands": "4,3,2"}, r"--bands='4,3,2' \(str\): must be numbers such as \(4,3,2,\)"),
  ({"bands": (4.5, 3, 2)}, r"--bands=\(4.5, 3, 2\)"),
  ({"gsd": "10"}, r"--gsd='10' \(str\): must be a number"), ({"gsd": True}, "--gsd=True"),
  ({"gsd": np.array([10, 10])}, r"--gsd=array\(\[10, 10\]\) \(ndarray\)"),
  ({"tile_size": 64.5}, r"--tile_size=64.5 \(float\): must be a whole number"),
  ({"tile_size": float("inf")}, "--tile_size=inf"), ({"event": 5}, r"--event=5 \(int\): must be text"),
  ({"dem": b"dem.tif"}, "--dem=b'dem.tif'"),
])
def test_values_of_another_type_are_named(fields, message):
  with pytest.raises(ValueError, match=rf"^{message}"):
    Options(**fields)


@pytest.mark.parametrize(("arguments", "message"), [
  ({"gsd": "10"}, r"^--gsd='10' \(str\)"), ({"gsd": np.array([10, 10])}, r"^--gsd=array\("),
  ({"options": {"gsd": 10}}, "^`options` is a dict: give lgag_jax.Options"),
  ({"options": None}, "NoneType"),
])
def test_arguments_of_another_type_are_named(arguments, message):
  model = lgag_jax.Model(None)  # type: ignore[arg-type]  # Refused before it is used.
  with pytest.raises(ValueError, match=message):
    model.predict(np.zeros((8, 8, 3), np.uint8), **arguments)


@pytest.mark.parametrize("image", [
  [[[1, 2, 3]], [[1, 2]]], [np.zeros((8, 8, 3)), np.zeros((4, 8, 3))],
])
def test_images_of_several_sizes_are_refused(image):
  with pytest.raises(ValueError, match=r"^The array is a list .* as one array: .*of one size\.$"):
    arrays.masked(image)
