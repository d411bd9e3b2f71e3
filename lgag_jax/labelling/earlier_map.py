"""Sets an earlier map aside before a new one is made; what was decided on it counts for the new one.

A kill at any moment loses no decision: they are copied in whole before the map moves, and `recover`
puts the copy in its place.
"""

import contextlib
import pathlib
import shutil

from lgag_jax.labelling.own_files import MAP_FILES, MAP_FOLDERS, MAP_RECORD, OwnFiles
from lgag_jax.runtime import files, lock

MAPS, REVIEW = "maps", "review"
_FEATURES = "run/features"  # Computed again where needed.
_LOCKED = ("run", MAPS)  # Tiles are never written in place.


def require_free(folder: pathlib.Path) -> None:
  """Raises ValueError, before anything is done, if another process trains in run/ or reviews maps/."""
  for name in _LOCKED:
    path = folder / name / lock.FILE_NAME
    if path.exists():  # A folder of the user stays as it is.
      if (file := lock.try_acquire(path)) is None:
        raise ValueError(
          f"{path.parent} is in use by {lock.owner(path)}: end it first. A review (--mode=review) ends "
          "with Ctrl+C in its terminal."
        )
      file.close()


def prepare(folder: pathlib.Path, own: OwnFiles, digest: str) -> int:
  """Sets an earlier map aside unless it is of the same answers; returns the step to begin with.

  Raises ValueError, before it changes anything, for files of another origin, and if another process
  trains in run/ or reviews maps/.
  """
  own.claim(MAP_FILES)
  record = folder / MAP_RECORD
  earlier = {}
  with contextlib.suppress(OSError, ValueError):
    earlier = files.read_json(record)
  if not isinstance(earlier, dict) or earlier.get("answers") != digest:
    present = [name for name in MAP_FOLDERS if (folder / name).exists()]
    if present:
      _set_aside(folder, present)
  files.write_json(record, {"answers": digest, "done": False})
  return int((folder / "tiles" / "manifest.csv").exists())


def recover(folder: pathlib.Path) -> None:
  """Puts the decisions in their place if a server was killed while it set a map aside."""
  copy = _copy_place(folder)
  if copy.is_dir() and not copy.is_symlink():
    if (folder / MAPS).exists():  # The copy may not be whole.
      shutil.rmtree(copy)
    else:
      copy.rename(folder / MAPS)


def _set_aside(folder: pathlib.Path, present: list[str]) -> None:
  review = folder / MAPS / REVIEW
  recover(folder)
  copy = _copy_place(folder)
  for path in (folder / "earlier", review, copy):
    files.require_plain(path)
  with contextlib.ExitStack() as stack:
    for name in present:
      if name in _LOCKED:
        stack.enter_context(contextlib.closing(lock.acquire(folder / name, "output")))
    numbers = (int(p.name) for p in (folder / "earlier").glob("*") if p.name.isdecimal())
    place = folder / "earlier" / str(1 + max(numbers, default=0))
    place.mkdir(parents=True)
    if review.is_dir():
      shutil.copytree(review, copy / REVIEW, symlinks=True)
    files.write_json(folder / MAP_RECORD, {"answers": "", "done": False})  # Of no answers if killed.
    for name in present:
      (folder / name).rename(place / name)
    recover(folder)
    shutil.rmtree(place / _FEATURES, ignore_errors=True)


def _copy_place(folder: pathlib.Path) -> pathlib.Path:
  return folder / files.partial_name(folder / MAPS)
