"""Learns in the background from the answers so far, and says which tiles to ask for next."""

import dataclasses
import hashlib
import itertools
import logging
import pathlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from lgag_jax.evaluation import image_classifier
from lgag_jax.evaluation.image_classifier import Estimate
from lgag_jax.labelling import suggestions
from lgag_jax.labelling.answers import Answers
from lgag_jax.labelling.pictures import Pictures
from lgag_jax.labelling.tile_index import TileIndex
from lgag_jax.options.tiling import UNKNOWN_LABEL
from lgag_jax.runtime import files

if TYPE_CHECKING:
  from lgag_jax.labelling.features import TileFeatures

_LOG = logging.getLogger(__name__)

_SUGGESTIONS = 24
_SAMPLE = 4096  # Tiles whose features are measured to standardise all.
_CHUNK = 8192  # Tiles that are scored at once.
_PICTURE_SIDE = 256
_RELEARN = 256  # Tiles that are looked at between two fits without new answers.
_LEAST_FOR_ENOUGH = 12  # Tiles drawn at random, before the page says that enough is labelled.


@dataclasses.dataclass(frozen=True)
class Learned:
  """What the answers have taught so far."""

  revision: int = 0
  chances: np.ndarray | None = None  # i16[tiles]: percent, -1 where a tile was not looked at yet.
  suggested: tuple[int, ...] = ()
  estimate: Estimate | None = None


class Learner:
  """A thread that looks at all tiles once, and fits a classifier whenever there are new answers."""

  def __init__(self, index: TileIndex, pictures: Pictures, answers: Answers, background: str):
    self._index, self._pictures, self._answers = index, pictures, answers
    self._background = background
    self._numbers = {index.key(number): number for number in range(len(index.tiles))}
    self._changed, self._stopped = threading.Event(), threading.Event()
    seed = int.from_bytes(hashlib.sha256(index.version.encode()).digest()[:8])
    self._random_order = np.random.default_rng(seed).permutation(len(index.tiles))
    self._learned = Learned(suggested=tuple(self._suggestions({}, None)))
    self._looked_at, self._problem = 0, ""
    self._thread = threading.Thread(target=self._run, name="learner", daemon=True)

  def start(self) -> None:
    """Starts the thread."""
    self._thread.start()

  def stop(self) -> None:
    """Ends the thread, which finishes the batch that it computes."""
    self._stopped.set()
    self._changed.set()
    if self._thread.is_alive():
      self._thread.join(10)

  def notice(self) -> None:
    """Tells the thread that there are new answers."""
    self._changed.set()

  def state(self, revision: int) -> dict[str, Any]:
    """Returns what the page shows; without what it knows if it has this revision already."""
    learned = self._learned
    shown: dict[str, Any] = {
      "revision": learned.revision, "looked_at": self._looked_at, "problem": self._problem,
    }
    if learned.revision == revision:
      return shown
    estimate = learned.estimate
    return shown | {
      "suggested": list(learned.suggested),
      "chances": None if learned.chances is None else learned.chances.tolist(),
      "estimate": estimate and {
        "auc": estimate.auc, "error": estimate.error, "tiles": estimate.tiles,
        "enough": estimate.is_flat and estimate.tiles >= _LEAST_FOR_ENOUGH,
      },
    }

  def _run(self) -> None:
    try:
      self._look_and_learn()
    except Exception as error:  # The page must not end with its suggestions.
      _LOG.warning("No tiles are suggested any more: %s", error, exc_info=True)
      self._problem = str(error)

  def _look_and_learn(self) -> None:
    import jax

    from lgag_jax.labelling import features

    features.lower_priority()
    jax.config.update("jax_platforms", "cpu")  # Leaves the accelerator to the training.
    known_tiles = features.TileFeatures(self._features_path(), len(self._index.tiles))
    summary = features.make_summary(self._index.tile_size)
    self._changed.set()
    known = known_tiles.known()
    while not self._stopped.is_set():
      self._looked_at = int(known.sum())
      if self._changed.is_set():
        self._changed.clear()
        self._learn(known_tiles, known)
      batch = self._next_batch(known, features.BATCH)
      if not len(batch):
        self._changed.wait()
        continue
      pictures = [self._pictures.array(int(number), _PICTURE_SIDE) for number in batch]
      known_tiles.write(batch, summary(pictures))
      known[batch] = True
      looked_at = self._looked_at + len(batch)
      if (
        looked_at == len(known) or looked_at // _RELEARN != self._looked_at // _RELEARN
        or not self._labels().keys().isdisjoint(batch.tolist())
      ):
        self._changed.set()  # There is more to learn from, or to choose from.

  def _features_path(self) -> pathlib.Path:
    """Returns the file of the features; removes those of other tiles."""
    folder = self._answers.path.parent
    path = folder / f".features-{self._pictures.version}.npy"
    files.require_plain(path)
    for other in folder.glob(".features-*.npy"):
      if other != path:
        other.unlink(missing_ok=True)
    return path

  def _labels(self) -> dict[int, str]:
    """Returns the labels of the answered tiles by number, in the order of the answers."""
    latest, numbers = self._answers.latest, self._numbers
    return {numbers[key]: answer.label for key, answer in latest.items() if key in numbers}

  def _next_batch(self, known: np.ndarray, count: int) -> np.ndarray:
    """Returns the next tiles to look at: answered ones first, then in random order."""
    answered = [number for number in self._labels() if not known[number]]
    rest = self._random_order[~known[self._random_order]][:count].tolist()
    return np.array([*dict.fromkeys([*answered, *rest])][:count], int)

  def _learn(self, features: "TileFeatures", known: np.ndarray) -> None:
    labels = self._labels()
    numbers = np.array([n for n, label in labels.items() if label != UNKNOWN_LABEL and known[n]], int)
    positive = np.array([labels[n] != self._background for n in numbers.tolist()], bool)
    chances = estimate = None
    if min(positive.sum(), (~positive).sum()) >= image_classifier.LEAST:
      sample = np.flatnonzero(known)[:: max(1, known.sum() // _SAMPLE)]
      scaler = image_classifier.Scaler(features.read(sample))
      rows = scaler(features.read(numbers))
      weights = image_classifier.fit(rows, positive)
      chances = np.full(len(known), -1, np.int16)
      for part in np.array_split(np.flatnonzero(known), -(-known.sum() // _CHUNK)):
        chances[part] = np.rint(100 * image_classifier.chances(scaler(features.read(part)), weights))
      at_random = np.isin(numbers, self._drawn_at_random(labels))
      estimate = image_classifier.estimate(rows, positive, at_random)
    suggested = tuple(self._suggestions(labels, chances))
    self._learned = Learned(self._learned.revision + 1, chances, suggested, estimate)

  def _drawn_at_random(self, labels: dict[int, str]) -> np.ndarray:
    """Returns the first tiles of the random order up to the first one without an answer.

    They are a random sample of all tiles, whichever way each of them came to be answered.
    """
    answered = np.isin(self._random_order, list(labels))
    return self._random_order[: len(answered) if answered.all() else int(np.argmin(answered))]

  def _suggestions(self, labels: dict[int, str], chances: np.ndarray | None) -> Iterator[int]:
    """Yields the tiles to ask for next."""
    return itertools.islice(suggestions.ordered(self._random_order, labels, chances), _SUGGESTIONS)
