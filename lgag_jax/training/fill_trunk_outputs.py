"""Keeps what a frozen trunk makes of each example on disk, so that it is computed once."""

import contextlib
import hashlib
import logging
import math
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lgag_jax.config import Config
from lgag_jax.inference import localize
from lgag_jax.inputs import pipeline
from lgag_jax.inputs.pipeline import Reader
from lgag_jax.inputs.sources import Source
from lgag_jax.inputs.split import Split
from lgag_jax.inputs.trunk_outputs import FeatureCache, array_file, place
from lgag_jax.method.network import Network, full_precision
from lgag_jax.runtime import files, lock, preemption, processes, sealed_json, sharding
from lgag_jax.runtime.progress import Progress
from lgag_jax.state import TrainState

_LOG = logging.getLogger(__name__)

_PARTIAL = re.compile(r"[0-9a-f]{24}\.partial")
_CACHED = re.compile(r"tap\d+(\.\d+)?\.npy|index\.json|\.partial-.*")  # Files of a cache.
_DTYPE = np.float16  # Half the room; taps are far from its limits, and their rounding is below 0.1 %.


def size_of(shapes: Any, examples: int) -> int:
  """Returns the bytes that the outputs of that many examples take."""
  return sum(math.prod(s.shape[1:]) for s in shapes) * np.dtype(_DTYPE).itemsize * examples


def can_cache(config: Config, shapes: Any, examples: int) -> bool:
  """Whether the frozen outputs are always the same, at one scale, and fit the room given."""
  if config.data.augment == "image" or config.localize.scales != (1.0,):
    return False
  size = size_of(shapes, examples)
  fits = size <= config.data.feature_cache_gib * 2**30
  if not fits and config.data.feature_cache_gib:
    _LOG.info(
      "Trunk outputs would take %.1f GiB, data.feature_cache_gib allows %.1f: computed every time.",
      size / 2**30, config.data.feature_cache_gib,
    )
  return bool(fits)


def open_split(
  source: Source, network: Network, state: TrainState, config: Config, mesh: Mesh,
  workdir: pathlib.Path,
) -> Split:
  """Opens readers, cached if possible; raises ValueError when the processes see different examples."""
  processes.check_same((list(source.ids), source.labels.tobytes()), "examples")
  reader = pipeline.Reader(source, config.data)
  directory = pathlib.Path(config.data.feature_cache_directory or workdir / "features")
  cache = open_cache(network, state, source, reader, config, mesh, directory)
  with_images = cache.with_images() if cache and localize.needs_images(config) else cache
  return Split(source, cache or reader, with_images or reader)


def open_cache(
  network: Network, state: TrainState, source: Source, reader: Reader, config: Config, mesh: Mesh,
  directory: pathlib.Path,
) -> FeatureCache | None:
  """Returns the cache of a source's frozen outputs, filling it first; None where it cannot be.

  A cache is known by a digest of trunk, weights, data settings and examples, so runs that share
  these share it, and no run takes another's. The folder is one that all processes share. Raises OSError
  when it has no room.
  """
  side = config.data.image_size
  image = jax.ShapeDtypeStruct((1, side, side, config.data.input_channels), jnp.float32)
  shapes = jax.eval_shape(network.frozen, state.params, state.statistics, image)
  if not can_cache(config, shapes, len(source.ids)):
    return None
  # Process 0 decides: files may look newer from another machine.
  digest = _digest(network, state, source, config)
  path = directory / processes.run_on_first(lambda: digest)
  filled = lambda: processes.run_on_first((path / "index.json").exists)
  if not filled():
    with _alone(path):
      if not filled():  # Still not: another run may have.
        with _new_folder(path, size_of(shapes, len(source.ids))) as partial:
          _fill(partial, shapes, network, state, source, reader, config, mesh)
  return FeatureCache(path, reader, side, config.data.input_channels, len(source.ids))


@contextlib.contextmanager
def _alone(path: pathlib.Path) -> Iterator[None]:
  """Has one run at a time fill a cache; others wait, and find it filled."""
  held = []
  processes.run_on_first(lambda: held.append(
    lock.wait_for(path.with_name(f"{path.name}.lock"), "keeping the same trunk outputs")
  ))
  try:
    processes.run_on_first(lambda: _remove_leftovers(path.parent))
    yield
  finally:
    for file in held:
      file.close()


def _remove_leftovers(directory: pathlib.Path) -> None:
  """Removes what killed runs were filling; of data, perhaps, that has changed since.

  A folder of another name, or with other files, is the user's.
  """
  for partial in directory.glob("*.partial"):
    if not _is_leftover(partial):
      continue
    with contextlib.suppress(FileNotFoundError):  # Another run may be as fast.
      if (file := lock.try_acquire(partial.with_suffix(".lock"))) is not None:
        shutil.rmtree(partial)
        file.close()


