"""What lgag made in an output of labelling: only that is replaced, moved or removed.

A record names the files and folders. What it does not name belongs to the user.
"""

import os
import pathlib
import re
from collections.abc import Iterable

from lgag_jax.options.labelling import TABLE
from lgag_jax.runtime import files

RECORD = ".lgag_files.json"
DISPUTES = "disagreements.csv"
MAP_RECORD = "map.json"
MAP_FOLDERS = ("tiles", "run", "maps")
MAP_FILES = (MAP_RECORD, *MAP_FOLDERS, *(f"{name}.log" for name in MAP_FOLDERS))
_SHEET = re.compile(r".+_(?:overview|\d{3,})\.png", re.DOTALL)


class OwnFiles:
  """The names that lgag has made in an output folder."""

  def __init__(self, folder: pathlib.Path):
    """Reads the record, or begins one; raises ValueError if it is a link or damaged."""
    self._folder, self._path = folder, folder / RECORD
    for name in (RECORD, TABLE, DISPUTES):
      files.require_plain(folder / name)
    if self._path.exists():
      self._names = _read(self._path)
    else:
      self._names = set(_made_by_an_earlier_release(folder))
      self._write()

  def claim(self, names: Iterable[str]) -> None:
    """Records names that lgag is about to write, relative to the folder.

    Raises ValueError, before it records any, for a file of another origin and for a symbolic link.
    """
    names = list(names)
    for name in names:
      path = self._folder / name
      for part in (*reversed(path.relative_to(self._folder).parents[:-1]), pathlib.Path(name)):
        files.require_plain(self._folder / part)
      if name not in self._names and os.path.lexists(path):
        raise ValueError(
          f"{path} would be replaced, but --mode=label has not made it. Move it, or use another "
          "--output."
        )
    if not self._names.issuperset(names):
      self._names.update(names)
      self._write()

  def _write(self) -> None:
    files.write_json(self._path, {"written_by": "lgag --mode=label", "names": sorted(self._names)})


def _read(path: pathlib.Path) -> set[str]:
  content = files.read_json(path)
  names = content.get("names") if isinstance(content, dict) else None
  if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
    raise ValueError(f"{path} is damaged: it lacks names. Restore it, or use another --output.")
  return set(names)


def _made_by_an_earlier_release(folder: pathlib.Path) -> list[str]:
  """Returns what is recognised as lgag's in an output that has no record yet."""
  names = []
  if is_map_record(folder / MAP_RECORD):  # Written before all else of a map.
    names += [name for name in MAP_FILES if os.path.lexists(folder / name)]
  if (folder / TABLE).exists():
    pictures = (folder / "sheets").glob("*.png")
    names += [f"sheets/{path.name}" for path in pictures if _SHEET.fullmatch(path.name)]
  return names


def is_map_record(path: pathlib.Path) -> bool:
  """Returns whether a file is lgag's record of a map, which is no other program's map.json."""
  try:
    record = files.read_json(path)
  except (OSError, ValueError):
    return False
  return (
    isinstance(record, dict) and isinstance(record.get("answers"), str)
    and isinstance(record.get("done"), bool)
  )
