"""Which tiles to ask for next: those that the classifier is least sure of, and some at random."""

import itertools
from collections.abc import Collection, Iterator

import numpy as np

_RANDOM_TURN = 4  # Every fourth suggestion is drawn at random.


def ordered(
  random_order: np.ndarray, answered: Collection[int], chances: np.ndarray | None
) -> Iterator[int]:
  """Yields the tiles without an answer in the order to ask for them.

  `random_order` holds the numbers of all tiles. `chances` are percent by tile, negative where a tile
  was not looked at yet; None without a classifier, which asks in the random order.
  """
  at_random = (n for n in random_order.tolist() if n not in answered)
  if chances is None:
    return at_random
  unsure = np.where(chances < 0, 1000, np.abs(chances - 50))
  order = (n for n in np.argsort(unsure, kind="stable").tolist() if n not in answered)
  return _interleaved(order, at_random)


def _interleaved(main: Iterator[int], other: Iterator[int]) -> Iterator[int]:
  """Yields numbers of `main`, every fourth of `other`, each one once."""
  seen: set[int] = set()
  for turn in itertools.count(1):
    source = other if turn % _RANDOM_TURN == 0 else main
    number = next((n for n in source if n not in seen), None)
    if number is None:
      return
    seen.add(number)
    yield number
