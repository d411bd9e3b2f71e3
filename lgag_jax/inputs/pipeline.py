"""tf.data pipelines over a source: training batches from any step on, and padded evaluation batches.

A batch is a dict of NumPy arrays: index i32[B], weight f32[B] (0 for padding and skipped images),
label f32[B, C], mask u8[B, H, W], and either image f32[B, H, W, channels] from `scaling.normalise`, or
the cached trunk outputs as "taps".
"""

import functools
import logging
import threading
from collections.abc import Callable, Generator, Iterable
from typing import cast

import jax
import numpy as np

from lgag_jax.config import Config, DataConfig, TrainConfig
from lgag_jax.imagery import reading, scaling
from lgag_jax.inputs.augment import augment
from lgag_jax.inputs.sources import Source
from lgag_jax.runtime.host_tensorflow import tf

_LOG = logging.getLogger(__name__)


class Reader:
  """Reads examples at the model's size; caches decoded images, and skips bad ones if told to."""

  def __init__(self, source: Source, config: DataConfig):
    self._source = source
    self._config = config
    self._cache: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    self._free_bytes = int(config.decoded_cache_gib * 2**30)
    self._lock = threading.Lock()
    self._warned_of_dark = False
    # Ids of skipped images, and why; starts with those that the source skipped.
    self.skipped: dict[str, str] = dict(getattr(source, "skipped", {}))
    self.failure: reading.ImageError | None = None  # The error that stopped the pipeline.
    size = (config.image_size,) * 2
    # Name, type and shape of each array that a call returns before the weight.
    self.fields = ("image", tf.float32, (*size, config.input_channels)), ("mask", tf.uint8, size)

  def __call__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.float32]:
    """Returns image f32[S, S, channels], scaled, mask u8[S, S] and weight 1, or 0 when skipped."""
    try:
      image, mask = self._read(index)
      scaling.check_range(image, None, self._config, self._source.ids[index])
      self._warn_of_dark(image, self._source.ids[index])
    except reading.ImageError as error:
      self._skip(index, error)
      side = self._config.image_size
      image = np.zeros((side, side, self._config.input_channels), np.float32)
      return image, np.full((side, side), reading.UNKNOWN, np.uint8), np.float32(0.0)
    return to_model_size(image, self._config), self._mask_to_model_size(mask), np.float32(1.0)

  def _warn_of_dark(self, image: np.ndarray, name: str) -> None:
    """Logs once that an image fills little of its range; dark images of 8 bits are usual."""
    if self._warned_of_dark or image.dtype == np.uint8:
      return
    if text := scaling.dark_warning(float(image.max()), image.dtype, self._config):
      self._warned_of_dark = True
      _LOG.warning("%s: %s Others may be like it: --mode=doctor reads all images.", name, text)

  def mask(self, index: int) -> tuple[np.ndarray, np.float32]:
    """Returns the mask and the weight of `__call__`."""
    try:
      _, mask = self._read(index)
    except reading.ImageError as error:
      self._skip(index, error)
      return np.full((self._config.image_size,) * 2, reading.UNKNOWN, np.uint8), np.float32(0.0)
    return self._mask_to_model_size(mask), np.float32(1.0)

  def _read(self, index):
    if index in self._cache:
      return self._cache[index]
    pair = self._source.read(index)
    size = sum(array.nbytes for array in pair)
    with self._lock:
      if size <= self._free_bytes:
        self._cache[index] = pair
        self._free_bytes -= size
    return pair

  def _skip(self, index, error):
    if self._config.on_bad_image == "error":
      self.failure = error
      raise error
    with self._lock:
      name = self._source.ids[index]
      if name not in self.skipped:
        _LOG.warning("Skipped an image: %s", error)
      self.skipped[name] = str(error)
      if len(self.skipped) > self._config.max_bad_images:
        self.failure = reading.ImageError(
          f"More than data.max_bad_images={self._config.max_bad_images} images are bad. The last: "
          f"{error}"
        )
        raise self.failure

  def _mask_to_model_size(self, mask):
    side = self._config.image_size
    if mask.shape == (side, side):
      return mask
    return tf.image.resize(mask[..., None], (side, side), method="nearest").numpy()[..., 0]


def to_model_size(image: np.ndarray, config: DataConfig) -> np.ndarray:
  """Returns an image of any type and size [H, W, C] as f32[S, S, C], scaled."""
  scaled = scaling.normalise(image, config)
  side = config.image_size
  if image.shape[:2] == (side, side):
    return scaled
  return tf.image.resize(scaled, (side, side), antialias=True).numpy()


