"""Augmentation: image and mask move together, and the same seed gives the same image."""

import numpy as np
import pytest
import tensorflow as tf

from lgag_jax.config import DataConfig
from lgag_jax.imagery.reading import UNKNOWN
from lgag_jax.inputs.augment import augment

SIDE = 16


def apply(image, mask, seed, **fields):
  config = DataConfig(augment="image", **fields)
  result = augment(tf.constant(image), tf.constant(mask), tf.constant(seed, tf.int32), config)
  return tuple(part.numpy() for part in result)


def example(seed=0):
  """Returns an image and its mask with all mask values; the image's first channel repeats the mask."""
  rng = np.random.default_rng(seed)
  mask = rng.choice([0, 1, 2, UNKNOWN], size=(SIDE, SIDE)).astype(np.uint8)
  image = np.stack([mask / 255, *rng.uniform(size=(2, SIDE, SIDE))], axis=-1).astype(np.float32)
  return image, mask


def forms(array):
  """Returns the eight flips and quarter turns."""
  return [np.rot90(a, k) for a in (array, array[:, ::-1]) for k in range(4)]


@pytest.mark.parametrize("seed", range(8))
def test_image_and_mask_move_together(seed):
  image, mask = example()
  moved, moved_mask = apply(image, mask, (3, seed))
  assert moved.dtype == np.float32
  assert moved_mask.dtype == np.uint8
  np.testing.assert_array_equal(np.round(moved[..., 0] * 255), moved_mask)
  # All channels have the same one of the eight forms.
  (number,) = [i for i, form in enumerate(forms(mask)) if np.array_equal(form, moved_mask)]
  np.testing.assert_array_equal(moved, forms(image)[number])


def test_all_eight_forms_turn_up_equally_often():
  image, mask = example()
  candidates = forms(mask)
  counts = np.zeros(8)
  for seed in range(320):
    _, moved = apply(image, mask, (0, seed))
    counts[[np.array_equal(c, moved) for c in candidates].index(True)] += 1
  assert counts.min() > 15, counts
  assert counts.max() < 70, counts


@pytest.mark.parametrize("fields", [{}, {"colour_jitter": 0.3, "scale_jitter": 0.5}])
def test_a_seed_determines_the_result(fields):
  image, mask = example()
  first, again = (apply(image, mask, (1, 5), **fields) for _ in range(2))
  np.testing.assert_array_equal(first[0], again[0])
  np.testing.assert_array_equal(first[1], again[1])
  others = [apply(image, mask, seed, **fields)[0] for seed in ((1, 6), (1, 7), (2, 5), (9, 9))]
  assert any(not np.array_equal(first[0], other) for other in others)


@pytest.mark.parametrize("seed", range(6))
def test_zoom_moves_image_and_mask_together(seed):
  """The edge between two halves of the image stays within a pixel of the mask's edge."""
  mask = np.zeros((64, 64), np.uint8)
  mask[:, 30:] = 1
  mask[50:, :] = 2
  image = np.repeat(mask[..., None] / 2.0, 3, axis=-1).astype(np.float32)
  moved, moved_mask = apply(image, mask, (0, seed), scale_jitter=1.0)
  assert moved.shape == (64, 64, 3)
  assert moved_mask.shape == (64, 64)
  assert set(np.unique(moved_mask)) <= {0, 1, 2}
  assert np.mean(np.abs(moved[..., 0] - moved_mask / 2.0) < 0.02) > 0.9


def test_zoom_enlarges_within_its_strength():
  """The number of pixels of a centred square gives the zoom factor."""
  mask = np.zeros((64, 64), np.uint8)
  mask[28:36, 28:36] = 1
  image = np.zeros((64, 64, 3), np.float32)
  sizes = [np.sqrt(np.sum(apply(image, mask, (0, s), scale_jitter=0.5)[1])) / 8 for s in range(40)]
  whole = [s for s in sizes if s > 0]
  assert 1.0 <= min(whole) < 1.15
  assert 1.3 < max(whole) <= 1.65


def test_zoom_reaches_every_corner():
  mask = np.zeros((32, 32), np.uint8)
  mask[0, 0], mask[0, -1], mask[-1, 0], mask[-1, -1] = 1, 2, 3, 4
  image = np.zeros((32, 32, 3), np.float32)
  values = {n for s in range(60) for n in np.unique(apply(image, mask, (0, s), scale_jitter=0.2)[1])}
  assert values == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("seed", range(4))
def test_colour_jitter_keeps_the_range_and_leaves_the_mask(seed):
  image, mask = example()
  plain, plain_mask = apply(image, mask, (0, seed))
  jittered, jittered_mask = apply(image, mask, (0, seed), colour_jitter=0.4)
  np.testing.assert_array_equal(jittered_mask, plain_mask)
  assert jittered.min() >= 0
  assert jittered.max() <= 1
  inside = (jittered > 0) & (jittered < 1)
  # Values that were not clipped are a linear function of the original values.
  slope, offset = np.polyfit(plain[inside], jittered[inside], 1)
  np.testing.assert_allclose(jittered[inside], slope * plain[inside] + offset, atol=1e-4)
  assert 0.6 <= slope <= 1.4
  assert (slope, offset) != (1.0, 0.0)
