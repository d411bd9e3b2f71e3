"""The power law of landslide areas is found in samples of a known law."""

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
  assert 90 < law.least_area < 1000 and law.tail > 100
  assert f"exponent {law.exponent:.2f}" in size_distribution.in_words(law)
  size_figures.density(list(tail), law).canvas.draw()


def test_the_rollover_of_the_landslide_distribution(rng):
  """Malamud et al. (2004), equation 3: an inverse gamma law, whose highest density is at 401 m²."""
  areas = scipy.stats.invgamma.rvs(1.4, loc=-132, scale=1280, size=4000, random_state=rng)
  assert 280 < size_distribution.rollover(areas[areas > 0]) < 560


@pytest.mark.parametrize("areas", [[], [5.0] * 200, list(range(1, 40)), [0.0] * 60])
def test_too_few_areas_have_no_law(areas):
  assert size_distribution.fit(areas) is None
  assert "too few" in size_distribution.in_words(None)
