"""Finds the image before the event of each scene (--before), and opens a scene of one or two dates."""

import pathlib
from collections.abc import Sequence

from lgag_jax.geo.pair import Pair, open_pair
from lgag_jax.geo.scene import Scene, open_scene
from lgag_jax.imagery import listing


def before_files(
  scenes: Sequence[pathlib.Path], source: str
) -> dict[pathlib.Path, pathlib.Path | None]:
  """Returns the image before of each scene, None for all without a `source`.

  `source` is one file for all scenes, or a folder or a glob of files that have the scenes' names.
  Images before that lie among the scenes are no scenes. Raises FileNotFoundError or ValueError.
  """
  if not source:
    return dict.fromkeys(scenes)
  try:
    files = listing.scene_files(source)
  except FileNotFoundError as error:
    raise FileNotFoundError(str(error).replace("--input=", "--before=")) from None
  chosen = {path.resolve() for path in files}
  if pathlib.Path(source).is_file():
    pairs = {path: files[0] for path in scenes if path.resolve() not in chosen}
    if not pairs:
      raise ValueError(f"--before={source} is the scene itself: name the image before the event.")
    return dict(pairs)
  by_stem: dict[str, pathlib.Path] = {}
  for path in files:
    if (other := by_stem.setdefault(path.stem, path)) is not path:
      raise ValueError(
        f"{other} and {path} are both images before of {path.stem}: name one kind, such as "
        f"--before='{path.parent}/*{path.suffix}'."
      )
  pairs = {}
  for path in scenes:
    if path.resolve() in chosen:
      continue
    if path.stem not in by_stem:
      raise FileNotFoundError(
        f"--before={source} has no image named {path.stem} for {path}: add it, or name one file that "
        "covers all scenes."
      )
    pairs[path] = by_stem[path.stem]
  if not pairs:
    raise ValueError(f"--before={source} holds the scenes themselves: name images before the event.")
  return pairs


def open_dates(
  path: pathlib.Path, before: pathlib.Path | None, channels: int, *, bands: tuple[int, ...] = (),
  max_shift: float = 0.0,
) -> Scene | Pair:
  """Opens a scene, with its image before if there is one; raises ImageError naming the file."""
  if before is None:
    return open_scene(path, channels, bands=bands)
  return open_pair(path, before, channels, bands=bands, max_shift=max_shift)
