"""Checks for pictures held twice: within a split, across splits, and with labels that disagree."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lgag_jax.config import Config
from lgag_jax.doctor import duplicates, image_checks, survey
from lgag_jax.doctor.findings import ERROR, NOTE, WARNING, Finding, are, finding, plural
from lgag_jax.doctor.survey import Example

# Of the pixels at one extreme: beyond, the outline of what is missing decides how alike two look.
_BLANK = 0.5
_KINDS = {"same": "pixel for pixel the same", "near": "nearly the same picture"}


class Leaks(NamedTuple):
  """Pairs of a training and a validation image that show the same."""

  count: int
  names: list[str]  # "<training image> and <validation image>, <how alike>", one a pair.


def leaks(config: Config) -> Leaks:
  """Reads the data and returns its pairs across training and validation that are (nearly) the same.

  Of several copies one stands for all. Images without contrast are not compared, mostly blank ones only
  pixel for pixel. Raises ValueError when a split cannot be opened, or when a file cannot be read
  and data.on_bad_image is not "skip": what is not read is not compared.
  """
  taken = survey.take(config.data)
  skip = config.data.on_bad_image == "skip"
  unread = [] if skip else [f"{name}: {why}" for name, why in taken.faults]
  if faults := [*taken.closed.values(), *unread]:
    raise ValueError(f"Data that cannot be read is not compared; first: {faults[0]}")
  examples = taken.examples
  names = [
    f"{examples[i].name} and {examples[k].name}, {_KINDS[kind]}"
    for kind, pairs in _pairs(examples).items() for i, k in _across(examples, pairs)
  ]
  return Leaks(len(names), names)


def check(examples: Sequence[Example]) -> list[Finding]:
  """Returns the findings about duplicates; images without any contrast are left out, all alike."""
  found = []
  for kind, pairs in _pairs(examples).items():
    found += _leaks(examples, pairs, kind) + _contradictions(examples, pairs, kind)
    found += _repeats(examples, pairs, kind)
  return found


def _pairs(examples: Sequence[Example]) -> dict[str, list[tuple[int, int]]]:
  """Returns the pairs of positions of either kind, the lower first."""
  shown = [i for i, e in enumerate(examples) if not image_checks.is_constant(e)]
  same = duplicates.exact_pairs([examples[i].digest for i in shown])
  # One of each exact group stands for it, so that no copy is told of twice.
  copies = set(same[:, 1].tolist())
  single = np.array([
    k for k, i in enumerate(shown) if k not in copies and examples[i].blank <= _BLANK
  ], np.int64)
  signatures = np.array([examples[shown[k]].signature for k in single]).reshape(
    -1, duplicates.LENGTH
  )
  near = single[duplicates.near_pairs(signatures)]
  return {
    kind: [(shown[i], shown[k]) for i, k in pairs.tolist()]
    for kind, pairs in (("same", same), ("near", near))
  }


def _across(
  examples: Sequence[Example], pairs: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
  return [p for p in pairs if examples[p[0]].split != examples[p[1]].split]


def _leaks(
  examples: Sequence[Example], pairs: Sequence[tuple[int, int]], kind: str
) -> list[Finding]:
  across = _across(examples, pairs)
  held_out = {i for p in across for i in p if examples[i].split == "validation"}
  return [finding(
    ERROR if kind == "same" else WARNING,
    f"{plural(len(held_out), 'validation image')} also in the training split, {_KINDS[kind]}: results "
    "will look better than they are.",
    "Remove one of each pair, or put both into one split" + (
      "." if kind == "same" else ", after a look at them."
    ), _names(examples, across), count=len(held_out), pictures=across,
  )] if across else []


def _contradictions(
  examples: Sequence[Example], pairs: Sequence[tuple[int, int]], kind: str
) -> list[Finding]:
  opposed = [p for p in pairs if examples[p[0]].label != examples[p[1]].label]
  return [finding(
    ERROR if kind == "same" else WARNING,
    f"{plural(len(opposed), 'pair')} of images {are(len(opposed))} {_KINDS[kind]}, "
    "but labelled differently.",
    "See which label is right, and remove the other image.", _names(examples, opposed),
    pictures=opposed,
  )] if opposed else []


def _repeats(
  examples: Sequence[Example], pairs: Sequence[tuple[int, int]], kind: str
) -> list[Finding]:
  """Copies within a split, of one label: they merely count for more than others."""
  alike = [
    p for p in pairs
    if examples[p[0]].split == examples[p[1]].split and examples[p[0]].label == examples[p[1]].label
  ]
  copies = {second for _, second in alike}
  return [finding(
    WARNING if kind == "same" else NOTE,
    f"{plural(len(copies), 'image')} repeat{'s' if len(copies) == 1 else ''} another of the same split "
    f"and label, {_KINDS[kind]}.",
    "Remove the copies: each counts as if it were another place.", _names(examples, alike),
    count=len(copies), pictures=alike,
  )] if alike else []


def _names(examples: Sequence[Example], pairs: Sequence[tuple[int, int]]) -> list[str]:
  return [f"{examples[i].name} and {examples[k].name}" for i, k in pairs]
