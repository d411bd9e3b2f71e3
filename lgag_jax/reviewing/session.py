"""A session of reviewing: the maps, the decisions on them and what the page shows of both."""

import dataclasses
import hashlib
import logging
import pathlib
import re
import threading
from typing import Any

import shapely

from lgag_jax.geo.scene_ground import SceneGround
from lgag_jax.labelling.web import OutdatedPageError
from lgag_jax.mapping import preview
from lgag_jax.options.reviewing import Settings
from lgag_jax.reviewing import maps, outlines, products
from lgag_jax.reviewing.decisions import CONTROL, Decision, DecisionLog, Mapped
from lgag_jax.reviewing.maps import SceneMap
from lgag_jax.reviewing.scene_pictures import ScenePictures
from lgag_jax.runtime import files
from lgag_jax.tiling import review_files
from lgag_jax.tiling.review_files import LANDSLIDES, MISSED, NOT_LANDSLIDE, REJECTED

_LOG = logging.getLogger(__name__)

FOLDER = "review"
_ON_MAPPED = ("", REJECTED, *LANDSLIDES)
_ON_DRAWN = ("", MISSED, NOT_LANDSLIDE)
_DRAWN = re.compile(r"drawn-[0-9a-f]{16}", re.ASCII)
_MAX_COMMENT = 1000  # Characters.
_PAUSE = 1.0  # Seconds that decisions are gathered for, before the GeoPackages are written.


@dataclasses.dataclass(frozen=True)
class SceneReview:
  """The map of a scene with the decisions on it."""

  map: SceneMap
  log: DecisionLog
  pictures: ScenePictures
  mapped: dict[str, Mapped]  # By the name of their feature.


class Session:
  """Everything that the page shows and changes, for several threads."""

  def __init__(self, settings: Settings):
    """Reads maps and decisions; raises ValueError or OSError naming what is wrong."""
    self.settings = settings
    self.folder = pathlib.Path(settings.input) / FOLDER
    self.scenes: list[SceneReview] = []
    files.require_plain(self.folder)
    scene_maps = maps.read(pathlib.Path(settings.input))
    self._inventories = products.inventory_names([scene_map.stem for scene_map in scene_maps])
    for scene_map in scene_maps:
      path = self.folder / f"{scene_map.stem}{review_files.LOG_SUFFIX}"
      log = DecisionLog(path, SceneGround(scene_map.scene, scene_map.grid))
      pictures = ScenePictures(scene_map, settings)
      polygons = {polygon.feature: polygon for polygon in scene_map.polygons}
      self.scenes.append(SceneReview(scene_map, log, pictures, polygons))
    keys = repr([(scene.map.stem, scene.map.key) for scene in self.scenes])
    self.version = hashlib.sha256(keys.encode()).hexdigest()[:16]
    self._changed: set[int] = set()
    self._lock, self._wake, self._ending = threading.Lock(), threading.Event(), threading.Event()
    self._preview_lock = threading.Lock()
    self._thread = threading.Thread(target=self._write_changes, daemon=True)
    self._changed |= set(range(len(self.scenes)))
    self.write()

  def start(self) -> None:
    """Starts to write GeoPackages in the background, a second after a decision."""
    self._thread.start()

  def close(self) -> None:
    """Writes what is not written yet; raises OSError naming a file that cannot be written."""
    self._ending.set()
    self._wake.set()
    if self._thread.is_alive():
      self._thread.join()
    self.write()

  def write(self) -> None:
    """Writes the GeoPackages of the scenes with new decisions, and keeps those that fail for later.

    Raises OSError naming the first file that cannot be written, after those of the other scenes.
    """
    with self._lock:
      changed, self._changed = self._changed, set()
    failed, problem = set(), None
    try:
      for number in sorted(changed):
        scene = self.scenes[number]
        try:
          products.write(scene.map, scene.log, self.folder, self._inventories[scene.map.stem])
        except OSError as error:  # Such as a file that a GIS has open.
          failed.add(number)
          problem = problem or error
      changed = failed
    finally:
      with self._lock:
        self._changed |= changed
    if problem:
      raise problem

  def _write_changes(self) -> None:
    while not self._ending.is_set():
      self._wake.wait()
      self._ending.wait(_PAUSE)
      self._wake.clear()
      try:
        self.write()
      except Exception as error:  # The log has the decisions. A later try may do.
        _LOG.warning("%s", error, exc_info=not isinstance(error, OSError))

  def state(self) -> dict[str, Any]:
    """Returns all that the page needs when it opens, except outlines of mapped polygons."""
    features, decisions = [], {}
    for number, scene in enumerate(self.scenes):
      latest, logged, _ = scene.log.state()
      pixel_area = abs(scene.map.grid.transform.determinant)
      for feature, mapped in scene.mapped.items():
        features.append(_shown(number, feature, mapped, "map", pixel_area))
      for feature, mapped in logged.items():
        if feature not in scene.mapped and feature in latest:
          features.append(_shown(number, feature, mapped, "earlier", pixel_area))
      for feature, decision in latest.items():
        shape = decision.geometry
        decisions[f"{number}/{feature}"] = {
          "decision": decision.decision, "class": decision.class_name, "comment": decision.comment,
          "outline": None if shape is None else outlines.to_page(shape, scene.map.grid),
        }
    return {
      "version": self.version, "folder": str(self.folder), "features": features,
      "decisions": decisions,
      "scenes": [self._shown_scene(scene) for scene in self.scenes],
    }

  def _shown_scene(self, scene: SceneReview) -> dict[str, Any]:
    made, grid, pictures = scene.map, scene.map.grid, scene.pictures
    return {
      "name": made.file, "width": grid.width, "height": grid.height, "gsd": grid.gsd(),
      "levels": pictures.levels, "pictures": pictures.version, "problem": pictures.problem,
      "classes": list(made.classes), "thresholds": list(made.thresholds), "gate": made.gate,
    }

  def outlines(self, number: int) -> dict[str, Any]:
    """Returns the outlines of the polygons of a scene, as they were mapped, by feature."""
    scene = self.scene(number)
    polygons = scene.log.state()[1] | scene.mapped
    return {
      feature: outlines.to_page(mapped.geometry, scene.map.grid) for feature, mapped in polygons.items()
    }

  def preview(self, number: int, thresholds: list[float], gate: float | None) -> dict[str, Any]:
    """Returns the outlines of a scene at other thresholds, and the command that maps with them.

    So for another gate, if one is given.
    """
    scene_map = self.scene(number).map
    if len(thresholds) != len(scene_map.classes) or not all(0 < level <= 1 for level in thresholds):
      raise ValueError("Send a threshold above 0 and at most 1 for each class.")
    if gate is not None and not 0 <= gate < 1:
      raise ValueError("Send a gate from 0 to below 1.")
    with self._preview_lock:  # One at a time: a slider asks often.
      moved = None if gate is None else scene_map.gate_at(gate)
      shown = preview.preview(scene_map.probability, thresholds, moved)
    return {
      "outlines": [
        [number, outlines.pixels_to_page(outline)] for number, outline in shown.outlines
      ],
      "share": shown.share, "left_out": shown.left_out,
      "windows": [moved.windows.count_open(moved.value), len(moved.windows.places)] if moved else None,
      "command": scene_map.command(thresholds, gate),
    }

  def scene(self, number: int) -> SceneReview:
    """Returns a scene; raises ValueError if there is none of this number."""
    if not 0 <= number < len(self.scenes):
      raise ValueError(f"There is no scene {number}.")
    return self.scenes[number]

  def decide(self, version: str, given: list[tuple[str, dict[str, Any]]]) -> None:
    """Saves decisions, which are on disk when it returns; raises ValueError for an impossible one."""
    if version != self.version:
      raise OutdatedPageError("The page shows maps that the server no longer has: load it again.")
    by_scene: dict[int, list[tuple[Decision, Mapped | None]]] = {}
    for key, value in given:
      number, _, feature = key.partition("/")
      if not (number.isascii() and number.isdigit() and len(number) < 8):
        raise ValueError(f"There is no feature {key[:50]!r}.")
      scene = self.scene(int(number))
      by_scene.setdefault(int(number), []).append(_decision(scene, feature, value))
    for number, decisions in by_scene.items():
      self.scenes[number].log.give(decisions)
      with self._lock:
        self._changed.add(number)
    self._wake.set()

  def cut(self, number: int, outline: Any, area: Any) -> dict[str, Any]:
    """Returns an outline without an area; raises ValueError if nothing is left."""
    grid = self.scene(number).map.grid
    rest = outlines.cut(outlines.from_page(outline, grid), outlines.from_page(area, grid))
    return {"outline": outlines.pixels_to_page(rest)}

  def summary(self) -> str:
    """Returns how many decisions there are."""
    decisions = [d.decision for scene in self.scenes for d in scene.log.state()[0].values()]
    polygons = sum(len(scene.mapped) for scene in self.scenes)
    names = (*LANDSLIDES, REJECTED, MISSED, NOT_LANDSLIDE)
    counts = ", ".join(f"{decisions.count(name)} {name.replace('_', ' ')}" for name in names)
    return f"{polygons} mapped polygons. Decisions in {self.folder}: {counts}."


