"""The power law of landslide areas is found in samples of a known law."""

import numpy as np
import pytest
import scipy.stats

from lgag_jax.evaluation import size_distribution, size_figures


@pytest.mark.parametrize("exponent", [1.8, 2.4, 3.0])
def test_the_exponent_of_a_known_law(rng, exponent):
  """By the inverse of the law's distribution; below 100 m² the density falls."""
  tail = 100 * (1 - rng.random(4000)) ** (-1 / (exponent - 1))
  small = rng.uniform(20, 100, 800) ** 0.5 * 10
  law = size_distribution.fit([*tail, *small])
  assert abs(law.exponent - exponent) < 0.1 and law.error < 0.1
  assert 90 < law.least_area < 1000 and law.tail > 100 and law.fits
  assert f"exponent {law.exponent:.2f}" in size_distribution.in_words(law)
  size_figures.density(list(tail), law).canvas.draw()


def test_the_rollover_of_the_landslide_distribution(rng):
  """Malamud et al. (2004), equation 3: an inverse gamma law, whose highest density is at 401 m²."""
  areas = scipy.stats.invgamma.rvs(1.4, loc=-132, scale=1280, size=4000, random_state=rng)
  assert 280 < size_distribution.rollover(areas[areas > 0]) < 560


@pytest.mark.parametrize("count", [60, 800])
def test_areas_spread_evenly_over_their_logarithm_follow_no_law(rng, count):
  """Such as slivers of a map beside its landslides: no exponent, no line, and no rollover in them."""
  areas = np.exp(rng.uniform(0, 9, count))
  law = size_distribution.fit(areas)
  assert not law.fits and law.rollover is None
  text = size_distribution.in_words(law)
  assert "do not follow a power law" in text and "no rollover is seen" in text
  assert not size_figures.density(list(areas), law).axes[0].get_lines()[1:]  # Only the density.


def test_one_sample_in_ten_of_a_law_is_rejected_at_most(rng):
  """The beginning is chosen where the law fits best, so fewer are."""
  samples = [100 * (1 - rng.random(80)) ** (-1 / 1.4) for _ in range(40)]
  assert sum(not size_distribution.fit(sample).fits for sample in samples) <= 4


@pytest.mark.parametrize("areas", [[], [5.0] * 200, list(range(1, 40)), [0.0] * 60])
def test_too_few_areas_have_no_law(areas):
  assert size_distribution.fit(areas) is None
  assert "too few" in size_distribution.in_words(None)
