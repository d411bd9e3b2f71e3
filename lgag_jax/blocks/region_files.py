"""The regions of a block's map on disk, and which pixels lie along its sides."""

import dataclasses
import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely

from lgag_jax.blocks.block_arrays import Sides
from lgag_jax.mapping.rasters import NO_DATA
from lgag_jax.mapping.regions import Regions
from lgag_jax.runtime import array_files, files

SIDES = ("top", "bottom", "left", "right")
_COLUMNS = ("class_index", "pixels", "known", "mean", "maximum", "touches_missing")
_ARRAYS = {
  *_COLUMNS, *SIDES, *(f"beyond_{name}" for name in SIDES), "ends", "side", "outlines",
}
_MAX_BYTES = 1 << 30  # A block has at most 16384 pixels on a side; a vertex takes 16 bytes.


@dataclasses.dataclass(frozen=True)
class BlockRegions:
  """The regions of a block, in its own pixels, and where data are missing at its sides."""

  regions: Regions
  missing: Sides  # Inside the block.
  missing_beyond: Sides  # Just outside, as far as that is known.


def write(
  path: pathlib.Path, groups: Sequence[Regions], mask: np.ndarray, missing_beyond: Sides
) -> None:
  """Writes the regions of a mask u8[side, side] atomically."""
  columns: dict[str, Any] = {
    name: np.concatenate([getattr(group, name) for group in groups] or [np.zeros(0)])
    for name in _COLUMNS
  }
  outlines = shapely.to_wkb(np.concatenate([group.outlines for group in groups] or [[]]))
  ends = np.cumsum([len(outline) for outline in outlines], dtype=np.int64)
  missing = mask == NO_DATA
  inside = Sides(missing[0], missing[-1], missing[:, 0], missing[:, -1])
  for name in SIDES:
    columns[name] = np.packbits(getattr(inside, name))
    columns[f"beyond_{name}"] = np.packbits(getattr(missing_beyond, name))
  with files.atomic_path(path) as partial:
    np.savez_compressed(
      partial, **columns, ends=ends, side=len(mask),
      outlines=np.frombuffer(b"".join(outlines), np.uint8),
    )


def read(path: pathlib.Path) -> BlockRegions:
  """Reads what `write` wrote; raises ValueError naming a damaged file."""
  try:
    arrays = array_files.read_arrays(path, _ARRAYS, _MAX_BYTES)
    content = arrays["outlines"].tobytes()
    starts = [0, *arrays["ends"].tolist()]
    outlines = np.empty(len(starts) - 1, object)
    outlines[:] = [content[start:end] for start, end in itertools.pairwise(starts)]
    columns = {name: arrays[name] for name in _COLUMNS}
    columns |= {name: columns[name].astype(np.int64) for name in ("class_index", "pixels", "known")}
    columns["touches_missing"] = columns["touches_missing"].astype(bool)
    side = int(arrays["side"])
    inside, beyond = (
      Sides(*(np.unpackbits(arrays[f"{prefix}{name}"], count=side).astype(bool) for name in SIDES))
      for prefix in ("", "beyond_")
    )
    return BlockRegions(Regions(**columns, outlines=shapely.from_wkb(outlines)), inside, beyond)
  except (LookupError, TypeError, ValueError, shapely.errors.ShapelyError) as error:
    reason = error.__cause__ or error  # `read_arrays` gives the remedy of another mode.
    raise ValueError(
      f"{path} is damaged: {reason!r:.200}. Delete it, and run the same command again."
    ) from error
