"""Which examples belong to which split."""

import pathlib
import types
from collections.abc import Sequence

import tensorflow_datasets as tfds

from lgag_jax import archives, cluster
from lgag_jax.config import DataConfig


def require_directory(config: DataConfig) -> pathlib.Path:
  """Returns the data's root; raises when it is not set or missing.

  An archive is unpacked beside itself, once; see archives.unpack for what it must not hold.
  """
  if not config.directory:
    raise ValueError("data.directory is not set: add --config.data.directory=<folder>.")
  directory = pathlib.Path(config.directory)
  if archives.is_archive(directory):
    with cluster.first_then_others("archive"):
      return archives.unpacked(directory)
  if not directory.is_dir():
    raise FileNotFoundError(f"data.directory={config.directory}: there is no such folder.")
  return directory


def select(spec: str, names: Sequence[str], config: DataConfig) -> list[int]:
  """Returns the indices of the TFDS split expression `spec`; `names[i]` is example i's split.

  Without any names ("") train and validation are cut by order: the last share is validation, a
  contiguous block, since neighbours in name are often neighbours in space.
  """
  if not any(names):
    cut = len(names) - round(len(names) * config.validation_fraction)
    names = ["train"] * cut + ["validation"] * (len(names) - cut)
  members = {name: [i for i, n in enumerate(names) if n == name] for name in dict.fromkeys(names)}
  lengths = {name: types.SimpleNamespace(num_examples=len(m)) for name, m in members.items()}
  try:
    parts = tfds.core.ReadInstruction.from_spec(spec).to_absolute(lengths)
  except (ValueError, AssertionError) as error:
    where = config.manifest or config.directory
    raise ValueError(
      f"Split {spec!r} of {where}: {error} Splits here: {', '.join(lengths)}."
    ) from error
  return [i for part in parts for i in members[part.splitname][part.from_ : part.to]]