def _shown(number: int, feature: str, mapped: Mapped, origin: str, pixel_area: float) -> dict[str, Any]:
  return {
    "key": f"{number}/{feature}", "scene": number, "number": mapped.number, "origin": origin,
    "class": mapped.class_name, "probability": mapped.mean_probability, "area": mapped.area_m2,
    "pixels": round(float(shapely.area(mapped.geometry)) / pixel_area, 1),
  }


def _decision(
  scene: SceneReview, feature: str, value: dict[str, Any]
) -> tuple[Decision, Mapped | None]:
  """Returns a decision that the page sent; raises ValueError if it is not possible."""
  mapped = scene.mapped.get(feature) or scene.log.state()[1].get(feature)
  if mapped is None and not _DRAWN.fullmatch(feature):
    raise ValueError(f"There is no feature {feature[:50]!r}.")
  decision, class_name, comment = (value.get(name) for name in ("decision", "class", "comment"))
  outline, possible = value.get("outline"), _ON_DRAWN if mapped is None else _ON_MAPPED
  if not isinstance(decision, str) or decision not in possible:
    raise ValueError(f"There is no decision {str(decision)[:50]!r} on this feature.")
  if not isinstance(comment, str) or len(comment) > _MAX_COMMENT:
    raise ValueError(f"A comment has up to {_MAX_COMMENT} characters.")
  if CONTROL.search(comment):
    raise ValueError("A comment cannot hold control characters: remove them.")
  known = (*scene.map.classes, *([mapped.class_name] if mapped else []))
  if decision == NOT_LANDSLIDE:
    class_name = NOT_LANDSLIDE
  elif decision and class_name not in known:
    raise ValueError(f"There is no class {str(class_name)[:50]!r}.")
  needs_outline = decision in ("redrawn", MISSED, NOT_LANDSLIDE)
  if needs_outline != (outline is not None):
    raise ValueError("Send an outline with what was drawn or redrawn, and only with that.")
  shape = None
  if needs_outline:
    shape = outlines.to_scene(outlines.from_page(outline, scene.map.grid), scene.map.grid)
  clean = "" if mapped is None and not decision else comment.encode(errors="replace").decode()
  return Decision(feature, decision, str(class_name) if decision else "", clean, shape), mapped
