"""Tells whether the files of a source's examples still hold the bytes that they held."""

import hashlib
import pathlib
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from lgag_jax.geo import placement, scene_files
from lgag_jax.imagery import listing, opening, side_files

# The files of a source: its images, its masks, or the images before with what places both dates.
Kind = Literal["images", "masks", "before"]

# What earlier releases recorded of TFDS sets: the content of no files.
_NOTHING = hashlib.sha256().hexdigest()


def record(source, kind: Kind = "images") -> dict[str, str]:
  """Returns what `has_changed` compares: digests of the files' states and of their bytes.

  `source` is a `sources.Source`.
  """
  return {"state": _state(source, kind), "content": _content(source, kind)}


def has_changed(recorded: Any, source, kind: Kind = "images") -> bool:
  """Returns whether files hold other bytes than those of a record; False without one.

  Earlier releases wrote none. Files are only read if paths, sizes or times differ from the record's.
  """
  if recorded is None:
    return False
  if not isinstance(recorded, dict):
    return True
  if recorded.get("content") == _NOTHING or recorded.get("state") == _state(source, kind):
    return False
  return recorded.get("content") != _content(source, kind)


def has_before(source) -> bool:
  """Returns whether a source has images before in files of their own."""
  return next(_pairs(source), None) is not None


def parts(value: Any) -> Iterator[bytes]:
  """Yields what TFDS stores of a feature: encoded parts, or an array after its shape and type."""
  if isinstance(value, bytes):
    yield value
  elif isinstance(value, dict):
    for name in sorted(value):
      yield from parts(value[name])
  elif (array := np.asarray(value)).dtype == object:
    for part in array.ravel():
      yield from parts(part)
  else:
    yield f"{array.dtype} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes()


def _files(source, kind: Kind) -> Iterator[pathlib.Path]:
  """Yields the files of a source, each once; those of a TFDS set hold images and masks together."""
  pairs = (source.files(index) for index in range(len(source.ids)))
  yield from dict.fromkeys(path for pair in pairs if (path := pair[kind == "masks"]))
  yield from getattr(source, "shards", ())


def _pairs(source) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
  """Yields each image with the one before it, if that is a file of its own."""
  pairs = ((source.files(index)[0], source.before(index)) for index in range(len(source.ids)))
  yield from (pair for pair in dict.fromkeys(pairs) if None not in pair)


def _state(source, kind: Kind) -> str:
  digest = hashlib.sha256()
  if kind == "before":
    keys = (scene_files.key(path) for pair in _pairs(source) for path in pair)
  else:
    keys = map(listing.file_key, _files(source, kind))
  for key in keys:
    digest.update(key.encode(errors="surrogateescape") + b"\0")
  return digest.hexdigest()


def _content(source, kind: Kind) -> str:
  digest = hashlib.sha256()
  if kind == "before":
    for image, before in _pairs(source):
      places = placement.place_files(image), placement.place_files(before)
      for part in (*_with_side_files(before), *places[0], *places[1]):
        digest.update(_digest(part))
  else:
    stored = getattr(source, "stored", None)
    for path in () if stored else _files(source, kind):
      for part in _with_side_files(path):
        digest.update(_digest(part))
    for data in stored(kind) if stored else ():
      digest.update(hashlib.sha256(data).digest())
  return digest.hexdigest()


def _with_side_files(path: pathlib.Path) -> list[pathlib.Path]:
  return [path, *(file for s in (".msk", ".aux.xml") if (file := side_files.beside(path, s)))]


def _digest(path: pathlib.Path) -> bytes:
  try:
    opening.read_signature(path)  # Refuses pipes.
    with path.open("rb") as file:
      return hashlib.file_digest(file, "sha256").digest()
  except (OSError, opening.ImageError):  # Reading the image reports it.
    return b"unreadable"