def _is_leftover(partial: pathlib.Path) -> bool:
  """Returns whether a folder has the name of a cache that was being filled, and only its files."""
  if not _PARTIAL.fullmatch(partial.name) or partial.is_symlink() or not partial.is_dir():
    return False
  with contextlib.suppress(FileNotFoundError):  # Another run may be as fast.
    return all(_CACHED.fullmatch(path.name) and path.is_file() for path in partial.iterdir())
  return False


@contextlib.contextmanager
def _new_folder(path: pathlib.Path, size: int) -> Iterator[pathlib.Path]:
  """Yields a new folder to fill and gives it its name; nothing is left of it after an error."""
  partial = path.with_name(f"{path.name}.partial")

  def make() -> None:
    if _is_leftover(partial):
      shutil.rmtree(partial, ignore_errors=True)  # What a killed run left; this run has its lock.
    what = "trunk outputs (data.feature_cache_gib=0 keeps none)"
    files.require_free_space(partial.parent, size, what)
    partial.mkdir()

  processes.run_on_first(make)
  try:
    yield partial
  except BaseException as error:
    if processes.is_first():
      shutil.rmtree(partial, ignore_errors=True)
    if isinstance(error, OSError) and files.is_disk_full(error):  # Despite the room: a quota.
      raise OSError(error.errno, f"{error.strerror} for trunk outputs", str(partial)) from error
    raise
  if processes.is_first():
    partial.rename(path)
  processes.barrier("feature cache")


def _digest(network: Network, state: TrainState, source: Source, config: Config) -> str:
  digest = hashlib.sha256()
  data = config.data
  settings = (
    config.model.trunk, network.first_trainable_stage, network.mean, network.std,
    config.model.precision, data.image_size,
    data.max_value, data.input_channels, tuple(source.keys), data.normalise, data.mean, data.std,
    *((network.bands,) if network.bands else ()),  # Caches of trunks that see all bands stay valid.
  )
  digest.update(repr(settings).encode())
  stages = ["stem", *(f"stage{i}" for i in range(1, network.first_trainable_stage))]
  trees = (state.params["trunk"], state.statistics)  # A Vision Transformer has no statistics.
  frozen = [tree.get(stage, {}) for tree in trees for stage in stages]
  for leaf in jax.tree.leaves(frozen):
    digest.update(sharding.gather_to_host(leaf).tobytes())
  return digest.hexdigest()[:24]


def _fill(directory, shapes, network, state, source, reader, config, mesh) -> None:
  count, batch_size = len(source.ids), config.localize.batch_size
  part, parts = jax.process_index(), jax.process_count()
  run = batch_size // parts  # What a process has of each batch.
  here = sum(place(example, parts, run)[0] == part for example in range(count))
  names = [f"tap{i}" for i in range(len(shapes))]
  frozen = make_frozen(network, mesh)
  progress = Progress("trunk outputs", count)
  with contextlib.ExitStack() as stack:
    arrays = [
      stack.enter_context(_new_array(array_file(directory, name, part, parts), (here, *s.shape[1:])))
      for name, s in zip(names, shapes, strict=True)
    ]
    batches = pipeline.eval_batches(source, reader, config, batch_size)
    bad = []
    for batch in preemption.until_stopped(batches):
      real = batch["index"] >= 0
      bad.append(batch["index"][real & (batch["weight"] == 0)])
      outputs = frozen(state.params, state.statistics, sharding.to_global(batch["image"], mesh))
      for file, values in zip(arrays, sharding.local_rows(outputs), strict=True):
        file.write(values[real].tobytes())
      progress.advance(batch_size)
  progress.close()
  bad = processes.gather({"bad": np.concatenate(bad)})["bad"]
  if processes.is_first():
    index = {"arrays": names, "parts": parts, "run": run, "bad": sorted(bad.tolist())}
    sealed_json.write(directory / "index.json", index)


def make_frozen(network: Network, mesh: Mesh) -> Callable[[Any, Any, jax.Array], tuple]:
  """Returns the jitted function from params, statistics and global images to what is kept of them."""

  @full_precision
  def frozen(params, statistics, images):
    outputs = network.frozen(params, statistics, images)
    return jax.tree.map(lambda x: x.astype(_DTYPE), outputs)

  split = sharding.batch_sharding(mesh)
  return jax.jit(frozen, in_shardings=(None, None, split), out_shardings=split)


@contextlib.contextmanager
def _new_array(path: pathlib.Path, shape: tuple[int, ...]) -> Iterator[BinaryIO]:
  """Opens a .npy file of `shape` for its rows' bytes; on disk once closed."""
  header = {"descr": np.dtype(_DTYPE).str, "fortran_order": False, "shape": shape}
  with path.open("wb") as file:
    np.lib.format.write_array_header_1_0(file, header)
    yield file
    file.flush()
    os.fsync(file.fileno())
