"""A session of labelling: the tiles, the answers and what the page shows of both."""

import dataclasses
import logging
import os
import pathlib
import threading

from lgag_jax.geo.scene import open_scene
from lgag_jax.geo.scene_ground import SceneGround
from lgag_jax.imagery import band_notes
from lgag_jax.labelling import tile_index
from lgag_jax.labelling.answers import Answers, Merged
from lgag_jax.labelling.learner import Learner
from lgag_jax.labelling.map_job import MapJob
from lgag_jax.labelling.map_layer import MapLayer
from lgag_jax.labelling.own_files import OwnFiles
from lgag_jax.labelling.pictures import Pictures
from lgag_jax.labelling.tile_index import TileIndex
from lgag_jax.labelling.web import OutdatedPageError
from lgag_jax.options.labelling import MAX_SIDE, Settings
from lgag_jax.options.tiling import UNKNOWN_LABEL
from lgag_jax.tiling import tile

_LOG = logging.getLogger(__name__)

SIDES = (64, 96, 128, 192, 256, 384, 512, 768, 1024)  # That the page offers.

OUTDATED = "The page shows tiles that the server no longer has: load it again."


@dataclasses.dataclass(frozen=True)
class View:
  """The tiles of one size and their pictures, which change together."""

  index: TileIndex
  pictures: Pictures
  before: Pictures | None  # Of the images before the event.
  learner: Learner | None


