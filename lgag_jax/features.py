"""Keeps what a frozen trunk makes of each example on disk, so that it is computed once."""

import hashlib
import json
import logging
import pathlib
import shutil
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lgag_jax import input_pipeline, partition
from lgag_jax.config import Config
from lgag_jax.input_pipeline import Reader
from lgag_jax.models.network import Network
from lgag_jax.progress import Progress
from lgag_jax.sources import Source

_LOG = logging.getLogger(__name__)

_DTYPE = np.float16  # Half the room; taps are far from its limits, and their rounding is below 0.1 %.


class FeatureCache:
  """The frozen outputs of a source's examples, memory-mapped; masks are read as they are now."""

  def __init__(self, directory: pathlib.Path, reader: Reader, side: int):
    names = json.loads((directory / "index.json").read_text())["arrays"]
    self._arrays = [np.load(directory / f"{name}.npy", mmap_mode="r") for name in names]
    self._reader = reader
    self.fields = (
      *((name, "float16", a.shape[1:]) for name, a in zip(names, self._arrays, strict=True)),
      ("mask", "uint8", (side, side)),
    )

  @property
  def failure(self):
    """What stopped the pipeline: the reader's."""
    return self._reader.failure

  def __call__(self, index: int) -> tuple[np.ndarray, ...]:
    """Returns an example's taps f16[h, w, E], mask u8[H, W] and weight."""
    return (*(array[index] for array in self._arrays), *self._reader.mask(index))


def can_cache(config: Config, shapes: Any, examples: int) -> bool:
  """Whether nothing upstream of the frozen outputs is random, and they fit the room given."""
  if config.data.augment == "image":
    return False
  size = sum(np.prod(s.shape[1:]) for s in shapes) * np.dtype(_DTYPE).itemsize * examples
  fits = size <= config.data.feature_cache_gib * 2**30
  if not fits and config.data.feature_cache_gib:
    _LOG.info(
      "Trunk outputs would take %.1f GiB, data.feature_cache_gib allows %.1f: computed every time.",
      size / 2**30, config.data.feature_cache_gib,
    )
  return bool(fits)


def open_cache(
  network: Network,
  params: Any,
  statistics: Any,
  source: Source,
  reader: Reader,
  config: Config,
  mesh: Mesh,
  directory: pathlib.Path,
) -> FeatureCache | None:
  """Returns the cache of a source's frozen outputs, filling it first; None where it cannot be.

  A cache is known by a digest of trunk, weights, data settings and examples, so runs that share
  these share it, and no run takes another's.
  """
  side = config.data.image_size
  image = jax.ShapeDtypeStruct((1, side, side, config.data.channels), jnp.float32)
  shapes = jax.eval_shape(network.frozen, params, statistics, image)
  if jax.process_count() > 1 or not can_cache(config, shapes, len(source.ids)):
    return None
  path = directory / _digest(network, params, statistics, source, config)
  if not (path / "index.json").exists():
    directory.mkdir(parents=True, exist_ok=True)
    partial = pathlib.Path(tempfile.mkdtemp(prefix=f"{path.name}.partial-", dir=directory))
    _fill(partial, shapes, network, params, statistics, source, reader, config, mesh)
    try:
      partial.rename(path)
    except OSError:  # Another run that shares the folder was faster.
      shutil.rmtree(partial)
  return FeatureCache(path, reader, side)


def _digest(network, params, statistics, source, config) -> str:
  digest = hashlib.sha256()
  data = config.data
  settings = (
    config.model.trunk, network.first_trainable_stage, network.mean, network.std,
    config.model.precision, data.image_size,
    data.max_value, data.channels, tuple(source.keys),
  )
  digest.update(repr(settings).encode())
  stages = ["stem", *(f"stage{i}" for i in range(1, network.first_trainable_stage))]
  frozen = [(tree[stage]) for tree in (params["trunk"], statistics) for stage in stages]
  for leaf in jax.tree.leaves(frozen):
    digest.update(np.asarray(leaf).tobytes())
  return digest.hexdigest()[:24]


def _fill(directory, shapes, network, params, statistics, source, reader, config, mesh) -> None:
  count = len(source.ids)
  names = [f"tap{i}" for i in range(len(shapes))]
  arrays = [
    np.lib.format.open_memmap(directory / f"{n}.npy", "w+", _DTYPE, (count, *s.shape[1:]))
    for n, s in zip(names, shapes, strict=True)
  ]
  whole, split = partition.replicated(mesh), partition.by_example(mesh)
  frozen = jax.jit(
    lambda p, s, x: jax.tree.map(lambda y: y.astype(_DTYPE), network.frozen(p, s, x)),
    in_shardings=(whole, whole, split), out_shardings=split,
  )
  batch_size = config.localize.batch_size
  progress = Progress("trunk outputs", count)
  for batch in input_pipeline.eval_batches(source, reader, config, batch_size):
    real = batch["index"] >= 0
    outputs = frozen(params, statistics, partition.to_global(batch["image"], mesh))
    rows = batch["index"][real]
    for array, values in zip(arrays, outputs, strict=True):
      array[rows] = np.asarray(values)[real]
    progress.advance(len(rows))
  progress.close()
  for array in arrays:
    array.flush()
  (directory / "index.json").write_text(json.dumps({"arrays": names}))
