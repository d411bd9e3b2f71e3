"""Tells whether the files of a source's examples still hold the bytes that they held."""

import hashlib
import pathlib
from collections.abc import Iterator
from typing import Any

from lgag_jax.imagery import listing, opening, side_files

# What earlier releases recorded of TFDS sets: the content of no files.
_NOTHING = hashlib.sha256().hexdigest()


def record(source, *, masks: bool = False) -> dict[str, str]:
  """Returns what `has_changed` compares: digests of the files' states and of their bytes.

  `source` is a `sources.Source`; with `masks`, the files are those of its masks, otherwise its images.
  """
  return {"state": _state(source, masks), "content": _content(source, masks)}


def has_changed(recorded: Any, source, *, masks: bool = False) -> bool:
  """Returns whether files hold other bytes than those of a record; False without one.

  Earlier releases wrote none. Files are only read if paths, sizes or times differ from the record's.
  """
  if recorded is None:
    return False
  if not isinstance(recorded, dict):
    return True
  if recorded.get("content") == _NOTHING or recorded.get("state") == _state(source, masks):
    return False
  return recorded.get("content") != _content(source, masks)


def _files(source, masks: bool) -> Iterator[pathlib.Path]:
  """Yields the files of a source, each once; those of a TFDS set hold images and masks together."""
  pairs = (source.files(index) for index in range(len(source.ids)))
  yield from dict.fromkeys(path for pair in pairs if (path := pair[masks]))
  yield from getattr(source, "shards", ())


def _state(source, masks: bool) -> str:
  digest = hashlib.sha256()
  for path in _files(source, masks):
    digest.update(listing.file_key(path).encode(errors="surrogateescape") + b"\0")
  return digest.hexdigest()


def _content(source, masks: bool) -> str:
  digest = hashlib.sha256()
  for path in _files(source, masks):
    parts = [path, *(file for s in (".msk", ".aux.xml") if (file := side_files.beside(path, s)))]
    for part in parts:
      digest.update(_digest(part))
  return digest.hexdigest()


def _digest(path: pathlib.Path) -> bytes:
  try:
    opening.read_signature(path)  # Refuses pipes.
    with path.open("rb") as file:
      return hashlib.file_digest(file, "sha256").digest()
  except (OSError, opening.ImageError):  # Reading the image reports it.
    return b"unreadable"
