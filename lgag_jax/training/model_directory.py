"""A network without its training: weights, settings and facts in a folder that others map with.

`write` makes it of a workdir; evaluation of scenes and prediction read it in a workdir's place. It may
come from anywhere: it is read as data, and checked.
"""

import dataclasses
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import safetensors.numpy
from jax.sharding import Mesh

from lgag_jax.config import Config
from lgag_jax.inference import colour_evidence
from lgag_jax.method import network as networks
from lgag_jax.method.network import Network
from lgag_jax.runtime import checksums, files, folders, sharding
from lgag_jax.state import TrainState
from lgag_jax.training import model_card, train_step
from lgag_jax.trunks.weight_files import read_tensors

WEIGHTS = "model.safetensors"
# What prediction reads beside config.json: carried over as it is, where the workdir has it.
FACTS = ("thresholds.json", "scale.json", colour_evidence.FILE)
# Where data lay on the machine of the training: nobody else's business, and of no use to them.
_PLACES = ("directory", "manifest", "pseudo_masks", "feature_cache_directory")
_REMEDY = "Fetch the folder again, or export it anew"


def is_one(folder: pathlib.Path) -> bool:
  """Whether a folder is a model directory, not a workdir."""
  return (folder / WEIGHTS).exists()


def refuse(folder: pathlib.Path, remedy: str) -> None:
  """Raises ValueError with the remedy when a folder is a model directory."""
  if is_one(folder):
    raise ValueError(
      f"{folder} is a model directory: it has weights to map with, but neither checkpoints nor the "
      f"training's data. {remedy}"
    )


def write(folder: pathlib.Path, workdir: pathlib.Path, config: Config, state: TrainState) -> None:
  """Writes a model directory; it is whole or not there. Raises OSError when `folder` holds anything."""
  with folders.atomic_folder(folder) as partial:
    tensors = {name: np.asarray(leaf, order="C") for name, leaf in _tensors(state).items()}
    # Not save_file, whose files are their owner's alone to read.
    content = safetensors.numpy.save(tensors, metadata={"format": "lgag_jax"})
    (partial / WEIGHTS).write_bytes(content)
    files.write_json(partial / "config.json", dataclasses.asdict(_without_places(config)))
    for name in FACTS:
      if (workdir / name).exists():
        shutil.copyfile(workdir / name, partial / name)
    checksums.write_checksums(partial)  # Before the card, which its readers may edit.
    files.write_text(partial / "README.md", model_card.text(workdir, config, int(state.step)))


def read(folder: pathlib.Path, config: Config, mesh: Mesh) -> tuple[Network, TrainState]:
  """Returns the network and the state that `write` kept; the bank has global anchors alone.

  Raises ValueError naming the file and the tensor when weights are damaged or fit another config.
  """
  if checksums.has_checksums(folder) and (damage := checksums.find_damage(folder)):
    raise ValueError(
      f"{folder} is damaged: {damage}. {_REMEDY}. If you changed a file yourself, remove "
      f"{checksums.FILE_NAME}."
    )
  network, path = networks.build(config), folder / WEIGHTS
  like = _expected(network, config)
  expected = _tensors(like)
  tensors = read_tensors(str(path))
  if missing := sorted(set(expected) - set(tensors)):
    raise ValueError(f"{path} lacks {missing[0]!r} ({len(missing)} in all). {_REMEDY}.")
  if strange := sorted(set(tensors) - set(expected)):
    raise ValueError(
      f"{path} holds {strange[0][:200]!r} ({len(strange)} in all), which config.json's network has "
      f"no place for. {_REMEDY}."
    )
  for name, wanted in expected.items():
    found = tensors[name]
    if (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
      raise ValueError(
        f"{path}: {name!r} is {found.dtype}{list(found.shape)}, where config.json's network has "
        f"{wanted.dtype}{list(wanted.shape)}. {_REMEDY}."
      )
    if not np.isfinite(found).all():
      raise ValueError(f"{path}: {name!r} holds values that are not finite numbers. {_REMEDY}.")
  return network, jax.device_put(_state(tensors, like), sharding.replicated_sharding(mesh))


def _expected(network: Network, config: Config) -> TrainState:
  """Shapes and types of a state of the config, its bank without slots; nothing is computed."""
  # Of any size in a stranger's config, and not read by prediction.
  config = dataclasses.replace(config, bank=dataclasses.replace(config.bank, slots=config.bank.centres))
  return train_step.state_shapes(network, config, optax.identity())


def _tensors(state: TrainState) -> dict:
  """Returns what prediction needs of a state, by name."""
  kept = {
    "params": state.params, "statistics": state.statistics, "step": state.step,
    "bank": {"centres": state.bank.centres, "ready": state.bank.ready},
  }
  leaves, _ = jax.tree_util.tree_flatten_with_path(kept)
  return {"/".join(key.key for key in path): leaf for path, leaf in leaves}


def _state(tensors: dict[str, np.ndarray], like: TrainState) -> TrainState:
  """Puts tensors in the places that `_tensors` took them from."""
  take = lambda prefix, tree: jax.tree_util.tree_map_with_path(
    lambda path, _: tensors["/".join((prefix, *(key.key for key in path)))], tree
  )
  bank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like.bank)
  return dataclasses.replace(
    like, params=take("params", like.params), statistics=take("statistics", like.statistics),
    step=tensors["step"],
    bank=bank.replace(centres=tensors["bank/centres"], ready=tensors["bank/ready"]),
  )


def _without_places(config: Config) -> Config:
  data = dataclasses.replace(config.data, **dict.fromkeys(_PLACES, ""))
  if pathlib.PurePath(data.builder).is_absolute():
    data = dataclasses.replace(data, builder=pathlib.PurePath(data.builder).name)
  weights = config.model.weights if config.model.weights in ("packaged", "random") else "random"
  model = dataclasses.replace(config.model, weights=weights)
  return dataclasses.replace(config, data=data, model=model)
