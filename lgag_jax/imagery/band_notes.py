"""What a file says of its bands: descriptions, colours, and the tags of bands that lgag has added."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lgag_jax.config import DataConfig
from lgag_jax.imagery import scaling
from lgag_jax.imagery.opening import ImageError
from lgag_jax.imagery.orientation import Raster

QUANTITY = "LGAG_QUANTITY"  # The tag of each band that --mode=bands has added.
FULL_SCALE = "LGAG_FULL_SCALE"  # The value that stands for the upper end of the band's range.
_OWN = "LGAG_"


@dataclasses.dataclass(frozen=True)
class BandNotes:
  """What is known of a band."""

  text: str = ""  # Its description.
  colour: str = ""  # As GDAL names it, such as red, gray or undefined.
  tags: Mapping[str, str] = dataclasses.field(default_factory=dict)  # Only lgag's own.

  @property
  def is_added(self) -> bool:
    """Whether lgag has added the band."""
    return QUANTITY in self.tags


def read(raster: Raster, bands: Sequence[int]) -> list[BandNotes]:
  """Returns what an open raster says of some bands, counted from 1."""
  return [
    BandNotes(raster.descriptions[band - 1] or "", raster.colorinterp[band - 1].name, {
      name: value for name, value in raster.tags(band).items() if name.startswith(_OWN)
    }) for band in bands
  ]


def write_added(raster: Any, notes: Sequence[BandNotes]) -> None:
  """Writes what is known of the bands that lgag has added to a raster that is open for writing."""
  for band, one in enumerate(notes, 1):
    if one.is_added:
      raster.set_band_description(band, one.text)
      raster.update_tags(band, **one.tags)


def added(notes: Sequence[BandNotes]) -> tuple[int, ...]:
  """Returns the numbers, from 1, of the bands that lgag has added."""
  return tuple(band for band, one in enumerate(notes, 1) if one.is_added)


def texts(notes: Sequence[BandNotes]) -> tuple[str, ...]:
  """Returns what each band holds that lgag has added, "" for others."""
  return tuple(one.text if one.is_added else "" for one in notes)


def check(path: pathlib.Path, notes: Sequence[BandNotes], expected: Sequence[str], whose: str) -> None:
  """Raises ImageError naming an image whose added bands are not those of `expected`, from `texts`.

  `whose` begins the sentence that says what is expected.
  """
  for band, (own, other) in enumerate(zip(texts(notes), expected, strict=False), 1):
    if own != other:
      raise ImageError(
        f"{path} has {own or 'a band of unknown meaning'!r} as band {band}, but {whose} "
        f"{other or 'another one'!r}. Add the same bands in the same order (--mode=bands), or choose "
        "with --bands."
      )


def check_full_scale(
  path: pathlib.Path, notes: Sequence[BandNotes], dtypes: Sequence[str], config: DataConfig
) -> None:
  """Raises ImageError naming an image whose added bands were written for another full scale.

  The network divides all bands by the same number, so that such a band would be almost 0 or above 1.
  `dtypes` are the bands' types.
  """
  for band, (own, dtype) in enumerate(zip(notes, dtypes, strict=True), 1):
    scale = f"{scaling.full_scale(np.dtype(dtype), config):g}"
    if config.normalise == "trunk" and (written := own.tags.get(FULL_SCALE, scale)) != scale:
      raise ImageError(
        f"{path} holds {own.text!r} as band {band}, but training divides its values by {scale}: run "
        f"--mode=bands again with --max_value={scale}, or train with data.max_value={written}."
      )
