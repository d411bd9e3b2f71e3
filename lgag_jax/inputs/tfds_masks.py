"""Decides what the values of a TFDS set's masks mean, as `imagery.mask_values` does for mask files."""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from lgag_jax.config import DataConfig
from lgag_jax.imagery.reading import UNKNOWN, ImageError

_LOG = logging.getLogger(__name__)

_NONE = -1  # Of data.mask_ignore: no value means unknown.


def of_all_splits(
  builder: Any, config: DataConfig, decoders: dict[str, Any]
) -> Iterator[tuple[bool, np.ndarray]]:
  """Yields the masks of a builder, each with whether its image shows a class of `config`."""
  names = builder.info.features["label"].names
  wanted = {names.index(name) for name in config.classes}
  for split in builder.info.splits:
    for row in builder.as_data_source(split=split, decoders=decoders):
      yield not wanted.isdisjoint(np.atleast_1d(row["label"]).tolist()), np.asarray(row["mask"])


def is_unknown_code(masks: Iterable[tuple[bool, np.ndarray]], ignore: int) -> bool:
  """Returns whether 255 means unknown in the masks of one class; each comes with its image's label.

  It means landslide if masks of positive images hold 0 and 255, and no mask another value. `ignore`, a
  value that means unknown, does not count. Reads masks until one of them decides.
  """
  marked = False
  for positive, mask in masks:
    values = set(np.unique(mask[np.isfinite(mask)]).tolist()) - {ignore}
    if values - {0, UNKNOWN}:
      return True
    marked |= positive and values == {0, UNKNOWN}
  if marked:
    _LOG.info("The masks of the data set hold 0 and 255 only: 255 means landslide (data.mask_ignore).")
  return not marked


def as_classes(
  values: np.ndarray, name: str, *, classes: int, ignore: int, is_unknown: Callable[[], bool]
) -> np.ndarray:
  """Returns a mask [H, W] or [H, W, bands] as u8[H, W] of class indices and UNKNOWN.

  `ignore` is data.mask_ignore. `is_unknown` returns what `is_unknown_code` does. Values that are not
  finite are unknown. Raises ImageError naming the mask if a value is no class, or if its bands differ.
  """
  values = _only_band(values, name)
  unknown = (values == ignore) | ~np.isfinite(values)
  coded = values == UNKNOWN
  if coded.any():
    # As in masks of files, -1 says that every value but 0 means landslide.
    landslide = classes == 1 and ignore != UNKNOWN and (ignore == _NONE or not is_unknown())
    unknown |= coded & (not landslide)
    values = np.where(coded & landslide, 1, values)
  invalid = values[~unknown & ((values < 0) | (values > classes))]
  if invalid.size:
    raise ImageError(
      f"The mask of {name} holds class {invalid.flat[0]}, but data.classes has only {classes}. If the "
      "value means unknown, set data.mask_ignore to it."
    )
  if (between := values[~unknown & (values != np.rint(values))]).size:
    raise ImageError(
      f"The mask of {name} holds {between.flat[0]:g} between classes, as averages of classes are: let "
      "the builder resample masks by their nearest value."
    )
  return np.where(unknown, UNKNOWN, values).astype(np.uint8)


def _only_band(values: np.ndarray, name: str) -> np.ndarray:
  if values.ndim == 2:
    return values
  first = values[..., 0]
  for band in range(1, values.shape[-1]):
    if not np.array_equal(values[..., band], first, equal_nan=values.dtype.kind == "f"):
      raise ImageError(
        f"The mask of {name} has {values.shape[-1]} bands, and bands 1 and {band + 1} differ. Let the "
        "builder write one band of class numbers."
      )
  return first
