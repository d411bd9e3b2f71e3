"""Finds parts of images that are listed twice, or that two splits share."""

import collections
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely

# Image, mask or None, and the part to use: row_start, row_stop, col_start, col_stop, or () for all.
Row = tuple[pathlib.Path, pathlib.Path | None, tuple]
_ALL = (0, 1 << 31, 0, 1 << 31)
_INSET = 0.25  # Pixels. Parts that touch share none.
_AT_ONCE = 1 << 10


def check(
  manifest: pathlib.Path, numbers: Sequence[int], rows: Sequence[Row], names: Sequence[str]
) -> None:
  """Raises ValueError naming two rows of a manifest that show the same ground.

  They do if they are equal, or if parts of an image overlap and belong to different splits. `numbers`
  are the rows in the file, `names` their splits.
  """
  seen: dict[tuple, int] = {}
  images: dict[pathlib.Path, list[int]] = collections.defaultdict(list)
  for index, (image, _, region) in enumerate(rows):
    images[image].append(index)
    if (other := seen.setdefault((image, region, names[index]), index)) != index:
      raise ValueError(
        f"{manifest}, row {numbers[index]} repeats row {numbers[other]}: remove one of them."
      )
  for image, members in images.items():
    if len({names[index] for index in members}) > 1 and (pair := _overlap(members, rows, names)):
      first, second = sorted(pair)
      raise ValueError(
        f"{manifest}, row {numbers[second]} puts a part of {image.name} into {names[second]} that row "
        f"{numbers[first]} puts into {names[first]}: parts of different splits must not overlap."
      )


def between(train: Any, validation: Any) -> str:
  """Returns which part of an image in one split overlaps another part in the other split, else "".

  The arguments are sources; those without tiles share no parts. Equal parts do not count.
  """
  if not (hasattr(train, "tile") and hasattr(validation, "tile")):
    return ""
  parts = {"train": _parts(train), "validation": _parts(validation)}
  shared = parts["train"].keys() & parts["validation"].keys()
  rows, names = [], []
  members: dict[pathlib.Path, list[int]] = collections.defaultdict(list)
  for split, own in parts.items():
    for image, region in own:
      if (image, region) not in shared:
        members[image].append(len(rows))
        rows.append((image, None, region))
        names.append(split)
  for image, indices in members.items():
    if len({names[index] for index in indices}) > 1 and (pair := _overlap(indices, rows, names)):
      first, second = (rows[index][2] for index in sorted(pair))
      return (
        f"the part {list(first)} of {image}, a training example, overlaps the part {list(second)}, a "
        "validation example (row_start, row_stop, col_start, col_stop)"
      )
  return ""


def _parts(source: Any) -> dict[tuple, None]:
  tiles = (source.tile(index) for index in range(len(source.ids)))
  return dict.fromkeys(
    (image, (t.row + t.overlap_rows, t.row + t.height, t.col + t.overlap_cols, t.col + t.width))
    for image, _, t in tiles
  )


def _overlap(
  members: list[int], rows: Sequence[Row], names: Sequence[str]
) -> tuple[int, int] | None:
  """Returns two rows of one image and of different splits that overlap; None if there are none."""
  parts = np.array([rows[index][2] or _ALL for index in members], np.float64)
  top, bottom, left, right = parts.T
  boxes = shapely.box(left + _INSET, top + _INSET, right - _INSET, bottom - _INSET)
  splits = np.array([names[index] for index in members])
  for split in np.unique(splits)[1:]:  # Each pair is found from one of its sides.
    own, others = np.flatnonzero(splits == split), np.flatnonzero(splits < split)
    tree = shapely.STRtree(boxes[others])
    for start in range(0, len(own), _AT_ONCE):
      hits = tree.query(boxes[own[start : start + _AT_ONCE]], predicate="intersects")
      if hits.size:
        return members[own[start + hits[0, 0]]], members[others[hits[1, 0]]]
  return None
