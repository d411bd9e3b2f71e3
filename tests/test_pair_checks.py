"""The doctor's findings about pairs: known, long and unknown shifts between the dates."""

import dataclasses
import types

import numpy as np
import scipy.ndimage

from lgag_jax.config import Config, DataConfig
from lgag_jax.doctor import pair_checks

SIDE = 256


def pair(shift, seed=0):
  """Two dates of smooth noise; None for `shift` draws two places."""
  random = np.random.default_rng(seed)
  draw = lambda: scipy.ndimage.gaussian_filter(random.uniform(0, 255, (SIDE, SIDE, 3)), (1.5, 1.5, 0))
  after = draw()
  before = draw() if shift is None else np.roll(after, shift, (0, 1))
  values = np.concatenate([after, before], -1)
  values = (values - values.min()) / (values.max() - values.min()) * 255
  return values.astype(np.uint8), np.ones((SIDE, SIDE), bool)


def check(monkeypatch, shifts, most=5.0):
  pairs = [pair(shift, seed) for seed, shift in enumerate(shifts)]
  source = types.SimpleNamespace(
    ids=[f"{i}.png" for i in range(len(pairs))], read_valid_pixels=lambda i: pairs[i]
  )
  monkeypatch.setattr(pair_checks.sources, "make_source", lambda *_: source)
  config = dataclasses.replace(Config(), data=DataConfig(before="before", max_shift=most))
  return " ".join(str(found) for found in pair_checks.check(config))


def test_shifts_within_the_bound_are_told(monkeypatch):
  text = check(monkeypatch, [(0, 3), (3, 0), (0, -3)])
  assert "3.0 pixels apart" in text and "at most 3.0" in text
  assert "more than" not in text and "unknown" not in text


def test_shifts_beyond_the_bound_are_named(monkeypatch):
  text = check(monkeypatch, [(0, 1), (0, 4)], most=2.0)
  assert "more than data.max_shift=2" in text and "1.png" in text


def test_two_places_have_no_known_shift(monkeypatch):
  text = check(monkeypatch, [(0, 1), None])
  assert "unknown" in text and "1.png" in text


def test_one_date_is_not_checked():
  assert pair_checks.check(Config()) == []