class Session:
  """Everything that the page shows and changes, for several threads."""

  def __init__(self, settings: Settings):
    """Lists the tiles and reads the answers; raises ValueError or OSError naming what is wrong."""
    self.settings = settings
    self.output = pathlib.Path(settings.output)
    probe = settings.tiling(settings.tile_size or 256)
    self._scenes = tile.find_scenes(probe)
    for path in (scene.path for scene in self._scenes):
      try:
        path.name.encode()
      except UnicodeEncodeError as error:
        raise ValueError(f"{path!s:.200} has a name that is not UTF-8: rename it.") from error
    self._channels = tile.channels_of(self._scenes[0].path, probe)
    if warning := tile.alpha_warning(self._scenes[0].path, probe):
      _LOG.warning("%s", warning)
    self._grids = tile_index.read_grids(
      self._scenes, self._channels, settings.bands, settings.max_shift)
    self.own_files = OwnFiles(self.output)  # Before the table, which tells outputs of earlier releases.
    self.answers = Answers(self.output, probe, {
      files.path.name: SceneGround(files.path, grid)
      for files, grid in zip(self._scenes, self._grids, strict=True)
    })
    self.merged = None
    if settings.merge:
      self.merged = self.answers.merge(pathlib.Path(settings.merge), UNKNOWN_LABEL)
    self._lock = threading.Lock()
    with open_scene(self._scenes[0].path, self._channels, bands=settings.bands) as scene:
      added = band_notes.added(scene.notes)
    self.map_job = MapJob(settings, self.answers, self.own_files, self._channels, added)
    self.map_layer = MapLayer(self.output / "maps")
    self.view = self._build(self._first_side())

  def _first_side(self) -> int:
    """Returns the side of the tiles: that of the answers, of the flag, or one that suits the scenes."""
    answered, asked = self.answers.tile_size, self.settings.tile_size
    if answered and asked not in (0, answered):
      raise ValueError(
        f"--tile_size={asked}: {self.answers.path} holds answers for tiles of {answered} pixels. Leave "
        "--tile_size out, or choose another --output."
      )
    return answered or asked or tile_index.default_side(self._grids)

  def _build(self, side: int) -> View:
    settings = self.settings
    index = tile_index.build(self._scenes, self._grids, self._channels, settings.tiling(side))
    of_index = index, self._channels, settings.bands, settings.rgb_bands, settings.max_shift
    pictures = Pictures(*of_index)
    learner = None
    if settings.learn:
      learner = Learner(index, pictures, self.answers, settings.background)
    return View(index, pictures, Pictures(*of_index, before=True) if settings.before else None, learner)

  def start(self) -> None:
    """Starts learning in the background, and goes on with the map of a killed server."""
    self.map_job.take_over()
    if self.view.learner:
      self.view.learner.start()

  def close(self) -> None:
    """Ends what runs in the background."""
    self.map_job.stop()
    self._close_view()
    self.answers.close()

  def _close_view(self) -> None:
    if self.view.learner:
      self.view.learner.stop()
    for pictures in (self.view.pictures, self.view.before):
      if pictures:
        pictures.close()

  def map_state(self) -> dict:
    """Returns how far the map is, and which scenes have one."""
    paths = self.map_layer.paths()
    mapped = [n for n, path in enumerate(self.view.index.paths) if os.path.abspath(path) in paths]
    return {**self.map_job.state(), "version": self.map_layer.version(), "scenes": mapped}

  def learned(self, revision: int) -> dict:
    """Returns what was learned since a revision that the page has."""
    learner = self.view.learner
    return learner.state(revision) if learner else {"revision": revision}

  def state(self) -> dict:
    """Returns all that the page needs when it opens."""
    index, settings = self.view.index, self.settings
    return {
      "version": index.version, "pictures": self.view.pictures.version,
      "tile_size": index.tile_size, "output": settings.output,
      "classes": list(settings.classes), "background": settings.background, "unsure": UNKNOWN_LABEL,
      "wanted": {**dict.fromkeys(settings.classes, settings.positives),
                 settings.background: settings.negatives},
      "sides": sorted({*SIDES, index.tile_size}),
      "scenes": [
        {"name": path.name, "width": grid.width, "height": grid.height, "gsd": grid.gsd(),
         "levels": self.view.pictures.levels(number)}
        for number, (path, grid) in enumerate(zip(index.paths, index.grids, strict=True))
      ],
      "learns": settings.learn, "paired": bool(settings.before),
      "tiles": [[scene, place.row, place.col] for scene, place in index.tiles],
      **self.answered(),
    }

  def answered(self) -> dict:
    """Returns the answers and the disputed tiles by the numbers of the tiles."""
    index, latest = self.view.index, self.answers.latest
    numbers = {index.key(number): number for number in range(len(index.tiles))}
    disputed = self.answers.disputed(UNKNOWN_LABEL)
    return {
      "answers": {numbers[key]: answer.label for key, answer in latest.items() if key in numbers},
      "disputed": [numbers[key] for key in disputed if key in numbers],
      "elsewhere": sum(key not in numbers for key in latest),
    }

  def answer(self, version: str, given: list[tuple[int, str]]) -> None:
    """Saves answers; raises ValueError for a tile or a label that does not exist."""
    with self._lock:
      index = self.view.index
      if version != index.version:
        raise OutdatedPageError(OUTDATED)
      known = ("", UNKNOWN_LABEL, self.settings.background, *self.settings.classes)
      for number, label in given:
        if not 0 <= number < len(index.tiles) or label not in known:
          raise ValueError(f"Tile {number} with the label {label[:50]!r} does not exist.")
      if given:
        self.answers.give([(index.key(number), label) for number, label in given], index.tile_size)
        if self.view.learner:
          self.view.learner.notice()

  def resize(self, side: int) -> None:
    """Cuts tiles of another size; raises ValueError once there are answers."""
    if not 8 <= side <= MAX_SIDE:
      raise ValueError(f"A tile of {side} pixels: use 8 to {MAX_SIDE}.")
    with self._lock:
      self.answers.clear()
      view = self._build(side)  # First: if it cannot be built, the page goes on with the earlier one.
      self._close_view()
      self.view = view
      self.start()

  def summary(self) -> str:
    """Returns how many answers there are, and how to train on them."""
    labels = [answer.label for answer in self.answers.latest.values()]
    names = (*self.settings.classes, self.settings.background, UNKNOWN_LABEL)
    counts = ", ".join(f"{labels.count(name)} {name}" for name in names)
    return f"{self.answers.path} holds {len(labels)} answers: {counts}."


def merged_text(merged: Merged) -> str:
  """Returns what a merge did, with the tiles on which people disagree."""
  lines = [
    f"{merged.path}: {merged.added} answers added, {merged.agreed} agree, "
    f"{len(merged.disputed)} disagree."
  ]
  lines += [
    f"  {scene}, row {row}, column {col}: {mine} here, {other} there. Answer it again."
    for (scene, row, col), mine, other in merged.disputed
  ]
  return "\n".join(lines)
