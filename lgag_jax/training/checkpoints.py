"""Checkpoints: saves and restores them. Their contents: TrainState in lgag_jax/state.py.

The position in the data is saved, too. No other file uses Orbax.
"""

import errno
import itertools
import logging
import os
import pathlib
import shutil
import time
from typing import IO

import jax
import orbax.checkpoint as ocp

from lgag_jax.runtime import checksums, files, lock, processes
from lgag_jax.state import TrainState

_LOG = logging.getLogger(__name__)

_SAVING = ".saving"  # Beside a step's folder, from before its first byte to after its digests.


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
    self._lock: IO[bytes] | None = None
    if writes:
      processes.run_on_first(self._take_lock)
    # The newest step that is saved and sound.
    newest = lambda: newest_sound(self._directory, set_aside=writes)
    self.latest: int | None = processes.run_on_first(newest)
    if not writes and self.latest is None:
      raise FileNotFoundError(f"{self._directory} holds no sound checkpoint: train into it first.")
    options = ocp.CheckpointManagerOptions(create=writes, read_only=not writes)
    self._manager = _Manager(self._directory, options=options)

  def save(self, state: TrainState, position: dict) -> None:
    """Saves `state` and `position`, a JSON-able description of what comes next; waits for the disk.

    Raises OSError when it has no room: nothing of the step is left then, and the last one is whole.
    """
    step = int(state.step)
    if step == self.latest:
      return
    arguments = ocp.args.Composite(
      state=ocp.args.StandardSave(state), position=ocp.args.JsonSave(position)
    )
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    what = f"the files of checkpoint {step}"
    processes.run_on_first(lambda: files.require_free_space(self._directory, size, what))
    mark = self._directory / f"{step}{_SAVING}"
    processes.run_on_first(mark.touch)
    try:
      self._manager.save(step, args=arguments, force=True)
      self._manager.wait_until_finished()
      processes.run_on_first(lambda: checksums.write_checksums(self._directory / str(step)))
    except Exception as error:
      # Orbax and TensorStore each say it in their own way, and leave half of it.
      if not files.is_disk_full(error):
        raise
      if processes.is_first():  # On its own: other processes may still be saving.
        self._remove_unfinished(mark)
      raise OSError(
        errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} for checkpoint {step}: the newest is "
        f"{self.latest}. Free some, then run the same command again", str(self._directory),
      ) from error
    processes.run_on_first(mark.unlink)
    self.latest = step
    # Only now is there a newer one to fall back on.
    for old in sorted(self._manager.all_steps())[: -self._keep]:
      self._manager.delete(old)

  def restore(self, like: TrainState) -> tuple[TrainState, dict]:
    """Restores the newest sound checkpoint; raises ValueError when it does not fit `like`.

    Of `like` only the shapes, types and shardings count.
    """
    target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    arguments = ocp.args.Composite(
      state=ocp.args.StandardRestore(target), position=ocp.args.JsonRestore()
    )
    try:
      restored = self._manager.restore(self.latest, args=arguments)
    except (ValueError, KeyError, TypeError) as error:
      raise ValueError(
        f"The checkpoint of step {self.latest} in {self._directory} does not fit the config: "
        f"{error}. Use another --workdir for another config."
      ) from error
    return restored["state"], restored["position"]

  def close(self) -> None:
    """Ends Orbax's threads and lets go of the workdir."""
    self._manager.close()
    if self._lock is not None:
      self._lock.close()

  def _take_lock(self) -> None:
    """Takes the workdir and removes what a killed run was still writing."""
    self._lock = lock.acquire(self._directory.parent)
    for mark in self._directory.glob(f"*{_SAVING}"):
      self._remove_unfinished(mark)

  def _remove_unfinished(self, mark: pathlib.Path) -> None:
    leftovers = [*self._directory.glob(f"{mark.stem}.orbax-checkpoint-tmp*")]
    finished = self._directory / mark.stem
    if finished.exists() and not checksums.has_checksums(finished):
      leftovers.append(finished)
    for path in leftovers:
      _LOG.info("Removing %s, which was never finished.", path)
      for _ in range(50):
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
          break
        time.sleep(0.1)  # After an error Orbax's threads may still be writing.
    if not any(path.exists() for path in leftovers):  # Else the next start tries again.
      mark.unlink()


def newest_sound(directory: pathlib.Path, *, set_aside: bool) -> int | None:
  """Returns the newest sound step, None without any step; ValueError if none of the steps is sound."""
  steps = [int(path.name) for path in directory.glob("*") if path.name.isdecimal()]
  flawed, found = {}, None
  for step in sorted(steps, reverse=True):
    path = directory / str(step)
    flaw = checksums.find_damage(path)
    if flaw is None:
      found = step
      break
    if path.with_name(f"{step}{_SAVING}").exists():  # Another process is at it.
      continue
    _LOG.warning("Checkpoint %s is not used: %s.", path, flaw)
    flawed[path] = flaw
  if found is None and flawed:
    raise ValueError(
      f"No checkpoint in {directory} is sound ({'; '.join(flawed.values())}). Put one back from a "
      "copy, or move the folder away to start again."
    )
  for path in flawed if set_aside else ():
    numbers = itertools.count(1)
    aside = next(a for n in numbers if not (a := path.with_name(f"{path.name}.damaged-{n}")).exists())
    path.rename(aside)
    _LOG.warning("It is kept as %s.", aside)
  return found
