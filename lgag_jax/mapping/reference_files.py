"""Finds the reference of each scene, a file of its name or one for all."""

import logging
import pathlib
from collections.abc import Sequence

from lgag_jax.geo import layer_formats
from lgag_jax.geo.reference import check_format
from lgag_jax.imagery import listing, opening

_LOG = logging.getLogger(__name__)


def find(scenes: Sequence[pathlib.Path], labels: str) -> dict[pathlib.Path, pathlib.Path]:
  """Returns each scene's reference, `labels` or the file of its name; ValueError for none or two."""
  path = pathlib.Path(labels)
  check_format(path)
  scene_paths = {scene.absolute() for scene in scenes}
  if path.is_file():
    others = [scene for scene in scenes if scene.absolute() != path.absolute()]
    if len(others) > 1 and path.suffix.lower() not in layer_formats.SUFFIXES:
      raise ValueError(
        f"--labels={labels} is one mask for {len(others)} scenes: name a folder or a glob of masks "
        f"that have the scenes' names, such as {others[0].stem}{path.suffix}."
      )
    if not others:
      raise ValueError(f"--labels={labels} is the scene itself: name its reference.")
    return dict.fromkeys(others, path)
  paths = path.iterdir() if path.is_dir() else listing.matches(labels)
  suffixes = (*layer_formats.SUFFIXES, *opening.SUFFIXES)
  by_stem: dict[str, list[pathlib.Path]] = {}
  of_other_formats = []
  for file in sorted(paths):
    if layer_formats.is_other(file):
      of_other_formats.append(file)
    if file.suffix.lower() in suffixes and file.absolute() not in scene_paths:
      by_stem.setdefault(listing.stem_key(file), []).append(file)
  for stem in set(map(listing.stem_key, scenes)):
    if len(candidates := by_stem.get(stem, [])) > 1:
      raise ValueError(
        f"{candidates[0]} and {candidates[1]} are both references of {stem}: name one kind, such as "
        f"--labels='{candidates[0].parent}/*{candidates[0].suffix}'."
      )
  references = {
    scene: by_stem[stem][0] for scene in scenes if (stem := listing.stem_key(scene)) in by_stem}
  listing.check_own_files(  # A layer counts as free of landslides where it does not reach.
    references.items(), "reference", "Or name one layer that covers both: --labels=inventory.gpkg.")
  missing = {listing.stem_key(scene) for scene in scenes if scene not in references}
  for file in of_other_formats:
    if listing.stem_key(file) in missing:
      layer_formats.check(file)
  unused = [by_stem[stem][0] for stem in by_stem.keys() - set(map(listing.stem_key, scenes))]
  if references and unused:
    _LOG.warning("%d files of --labels=%s have the name of no scene, such as %s.", len(unused), labels,
                 min(unused).name)
  if not references:
    raise ValueError(
      f"--labels={labels} has no file with a scene's name: for {scenes[0].name} it would be "
      f"{scenes[0].stem}.gpkg, .shp, .geojson, .tif or .png."
      f"{f' It holds {_few(unused)}.' if unused else ''}"
    )
  return references


def _few(paths: Sequence[pathlib.Path]) -> str:
  return ", ".join([path.name for path in sorted(paths)[:3]] + ["..."] * (len(paths) > 3))
