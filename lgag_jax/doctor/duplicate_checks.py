"""Checks for duplicate images: within a split, across splits, and with different labels."""

from collections.abc import Sequence

import numpy as np

from lgag_jax.doctor import duplicates, image_checks
from lgag_jax.doctor.findings import ERROR, NOTE, WARNING, Finding, are, finding, plural
from lgag_jax.doctor.survey import Example

# Fraction of pixels at one extreme value. Beyond it, the outline of the blank area decides how similar
# two images are.
_MAX_BLANK = 0.5
KINDS = {"same": "pixel for pixel the same", "near": "nearly the same image"}


def check(examples: Sequence[Example]) -> list[Finding]:
  """Returns the findings about duplicates; ignores images without contrast, which all look the same."""
  findings = []
  for kind, pairs in find_pairs(examples).items():
    findings += _leaks(examples, pairs, kind) + _contradictions(examples, pairs, kind)
    findings += _repeats(examples, pairs, kind)
  return findings


def find_pairs(examples: Sequence[Example]) -> dict[str, list[tuple[int, int]]]:
  """Returns the pairs of each kind as positions in `examples`, the lower one first."""
  compared = [i for i, e in enumerate(examples) if not image_checks.is_constant(e)]
  same = duplicates.exact_pairs([examples[i].digest for i in compared])
  # One image of each exact group stands for the group, so that no copy is reported twice.
  copies = set(same[:, 1].tolist())
  single = np.array([
    k for k, i in enumerate(compared) if k not in copies and examples[i].blank <= _MAX_BLANK
  ], np.int64)
  signatures = np.array([examples[compared[k]].signature for k in single]).reshape(
    -1, duplicates.LENGTH
  )
  near = single[duplicates.near_pairs(signatures)]
  return {
    kind: [(compared[i], compared[k]) for i, k in pairs.tolist()]
    for kind, pairs in (("same", same), ("near", near))
  }


def across_splits(
  examples: Sequence[Example], pairs: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
  """Returns the pairs of a training image and a validation image."""
  return [p for p in pairs if examples[p[0]].split != examples[p[1]].split]


def _leaks(examples: Sequence[Example], pairs: Sequence[tuple[int, int]], kind: str) -> list[Finding]:
  across = across_splits(examples, pairs)
  held_out = {i for p in across for i in p if examples[i].split == "validation"}
  return [finding(
    ERROR if kind == "same" else WARNING,
    f"{plural(len(held_out), 'validation image')} {are(len(held_out))} also in the training split, "
    f"{KINDS[kind]}: results will look better than they are.",
    ("" if kind == "same" else "Look at each pair. ") +
    "Remove one image of the pair, or put both into one split.",
    _names(examples, across), count=len(held_out), pictures=across,
  )] if across else []


def _contradictions(
  examples: Sequence[Example], pairs: Sequence[tuple[int, int]], kind: str
) -> list[Finding]:
  opposed = [p for p in pairs if examples[p[0]].label != examples[p[1]].label]
  return [finding(
    ERROR if kind == "same" else WARNING,
    f"{plural(len(opposed), 'pair')} of images {are(len(opposed))} {KINDS[kind]}, "
    "but with different labels.",
    "Check which label is right, and remove the other image.", _names(examples, opposed),
    pictures=opposed,
  )] if opposed else []


def _repeats(examples: Sequence[Example], pairs: Sequence[tuple[int, int]], kind: str) -> list[Finding]:
  """Returns a finding for copies in one split with one label, which only count more than once."""
  repeats = [
    p for p in pairs
    if examples[p[0]].split == examples[p[1]].split and examples[p[0]].label == examples[p[1]].label
  ]
  copies = {second for _, second in repeats}
  return [finding(
    WARNING if kind == "same" else NOTE,
    f"{plural(len(copies), 'image')} repeat{'s' if len(copies) == 1 else ''} another of the same split "
    f"and label, {KINDS[kind]}.",
    "Remove the copies: each counts as if it showed another place.", _names(examples, repeats),
    count=len(copies), pictures=repeats,
  )] if repeats else []


def _names(examples: Sequence[Example], pairs: Sequence[tuple[int, int]]) -> list[str]:
  return [f"{examples[i].name} and {examples[k].name}" for i, k in pairs]
