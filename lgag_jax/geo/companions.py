"""Finds the files that are read with each scene, and opens the scene with them.

These are the image before the event (--before) and the cloud mask (--clouds).
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Protocol

from lgag_jax.geo import scene_files
from lgag_jax.geo.clouds import Cover, open_clouds
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.pair import Pair
from lgag_jax.geo.placement import grid_of
from lgag_jax.geo.scene import Scene, open_scene
from lgag_jax.imagery import listing, reading

_NOUNS = {"before": "image before the event", "clouds": "cloud mask"}


@dataclasses.dataclass(frozen=True)
class SceneFiles:
  """A scene and the files that are read with it."""

  path: pathlib.Path
  before: pathlib.Path | None = None
  clouds: pathlib.Path | None = None
  cloud_kind: str = "auto"

  def open(
    self, channels: int, *, bands: tuple[int, ...] = (), max_shift: float = 0.0
  ) -> Scene | Pair:
    """Opens the scene, in which pixels under clouds are missing; raises ImageError naming a bad file.

    A shift between the dates of up to `max_shift` pixels is corrected.
    """
    with contextlib.ExitStack() as stack:
      scene = stack.enter_context(open_scene(self.path, channels, bands=bands))
      if self.clouds:
        scene.hide(open_clouds(self.clouds, self.path, scene.grid, self.cloud_kind)[0])
      if self.before:
        before = stack.enter_context(open_scene(self.before, channels, bands=bands))
        scene = Pair(scene, before, max_shift, self.keys())
      stack.pop_all()
    return scene

  def cover(self, grid: Grid) -> Cover | None:
    """Returns how much clouds hide of the scene, whose grid is `grid`; None without a cloud mask."""
    if not self.clouds:
      return None
    clouds, cover = open_clouds(self.clouds, self.path, grid, self.cloud_kind)
    clouds.close()
    return cover

  def keys(self) -> tuple[str, ...]:
    """Returns what identifies the files, and changes when one of them does."""
    files = [scene_files.key(file) for file in (self.path, self.before, self.clouds) if file]
    return *files, *([self.cloud_kind] if self.clouds else [])


class Flags(Protocol):
  """The flags of a mode that name files."""

  @property
  def before(self) -> str: ...

  @property
  def clouds(self) -> str: ...

  @property
  def cloud_kind(self) -> str: ...


def find(scenes: Sequence[pathlib.Path], flags: Flags) -> list[SceneFiles]:
  """Returns the scenes with their files.

  A flag names one file for all scenes, or a folder or a glob of files that have the scenes' names. Such
  files that lie among the scenes are no scenes. Raises FileNotFoundError or ValueError.
  """
  sources = {flag: source for flag in _NOUNS if (source := getattr(flags, flag))}
  files = {flag: _files(flag, source) for flag, source in sources.items()}
  for flag, chosen in files.items():
    resolved = {path.resolve() for path in chosen}
    scenes = [path for path in scenes if path.resolve() not in resolved]
    if not scenes:
      held = "is the scene itself" if len(chosen) == 1 else "holds the scenes themselves"
      raise ValueError(f"--{flag}={sources[flag]} {held}: name the {_NOUNS[flag]} of each scene.")
  found = {
    flag: _by_scene(scenes, flag, sources[flag], chosen) for flag, chosen in files.items()
  }
  return [
    SceneFiles(path, cloud_kind=flags.cloud_kind, **{flag: found[flag][path] for flag in found})
    for path in scenes
  ]


def _files(flag: str, source: str) -> list[pathlib.Path]:
  try:
    return listing.scene_files(source)
  except FileNotFoundError as error:
    raise FileNotFoundError(str(error).replace("--input=", f"--{flag}=")) from None


def _check_one_ground(scenes: Sequence[pathlib.Path], flag: str, file: pathlib.Path) -> None:
  """Raises ValueError if one file would serve several scenes, and one of them has no place.

  One part of a larger picture may lie where pixels are counted from, but no second scene.
  """
  unplaced = 0
  for path in scenes if len(scenes) > 1 else ():
    with contextlib.suppress(reading.ImageError), reading.open_raster(path) as raster:
      grid = grid_of(raster, path)
      unplaced += not grid.placed
      if not grid.georeferenced or unplaced > 1:
        raise ValueError(
          f"--{flag}={file} is one file for {len(scenes)} scenes, but {path} has no place on the "
          f"ground, so its {_NOUNS[flag]} would be that of another scene. Name a folder of files with "
          "the scenes' names, or take the scenes in calls of their own."
        )


def _by_scene(
  scenes: Sequence[pathlib.Path], flag: str, source: str, files: list[pathlib.Path]
) -> dict[pathlib.Path, pathlib.Path]:
  """Returns the file of each scene; raises FileNotFoundError or ValueError naming what is wrong."""
  if pathlib.Path(source).is_file():
    _check_one_ground(scenes, flag, files[0])
    return dict.fromkeys(scenes, files[0])
  by_stem: dict[str, pathlib.Path] = {}
  for path in files:
    if (other := by_stem.setdefault(listing.stem_key(path), path)) is not path:
      raise ValueError(
        f"{other} and {path} both have the name {path.stem}: name one kind, such as "
        f"--{flag}='{path.parent}/*{path.suffix}'."
      )
  by_key: dict[str, pathlib.Path] = {}
  for path in scenes:
    key = listing.stem_key(path)
    if (other := by_key.setdefault(key, path)) is not path and key in by_stem:
      raise ValueError(
        f"{other} and {path} have one name, so {by_stem[key]} would be the {_NOUNS[flag]} of both: "
        f"take them in two calls, or name one file for --{flag} that covers all scenes."
      )
    if key not in by_stem:
      raise FileNotFoundError(
        f"--{flag}={source} has no image named {path.stem} for {path}: add it, or name one file that "
        "covers all scenes."
      )
  return {path: by_stem[listing.stem_key(path)] for path in scenes}
