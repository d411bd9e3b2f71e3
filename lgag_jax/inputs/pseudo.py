"""Training examples with pseudo-masks in place of their masks."""

import hashlib
import pathlib

import numpy as np

from lgag_jax.config import DataConfig
from lgag_jax.imagery import reading
from lgag_jax.inputs import image_bytes
from lgag_jax.runtime import files

INDEX = "index.json"  # Written last: a folder without it is incomplete.
UNFINISHED = "unfinished"  # In an index while masks are put in their places.


def mask_file(folder: pathlib.Path, example: int) -> pathlib.Path:
  """Returns the PNG of a training example's pseudo-mask."""
  return folder / f"{example // 1000:04d}" / f"{example:07d}.png"


def digest(source) -> str:
  """Returns a digest of a source's examples and labels in their order."""
  digest = hashlib.sha256()
  for text in (*source.ids, str(source.labels.shape)):
    digest.update(text.encode(errors="surrogateescape") + b"\0")
  digest.update(np.ascontiguousarray(source.labels, np.float32).tobytes())
  return digest.hexdigest()


def parts(source) -> dict[str, str]:
  """Returns what records say of the parts of images that the examples are, {} for whole images.

  `digest` holds only where they begin. Earlier releases recorded no more; `same_parts` compares.
  """
  if not hasattr(source, "tile"):
    return {}
  numbers: dict[pathlib.Path, int] = {}  # Not paths: the data may lie elsewhere.
  digest = hashlib.sha256()
  for index in range(len(source.ids)):
    image, _, tile = source.tile(index)
    digest.update(f"{numbers.setdefault(image, len(numbers))} {tile.key()}\0".encode())
  return {"parts": digest.hexdigest()}


def same_parts(record: dict, source) -> bool:
  """Returns whether a record is of the same parts of images, or of an earlier release."""
  return "parts" not in record or record["parts"] == parts(source).get("parts")


class PseudoSource:
  """A source whose masks come from `data.pseudo_masks`; they have the model's size, not the image's.

  A mask is unknown where its image has no data, and where an earlier example shows the same ground.

  Raises FileNotFoundError if the folder is missing or incomplete, and ValueError if it was written for
  other examples, labels or classes, or if the images have changed since.
  """

  has_masks = True

  def __init__(self, source, config: DataConfig):
    self._source, self._classes = source, len(config.classes)
    self._folder = pathlib.Path(config.pseudo_masks)
    path = self._folder / INDEX
    if not path.exists():
      raise FileNotFoundError(
        f"data.pseudo_masks={config.pseudo_masks}: {path} is missing. Write the pseudo-masks with "
        "--mode=pseudo --workdir=<workdir of the first stage>."
      )
    index = files.read_json(path)
    if isinstance(index, dict) and UNFINISHED in index:
      raise ValueError(f"{self._folder} is incomplete: run --mode=pseudo again.")
    expected = {"source": digest(source), "classes": list(config.classes)}
    if not isinstance(index, dict) or any(index.get(k) != v for k, v in expected.items()):
      raise ValueError(
        f"{path} was written for other training examples, labels or classes than the "
        f"{len(source.ids)} examples of {config.directory or config.builder}: train both stages on "
        "the same data, or run --mode=pseudo again."
      )
    if not same_parts(index, source):
      raise ValueError(
        f"{path} was written for other parts of the images of {config.directory}: run --mode=pseudo "
        "again, or restore the parts in the manifest (row_start, row_stop, col_start, col_stop)."
      )
    if any(image_bytes.has_changed(index.get(kind), source, kind) for kind in ("images", "before")):
      raise ValueError(
        f"{path} was written for other pixels in images of the same names: train the first stage on "
        "the images as they are now, or restore them."
      )
    self.ids, self.keys, self.labels = source.ids, source.keys, source.labels
    self.skipped, self.shards = getattr(source, "skipped", {}), getattr(source, "shards", ())
    self.stored = getattr(source, "stored", None)
    if hasattr(source, "tile"):
      self.tile = source.tile

  def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    image, valid = self._source.read_valid_pixels(index)
    with reading.open_raster(mask_file(self._folder, index)) as raster:
      mask = reading.read_mask(raster, classes=self._classes, ignore=reading.UNKNOWN)
    nearest = [np.arange(n) * m // n for n, m in zip(mask.shape, valid.shape, strict=True)]
    mask[~valid[np.ix_(*nearest)]] = reading.UNKNOWN
    return image, mask

  def read_valid_pixels(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    return self._source.read_valid_pixels(index)

  def files(self, index: int) -> tuple[pathlib.Path | None, pathlib.Path | None]:
    return self._source.files(index)[0], mask_file(self._folder, index)

  def before(self, index: int) -> pathlib.Path | None:
    return self._source.before(index)
