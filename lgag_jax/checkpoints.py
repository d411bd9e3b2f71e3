"""Checkpoints of the train state, with the position in the data; the only file that knows Orbax."""

import itertools
import json
import logging
import pathlib
import shutil
from typing import IO

import jax
import orbax.checkpoint as ocp

from lgag_jax import cluster, integrity, lock
from lgag_jax.state import TrainState

_LOG = logging.getLogger(__name__)


class _Manager(ocp.CheckpointManager):
  """Orbax's, without its own look at SIGTERM: jax's service would mistake its steps for our count."""

  def reached_preemption(self, step: int) -> bool:
    del step
    return False


class Checkpoints:
  """Saves, keeps the newest few, restores onto the shardings of a given state.

  Every checkpoint carries digests of its files, written last, since Orbax restores a flipped bit
  without a word. A damaged one is named, and the newest sound one is used in its place. With
  `writes` set the workdir is this process's alone (ValueError names who has it), the damaged one is
  set aside under another name, and what a killed run left is removed; without, raises
  FileNotFoundError when there is none that is sound.
  """

  def __init__(self, workdir: pathlib.Path, *, keep: int, writes: bool):
    self._directory = workdir.absolute() / "checkpoints"
    self._keep = keep
    self._lock: IO[str] | None = None
    if writes:
      cluster.from_first(self._own)
    self._latest = cluster.from_first(lambda: newest_sound(self._directory, set_aside=writes))
    if not writes and self._latest is None:
      raise FileNotFoundError(f"{self._directory} holds no sound checkpoint: train into it first.")
    options = ocp.CheckpointManagerOptions(create=writes, read_only=not writes)
    self._manager = _Manager(self._directory, options=options)

  def latest(self) -> int | None:
    """Returns the newest step that is saved and sound."""
    return self._latest

  def save(self, state: TrainState, position: dict) -> None:
    """Saves `state` and `position`, a JSON-able description of what comes next; waits for the disk."""
    step = int(state.step)
    if step == self._latest:
      return
    arguments = ocp.args.Composite(
      state=ocp.args.StandardSave(state), position=ocp.args.JsonSave(position)
    )
    self._manager.save(step, args=arguments, force=True)
    self._manager.wait_until_finished()
    cluster.from_first(lambda: integrity.seal(self._directory / str(step)))
    self._latest = step
    # Only now is there a newer one to fall back on.
    for old in sorted(self._manager.all_steps())[: -self._keep]:
      self._manager.delete(old)

  def restore(self, like: TrainState) -> tuple[TrainState, dict]:
    """Restores the newest sound checkpoint, which there must be.

    Raises ValueError when it does not fit `like`: a workdir belongs to one config.
    """
    target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    arguments = ocp.args.Composite(
      state=ocp.args.StandardRestore(target), position=ocp.args.JsonRestore()
    )
    try:
      restored = self._manager.restore(self._latest, args=arguments)
    except (ValueError, KeyError, TypeError) as error:
      raise ValueError(
        f"The checkpoint of step {self._latest} in {self._directory} does not fit the config: "
        f"{error}. Use another --workdir for another config."
      ) from error
    return restored["state"], restored["position"]

  def close(self) -> None:
    """Ends Orbax's threads and lets go of the workdir."""
    self._manager.close()
    if self._lock is not None:
      self._lock.close()

  def _own(self) -> None:
    """Takes the workdir and removes what a killed run was still writing."""
    self._lock = lock.take(self._directory.parent)
    for path in self._directory.glob("*.orbax-checkpoint-tmp*"):
      _LOG.info("Removed %s, which was never finished.", path)
      shutil.rmtree(path)


def newest_sound(directory: pathlib.Path, *, set_aside: bool) -> int | None:
  """Returns the newest step whose files are what was saved; names those newer that are not."""
  steps = [int(path.name) for path in directory.glob("*") if path.name.isdecimal()]
  for step in sorted(steps, reverse=True):
    path = directory / str(step)
    flaw = integrity.flaw(path)
    if flaw is None:
      return step
    _LOG.warning("Checkpoint %s is not used: %s.", path, flaw)
    if set_aside:
      aside = next(
        name for number in itertools.count(1)
        if not (name := path.with_name(f"{step}.damaged-{number}")).exists()
      )
      path.rename(aside)
      _LOG.warning("It is kept as %s.", aside)
  return None


def write_json(path: pathlib.Path, content: dict) -> None:
  """Writes JSON as `write_text` does."""
  write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: pathlib.Path, content: str) -> None:
  """Writes text beside its place and renames it: the name never holds half a file."""
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(path.name + ".partial")
  partial.write_text(content)
  partial.rename(path)
