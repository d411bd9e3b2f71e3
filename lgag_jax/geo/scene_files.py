"""Identifies a scene by all files that it is made of: its own, its place's, and its mosaic's parts."""

import contextlib
import hashlib
import pathlib

from lgag_jax.geo import placement, vrt
from lgag_jax.imagery import listing, opening
from lgag_jax.imagery.opening import ImageError


def key(path: pathlib.Path) -> str:
  """Returns a string that changes when a scene, a file that places it or a part of it changes.

  It is `listing.file_key` for a scene of one file.
  """
  text = listing.file_key(path)
  with contextlib.suppress(OSError, ImageError):  # Opening the scene reports them.
    for file in placement.place_files(path):
      opening.read_signature(file)  # Refuses pipes.
      text += f" {file.suffix} {_digest(file)}"
    if parts := vrt.part_files(path):
      states = "\0".join(map(listing.file_key, parts))
      text += f" parts {hashlib.sha256(states.encode(errors='surrogateescape')).hexdigest()}"
  return text


def _digest(path: pathlib.Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()
