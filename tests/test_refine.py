"""Refinement against slow, literal references."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgag_jax.config import RefineConfig
from lgag_jax.inference import refine


def picture(rng, side=12, channels=3):
  """Two colours that meet at a slanted line, and a score of one of them: coarse, and noisy."""
  rows, cols = np.mgrid[:side, :side]
  inside = cols + rows / 3 > side * 0.6
  colours = rng.uniform(0.2, 0.8, (2, channels))
  image = colours[inside.astype(int)] + rng.normal(0, 0.02, (side, side, channels))
  coarse = inside[side // 8 :: max(side // 4, 1), side // 8 :: max(side // 4, 1)].astype(float)
  repeats = -(-side // coarse.shape[0])
  scores = np.kron(coarse, np.ones((repeats, repeats)))[:side, :side]
  scores = np.clip(0.2 + 0.6 * scores + rng.normal(0, 0.15, (side, side)), 0.01, 0.99)
  return image[None].astype(np.float32), scores[None, ..., None].astype(np.float32), inside


def test_guided_filter_is_a_ridge_regression_in_every_window(rng):
  guide, scores, _ = picture(rng, side=9)
  radius, epsilon, side = 2, 0.5, 9
  slope, offset = refine.guided_filter(
    guide=jnp.asarray(guide), scores=jnp.asarray(scores), radius=radius, epsilon=epsilon
  )
  ridge = (epsilon * np.mean(np.var(guide[0], axis=(0, 1))) + 1e-6) * np.eye(3)
  window = lambda x, i, j: x[max(i - radius, 0) : i + radius + 1, max(j - radius, 0) : j + radius + 1]
  slopes, offsets = np.zeros((side, side, 3)), np.zeros((side, side))
  for i in range(side):
    for j in range(side):
      colours = window(guide[0], i, j).reshape(-1, 3).astype(float)
      values = window(scores[0, ..., 0], i, j).ravel().astype(float)
      centred = colours - colours.mean(0)
      covariance = centred.T @ centred / len(values)
      slopes[i, j] = np.linalg.solve(covariance + ridge, centred.T @ values / len(values))
      offsets[i, j] = values.mean() - slopes[i, j] @ colours.mean(0)
  for i in range(side):
    for j in range(side):
      mean = window(slopes, i, j).reshape(-1, 3).mean(0)
      np.testing.assert_allclose(slope[0, i, j, :, 0], mean, rtol=2e-3, atol=2e-3)
      np.testing.assert_allclose(offset[0, i, j, 0], window(offsets, i, j).mean(), rtol=2e-3, atol=2e-3)


def test_refined_maps_follow_the_image_better(rng):
  image, scores, inside = picture(rng, side=48)
  config = RefineConfig(stride=2, radius=0.15)
  refined = refine.refine(jnp.asarray(scores), jnp.asarray(image), config)
  assert refined.shape == scores.shape
  assert refined.min() >= 0.0 and refined.max() <= 1.0
  wrong = lambda x: np.mean((np.asarray(x)[0, ..., 0] > 0.5) != inside)
  assert wrong(refined) < 0.75 * wrong(scores)


def test_flat_images_and_several_classes_stay_finite():
  config = RefineConfig()
  scores = jnp.linspace(0, 1, 2 * 32 * 32 * 2).reshape(2, 32, 32, 2)
  flat = jnp.full((2, 32, 32, 5), 0.3)
  assert np.all(np.isfinite(refine.refine(scores, flat, config)))


def test_none_changes_nothing():
  scores = jax.random.uniform(jax.random.key(0), (1, 8, 8, 1))
  config = dataclasses.replace(RefineConfig(), method="none")
  np.testing.assert_array_equal(refine.refine(scores, jnp.zeros((1, 8, 8, 3)), config), scores)


@pytest.mark.parametrize("bands", [1, 3, 14])
def test_small_systems_are_solved_as_numpy_solves_them(rng, bands):
  factors = rng.normal(size=(5, 6, bands, 20)) * np.logspace(0, -2, bands)[:, None]
  a = factors @ np.swapaxes(factors, -1, -2) / 20 + 0.01 * np.eye(bands)
  b = rng.normal(size=(5, 6, bands, 2))
  found = refine._solve(jnp.float32(a), jnp.float32(b))
  np.testing.assert_allclose(found, np.linalg.solve(a, b), rtol=1e-3, atol=1e-3)
