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
