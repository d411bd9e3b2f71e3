"""Checkpoints of the train state, with the position in the data; the only file that knows Orbax."""

import json
import pathlib

import jax
import orbax.checkpoint as ocp

from lgag_jax import cluster
from lgag_jax.state import TrainState


class _Manager(ocp.CheckpointManager):
  """Orbax's, without its own look at SIGTERM: jax's service would mistake its steps for our count."""

  def reached_preemption(self, step: int) -> bool:
    del step
    return False


class Checkpoints:
  """Saves in the background, keeps the newest few, restores onto the shardings of a given state."""

  def __init__(self, workdir: pathlib.Path, *, keep: int):
    self._directory = workdir.absolute() / "checkpoints"
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
    self._manager = _Manager(self._directory, options=options)

  def latest(self) -> int | None:
    """Returns the newest saved step, as process 0 sees it."""
    return cluster.from_first(self._manager.latest_step)

  def save(self, state: TrainState, position: dict, *, wait: bool = False) -> None:
    """Saves `state` and `position`, a JSON-able description of what comes next.

    In the background; with `wait` set it is on disk afterwards.
    """
    step = int(state.step)
    if step != self.latest():
      self._save(step, state, position)
    if wait:
      self._manager.wait_until_finished()

  def _save(self, step: int, state: TrainState, position: dict) -> None:
    arguments = ocp.args.Composite(
      state=ocp.args.StandardSave(state), position=ocp.args.JsonSave(position)
    )
    self._manager.save(step, args=arguments, force=True)

  def restore(self, like: TrainState) -> tuple[TrainState, dict]:
    """Restores the newest checkpoint; raises FileNotFoundError when there is none.

    Raises ValueError when it does not fit `like`: a workdir belongs to one config.
    """
    step = self.latest()
    if step is None:
      raise FileNotFoundError(f"{self._directory} holds no checkpoint: train into it first.")
    target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    arguments = ocp.args.Composite(
      state=ocp.args.StandardRestore(target), position=ocp.args.JsonRestore()
    )
    try:
      restored = self._manager.restore(step, args=arguments)
    except (ValueError, KeyError, TypeError) as error:
      raise ValueError(
        f"The checkpoint of step {step} in {self._directory} does not fit the config: {error}. "
        "Use another --workdir for another config."
      ) from error
    return restored["state"], restored["position"]

  def close(self) -> None:
    """Waits until everything is on disk."""
    self._manager.wait_until_finished()
    self._manager.close()


def write_json(path: pathlib.Path, content: dict) -> None:
  """Writes JSON beside its place and renames it: the name never holds half a file."""
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(path.name + ".partial")
  partial.write_text(json.dumps(content, indent=2) + "\n")
  partial.rename(path)
