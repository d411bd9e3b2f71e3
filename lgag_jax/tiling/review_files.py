"""The files of a review (--mode=review): a GeoPackage per scene.

Its layer `review` holds each polygon of the map with the decision on it, and what was drawn; its layer
`originals` holds the outlines as they were mapped.
"""

import dataclasses
import json
import os
import pathlib
import re

import pyogrio

from lgag_jax.geo import crs_relation, drawn_shapes, layer_fields, layer_files, layer_formats
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.scene_ground import SceneGround
from lgag_jax.imagery import listing, map_products, plain_crs
from lgag_jax.options.tiling import Settings
from lgag_jax.runtime import files

LAYER, ORIGINALS = "review", "originals"
NOT_LANDSLIDE = layer_fields.NOT_LANDSLIDE  # A decision, and the class of what has it.
LANDSLIDES = ("accepted", "redrawn")  # Decisions on mapped polygons.
REJECTED, MISSED = "rejected", "missed"
COLUMNS = ("feature", "number", "decision", "class")
LOG_SUFFIX = ".jsonl"
_NOTE = "lgag_review"
_DIGESTS = re.compile(r"(_[0-9a-f]{16})+$")  # In the names of maps (`mapping.map_names`).
_LEAST_CUT = 150  # Bytes of a name that was cut.


@dataclasses.dataclass(frozen=True)
class ReviewFile:
  """What a review's GeoPackage says of itself."""

  path: pathlib.Path
  scene: str  # The scene's file name.
  source: str  # Its absolute path when it was mapped.
  size: tuple[int, int]  # Rows and columns.
  log_bytes: int  # The length of the log that it was written from.
  digest: str  # Of its features as they were written.
  scene_grid: str  # Of the scene that was mapped (`SceneGround.text`); "" in earlier releases.
  crs: str  # In WKT; "" for none, or in earlier releases.


def describe(path: pathlib.Path) -> ReviewFile | None:
  """Returns what a GeoPackage says of itself; None if it is no review, or cannot be read."""
  try:
    return _read(path)
  except ValueError:
    return None


def _read(path: pathlib.Path) -> ReviewFile | None:
  """Returns what a GeoPackage says of itself; None without a review, ValueError if it is damaged."""
  try:
    layer_files.check_geopackage(path)
    if LAYER not in (name for name, _ in pyogrio.list_layers(path)):
      return None
    info = pyogrio.read_info(path, layer=LAYER)
    notes, missing = info["layer_metadata"] or {}, set(COLUMNS) - set(info["fields"])
    if missing and _NOTE not in notes:
      return None
    if missing:
      raise ValueError(f"its layer {LAYER} lacks the field {min(missing)}")
    if _NOTE not in notes:
      raise ValueError(f"its layer {LAYER} lacks the note that --mode=review wrote")
    note = json.loads(notes[_NOTE])
    crs = str(note.get("crs") or "")
    return ReviewFile(
      path, str(note["scene"]), str(note["source"]), (int(note["height"]), int(note["width"])),
      int(note["log_bytes"]), str(note["digest"]), str(note.get("scene_grid") or ""),
      plain_crs.parse(crs).to_wkt() if crs else "",
    )
  except (RuntimeError, LookupError, TypeError, ArithmeticError) as error:  # pyogrio's is the first.
    raise ValueError(f"{type(error).__name__}: {error}") from error


def find(labels: pathlib.Path, flag: str = "labels") -> list[ReviewFile]:
  """Returns the reviews in a folder or a file, which `--flag` names; [] if the file is none.

  Raises ValueError for a folder without any.
  """
  if not labels.is_dir():
    is_package = labels.suffix.lower() == ".gpkg" and labels.is_file()
    return [review] if is_package and (review := describe(labels)) else []
  reviews = [review for path in sorted(labels.glob("*.gpkg")) if (review := describe(path))]
  if not reviews:
    layer_formats.check(labels)  # A file geodatabase is a folder.
    raise ValueError(
      f"--{flag}={labels} is a folder without a review: name the folder that --mode=review wrote, or a "
      "file."
    )
  return reviews


def check_scenes(scenes: list[pathlib.Path], settings: Settings) -> None:
  """Raises ValueError or FileNotFoundError if --labels or --review are of none of the scenes."""
  labels = pathlib.Path(settings.labels)
  if labels.is_dir() or labels.suffix.lower() == ".gpkg":
    check(labels, scenes, "labels")
  if settings.review:
    check(pathlib.Path(settings.review), scenes, "review")


