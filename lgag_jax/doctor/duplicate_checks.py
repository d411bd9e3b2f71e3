"""Checks for pictures held twice: within a split, across splits, and with labels that disagree."""

from collections.abc import Sequence

import numpy as np

from lgag_jax.doctor import duplicates, image_checks
from lgag_jax.doctor.findings import ERROR, NOTE, WARNING, Finding, are, finding, plural
from lgag_jax.doctor.survey import Example

# Of the pixels at one extreme: beyond, the outline of what is missing decides how alike two look.
_BLANK = 0.5
_KINDS = {"same": "pixel for pixel the same", "near": "nearly the same picture"}


def check(examples: Sequence[Example]) -> list[Finding]:
  """Returns the findings about duplicates; images without any contrast are left out, all alike."""
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
  found = []
  for kind, pairs in (("same", same), ("near", near)):
    pairs = [(shown[i], shown[k]) for i, k in pairs.tolist()]
    found += _leaks(examples, pairs, kind) + _contradictions(examples, pairs, kind)
    found += _repeats(examples, pairs, kind)
  return found


def _leaks(
  examples: Sequence[Example], pairs: Sequence[tuple[int, int]], kind: str
) -> list[Finding]:
  across = [p for p in pairs if examples[p[0]].split != examples[p[1]].split]
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
