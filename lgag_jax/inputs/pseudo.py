"""Training examples whose masks come from a folder of pseudo-masks."""

import hashlib
import pathlib

import numpy as np

from lgag_jax.config import DataConfig
from lgag_jax.imagery import reading
from lgag_jax.runtime import files

INDEX = "index.json"  # Written last: a folder without it is unfinished.


def mask_file(folder: pathlib.Path, example: int) -> pathlib.Path:
  """Returns the PNG of a training example's pseudo-mask."""
  return folder / f"{example // 1000:04d}" / f"{example:07d}.png"


def digest(source) -> str:
  """Returns what tells a source's examples and labels, in their order, from any other's."""
  whole = hashlib.sha256()
  for text in (*source.ids, str(source.labels.shape)):
    whole.update(text.encode(errors="surrogateescape") + b"\0")
  whole.update(np.ascontiguousarray(source.labels, np.float32).tobytes())
  return whole.hexdigest()


class PseudoSource:
  """A source with the masks of `data.pseudo_masks`, which are of the model's size, not the image's.

  A mask is unknown where its image holds no data, or ground that an example before it has shown.

  Raises FileNotFoundError when the folder is not there or unfinished, ValueError when it was made for
  other examples, labels or classes.
  """

  has_masks = True

  def __init__(self, source, config: DataConfig):
    self._source, self._classes = source, len(config.classes)
    self._folder = pathlib.Path(config.pseudo_masks)
    path = self._folder / INDEX
    if not path.exists():
      raise FileNotFoundError(
        f"data.pseudo_masks={config.pseudo_masks}: {path} is missing. Write the masks with "
        "--mode=pseudo --workdir=<the first stage's>."
      )
    index = files.read_json(path)
    expected = {"source": digest(source), "classes": list(config.classes)}
    if not isinstance(index, dict) or any(index.get(k) != v for k, v in expected.items()):
      raise ValueError(
        f"{path} is of other training examples, labels or classes than these {len(source.ids)} of "
        f"{config.directory or config.builder}: train both stages on the same data, or "
        "run --mode=pseudo again."
      )
    self.ids, self.keys, self.labels = source.ids, source.keys, source.labels
    self.bad = getattr(source, "bad", {})

  def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    image, valid = self._source.pixels(index)
    with reading.open_raster(mask_file(self._folder, index)) as raster:
      mask = reading.read_mask(raster, classes=self._classes, ignore=reading.UNKNOWN)
    nearest = [np.arange(n) * m // n for n, m in zip(mask.shape, valid.shape, strict=True)]
    mask[~valid[np.ix_(*nearest)]] = reading.UNKNOWN
    return image, mask

  def pixels(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    return self._source.pixels(index)

  def files(self, index: int) -> tuple[pathlib.Path | None, pathlib.Path | None]:
    return self._source.files(index)[0], mask_file(self._folder, index)