def check(labels: pathlib.Path, scenes: list[pathlib.Path], flag: str) -> None:
  """Raises ValueError or FileNotFoundError if `labels`, which `--flag` names, are of no scene."""
  if not labels.exists():
    raise FileNotFoundError(f"--{flag}={labels}: no such file.")
  for scene in scenes:
    require_readable(labels, scene)
  reviews = find(labels, flag)
  if flag == "review" and not reviews and not drawn_shapes.with_decisions(labels):
    raise ValueError(
      f"--review={labels} is no review: name the folder that --mode=review wrote, or a layer of shapes "
      "with a field decision."
    )
  names = {listing.name_key(scene.name) for scene in scenes}
  if reviews and not any(listing.name_key(review.scene) in names for review in reviews):
    raise ValueError(
      f"--{flag}={labels} holds reviews of {', '.join(r.scene for r in reviews[:5])}, which "
      "--input does not name: name the scenes that were mapped."
    )


def require_readable(labels: pathlib.Path, scene: pathlib.Path) -> None:
  """Raises ValueError naming a review of a scene, in a folder of reviews, that cannot be read.

  A review that cannot be read does not say of which scene it is, but its name does.
  """
  places = labels.iterdir() if labels.is_dir() else ()
  packages = {
    place.with_suffix(".gpkg") for place in places
    if place.suffix in (".gpkg", LOG_SUFFIX) and may_be_of(place.stem, scene)
  }
  for path in sorted(packages):
    log, remedy = path.with_suffix(LOG_SUFFIX), "restore it, or remove it if it holds no review"
    has_decisions = os.path.lexists(log) and not (log.is_file() and not log.stat().st_size)
    if has_decisions:
      remedy = f"run --mode=review once more, which writes it anew from {log.name}"
    try:
      is_missing = not os.path.lexists(path)
      if (is_missing or not _read(path)) and has_decisions:
        raise ValueError("it is missing" if is_missing else "it holds no review")
    except ValueError as error:
      raise ValueError(
        f"{path} cannot be read as the review of {scene.name} ({error}): {remedy}."
      ) from error


def may_be_of(stem: str, scene: pathlib.Path) -> bool:
  """Returns whether a review's file may be of a scene: `stem` is its name, cut or with digests."""
  stem = listing.name_key(stem)
  name = listing.name_key(files.fitting_name(map_products.scene_name(scene), 1 << 16, ""))
  whole, core = (_DIGESTS.sub("", text) for text in (name, stem))
  is_cut = core != stem and len(os.fsencode(core)) > _LEAST_CUT
  return core == whole or (is_cut and whole.startswith(core))


def of_scene(reviews: list[ReviewFile], scene: pathlib.Path, grid: Grid) -> ReviewFile | None:
  """Returns the review of a scene, None if it has none; raises ValueError if it does not fit."""
  key = listing.name_key(scene.name)
  named = [review for review in reviews if listing.name_key(review.scene) == key]
  same = [review for review in named if review.source == str(scene.absolute())] or named
  if len(same) > 1:
    raise ValueError(
      f"{same[0].path} and {same[1].path} are both reviews of {scene.name}: name the one to use."
    )
  if not same:
    return None
  review, size = same[0], (grid.height, grid.width)
  if review.size != size:
    raise ValueError(
      f"{review.path} is a review of {review.size[0]} x {review.size[1]} pixels, but {scene} has "
      f"{size[0]} x {size[1]}: use the scene that was mapped."
    )
  _check_ground(review, SceneGround(scene, grid))
  log = review.path.with_suffix(LOG_SUFFIX)
  if log.exists() and log.stat().st_size != review.log_bytes:
    raise ValueError(
      f"{review.path} lacks the last decisions in {log.name}: end the review, or run --mode=review "
      "once more if it was killed."
    )
  return review


def _check_ground(review: ReviewFile, ground: SceneGround) -> None:
  """Raises ValueError if the outlines of a review do not lie in the scene as they lay in its map."""
  try:
    difference = ground.difference(review.scene_grid)
  except ValueError as error:
    raise ValueError(
      f"{review.path} is a review of the grid {review.scene_grid!r}, which is none: run --mode=review "
      "once more."
    ) from error
  if difference:
    raise ValueError(
      f"{review.path} is a review of another {ground.scene}: {difference}. Use the scene that was "
      "mapped, or map this one into another folder and review that map."
    )
  if not ground.fits_crs(review.crs):
    was, now = (crs_relation.full_name(crs) for crs in (review.crs, ground.grid.crs or ""))
    raise ValueError(
      f"{review.path} holds outlines in {was}, but {ground.scene} is in {now} now. "
      "Map the scene again into the same folder, and run --mode=review once more."
    )
