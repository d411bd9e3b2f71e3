"""Missing pixels of lists of arrays."""

import numpy as np
import pytest

from lgag_jax.imagery import arrays
from tests.test_reading import pixels


def pixel_lists(image):
  return [list(row) for row in image]


@pytest.mark.parametrize("nest", [
  list, tuple, pixel_lists, lambda image: [pixel_lists(image), image],
  lambda image: [[list(row) for row in pixel] for pixel in image],
])
def test_masks_in_nested_lists_are_kept(nest):
  image = np.ma.masked_greater(pixels(12, 9), 200)
  image[0, 0] = np.ma.masked
  found = arrays.masked(nest(image))
  expected = np.broadcast_to(np.ma.getmaskarray(image), found.shape)
  np.testing.assert_array_equal(np.ma.getmaskarray(found), expected)
  np.testing.assert_array_equal(found.filled(0), np.broadcast_to(image.filled(0), found.shape))
  assert 20 < expected.sum() < expected.size - 20


def test_lists_of_numbers_are_arrays_of_their_values():
  image = pixels(5, 4)
  found = arrays.masked(image.tolist())
  np.testing.assert_array_equal(found, image)
  assert not np.ma.is_masked(found)


class WithAttributes(np.ndarray):
  """An array with attributes, as xarray's."""


def attributed(array, **attributes):
  view = np.asarray(array).view(WithAttributes)
  view.attrs = attributes
  return view


@pytest.mark.parametrize("attributes", [
  {"scale_factor": None}, {"scale_factor": None, "add_offset": None}, {"scales": (None, 1.0, None)},
  {"offsets": [None] * 3, "scales": np.ones(3)}, {"scale_factor": "1", "add_offset": np.float32(0)},
  {"scales": np.array([None, None, 1], object)},
])
def test_a_scale_that_changes_nothing_is_no_scale(attributes):
  image = pixels(5, 4)
  np.testing.assert_array_equal(arrays.masked(attributed(image, **attributes)), image)


@pytest.mark.parametrize(("attributes", "words"), [
  ({"scale_factor": 1e-4}, "scale_factor=0.0001, which lgag does not apply"),
  ({"scale_factor": None, "add_offset": -1000}, "add_offset=-1000, which lgag does not apply"),
  ({"scales": (None, 0.5, 1)}, r"scales=\(None, 0.5, 1\), which lgag does not apply"),
  ({"scale_factor": float("nan")}, "scale_factor=nan, which"),
  ({"scale_factor": "none"}, "scale_factor='none', which is not a number: correct or remove it"),
  ({"offsets": [0, {}, 0]}, "offsets=.*, which is not a number"),
])
def test_a_scale_that_is_to_be_applied_is_refused(attributes, words):
  with pytest.raises(ValueError, match=f"The array has the attribute {words}"):
    arrays.masked(attributed(pixels(5, 4), **attributes))


@pytest.mark.parametrize(("nodata", "bands"), [
  ((None, 7, None), [1]), ((7, 7, None), [0, 1]), ((None, None, None), []), ((7,), [0, 1, 2]),
])
def test_a_band_may_have_no_nodata_value(nodata, bands):
  image = np.full((3, 4, 3), 9, np.uint8)
  image[1] = 7
  found = np.ma.getmaskarray(arrays.masked(attributed(image, nodatavals=nodata)))
  expected = np.zeros(image.shape, bool)
  expected[1, :, bands] = True
  np.testing.assert_array_equal(found, expected)