def steps_per_epoch(examples: int, config: TrainConfig) -> int:
  """Returns the number of batches per epoch, which together contain every example.

  If all epochs together have fewer than `config.min_steps`, an epoch repeats its examples.
  """
  return max(-(-examples // config.batch_size), -(-config.min_steps // config.epochs))


def epoch_order(labels: np.ndarray, config: Config, epoch: int) -> np.ndarray:
  """Returns the examples of an epoch, i32[steps * batch]; they depend on the seed and the epoch only.

  With data.balance, positives and negatives alternate. Each of the two walks through permutations of
  its examples, and continues in the next epoch: all examples are used, those of the rarer kind more
  often.
  """
  length = steps_per_epoch(len(labels), config.train) * config.train.batch_size
  if not config.data.balance:
    return _permuted(np.arange(len(labels)), config.train.seed, 0, epoch * length, length)
  positive = labels.max(axis=1) > 0
  order = np.empty(length, np.int32)
  for kind, members in enumerate((np.flatnonzero(positive), np.flatnonzero(~positive))):
    count = len(order[kind::2])
    order[kind::2] = _permuted(members, config.train.seed, kind, epoch * count, count)
  return order


def _permuted(members: np.ndarray, seed: int, kind: int, start: int, count: int) -> np.ndarray:
  """Returns `count` entries from position `start` on of an endless series of permutations."""
  first, last = start // len(members), (start + count - 1) // len(members)
  passes = [
    np.random.default_rng((seed, kind, number)).permutation(members)
    for number in range(first, last + 1)
  ]
  offset = start - first * len(members)
  return np.concatenate(passes)[offset : offset + count].astype(np.int32)


def train_batches(
  source: Source, read: Callable, config: Config, *, start_step: int
) -> Generator[dict, None, None]:
  """Yields this process's part of every batch from `start_step` to the last step of training.

  `read` is a Reader or a FeatureCache. Batch t contains the same examples however often training was
  stopped, and for any number of processes.
  """
  steps = steps_per_epoch(len(source.ids), config.train)
  local, offset = _rows_of_process(config.train.batch_size)

  @functools.lru_cache(maxsize=2)
  def order(epoch: int) -> np.ndarray:
    return epoch_order(source.labels, config, epoch)

  def indices(step) -> np.ndarray:
    epoch, position = divmod(int(step), steps)
    begin = position * config.train.batch_size + offset
    return order(epoch)[begin : begin + local]

  def positions(step):
    rows = tf.numpy_function(indices, [step], tf.int32)
    rows.set_shape((local,))
    first = step * config.train.batch_size + offset
    return tf.data.Dataset.from_tensor_slices((rows, first + tf.range(local, dtype=tf.int64)))

  dataset = tf.data.Dataset.range(start_step, steps * config.train.epochs).flat_map(positions)
  dataset = _examples(dataset, source, read, config, train=True).batch(local, drop_remainder=True)
  return _iterate(dataset, read)


def eval_batches(
  source: Source, read: Callable, config: Config, batch_size: int, *, at_most: int = 0
) -> Generator[dict, None, None]:
  """Yields every example once, in order; the last batch is padded with examples of weight 0.

  With `at_most`, yields that many examples, evenly spread.
  """
  count = len(source.ids)
  sample_size = min(at_most or count, count)
  sample = np.arange(sample_size) * count // sample_size
  local, offset = _rows_of_process(batch_size)
  padding = -sample_size % batch_size
  rows = np.pad(sample, (0, padding), constant_values=-1).astype(np.int32)
  rows = rows.reshape(-1, batch_size)[:, offset : offset + local]
  dataset = tf.data.Dataset.from_tensor_slices((rows.reshape(-1), rows.reshape(-1).astype(np.int64)))
  dataset = _examples(dataset, source, read, config, train=False).batch(local)
  return _iterate(dataset, read)


def _iterate(dataset: tf.data.Dataset, read: Callable) -> Generator[dict, None, None]:
  try:
    yield from cast(Iterable[dict], dataset.prefetch(4).as_numpy_iterator())
  except tf.errors.OpError:
    # TensorFlow passes on only the text of a Python error; the reader holds the error itself.
    if read.failure is None:
      raise
    raise read.failure from None


def _rows_of_process(batch_size: int) -> tuple[int, int]:
  """Returns the number of rows of a batch that this process reads, and the first of them."""
  local, rest = divmod(batch_size, jax.process_count())
  if rest:
    raise ValueError(
      f"A batch of {batch_size} cannot be divided among {jax.process_count()} processes: choose a "
      "multiple of the number of processes."
    )
  return local, jax.process_index() * local


def _examples(dataset, source: Source, read: Callable, config: Config, *, train: bool):
  names, types, shapes = zip(*read.fields, strict=True)

  def load(index):
    arrays = read(max(int(index), 0))  # Padding repeats the first example with weight 0.
    weight = np.float32(0.0) if index < 0 else arrays[-1]
    return (*arrays[:-1], weight, source.labels[max(int(index), 0)])

  def example(index, position):
    arrays = tf.numpy_function(load, [index], [*types, tf.float32, tf.float32])
    for array, shape in zip(arrays, (*shapes, (), (len(config.data.classes),)), strict=True):
      array.set_shape(shape)
    fields = dict(zip((*names, "weight", "label"), arrays, strict=True))
    if train and config.data.augment == "image":
      seed = tf.stack([config.train.seed, tf.cast(position, tf.int32)])
      fields["image"], fields["mask"] = augment(fields["image"], fields["mask"], seed, config.data)
    taps = tuple(fields.pop(name) for name in names if name.startswith("tap"))
    return {"index": index, **fields, **({"taps": taps} if taps else {})}

  return dataset.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
