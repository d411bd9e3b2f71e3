"""Checkpoints that were damaged, half written or lost: found, named, kept, and done without."""

import hashlib
import logging
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgag_jax.config import BankConfig
from lgag_jax.method import memory_bank
from lgag_jax.runtime import checksums
from lgag_jax.state import TrainState
from lgag_jax.training import checkpoints
from lgag_jax.training.checkpoints import Checkpoints

FLIPS = 200


def state_of(step):
  key = jax.random.key(step)
  draw = lambda *shape: jax.random.normal(key, shape)
  bank = memory_bank.empty(BankConfig(slots=8, centres=2), classes=2, dimension=4)
  return TrainState(
    step=jnp.int32(step), params={"trunk": {"a": draw(5, 3)}, "head": {"b": draw(7)}},
    statistics={"mean": draw(3)}, opt_state=({"a": draw(5, 3)}, jnp.int32(step)),
    bank=bank.replace(features=draw(2, 8, 4), cursor=jnp.array([3, step])),
  )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  """A workdir with checkpoints of steps 10, 20 and 30; those before were deleted."""
  workdir = tmp_path_factory.mktemp("run")
  keeper = Checkpoints(workdir, keep=3, writes=True)
  for step in (1, 10, 20, 30):
    keeper.save(state_of(step), {"step": step})
  keeper.close()
  return workdir


@pytest.fixture
def workdir(saved, tmp_path):
  return pathlib.Path(shutil.copytree(saved, tmp_path / "run"))


def files_of(workdir, step=30):
  folder = workdir / "checkpoints" / str(step)
  return sorted(path for path in folder.rglob("*") if path.is_file())


def restored(workdir, *, writes=False):
  keeper = Checkpoints(workdir, keep=3, writes=writes)
  state, position = keeper.restore(state_of(0))
  keeper.close()
  assert position["step"] == int(state.step)
  return state


def names(workdir):
  return sorted(path.name for path in (workdir / "checkpoints").iterdir())


def test_the_newest_few_are_kept_and_come_back_bit_for_bit(saved):
  assert names(saved) == ["10", "20", "30"]
  jax.tree.map(np.testing.assert_array_equal, restored(saved), state_of(30))


def test_every_flipped_bit_is_found_and_the_one_before_is_used(workdir, caplog):
  random = np.random.default_rng(0)
  files = [path for path in files_of(workdir) if path.stat().st_size]
  weights = np.array([path.stat().st_size for path in files], float)
  # Small files as often as large ones in half of the trials.
  chances = weights / weights.sum() / 2 + 0.5 / len(files)
  for _ in range(FLIPS):
    path = files[random.choice(len(files), p=chances)]
    content = bytearray(path.read_bytes())
    place, bit = random.integers(len(content)), random.integers(8)
    content[place] ^= 1 << bit
    path.write_bytes(content)
    caplog.clear()
    assert checkpoints.newest_sound(workdir / "checkpoints", set_aside=False) == 20
    assert "checkpoints/30 is not used" in caplog.text
    content[place] ^= 1 << bit
    path.write_bytes(content)
  assert checkpoints.newest_sound(workdir / "checkpoints", set_aside=False) == 30


@pytest.mark.parametrize("damage", ["truncate", "empty", "remove"])
def test_no_file_can_be_cut_emptied_or_removed_unnoticed(workdir, damage):
  for path in files_of(workdir):
    content = path.read_bytes()
    if damage == "remove":
      path.unlink()
    elif content:
      path.write_bytes(b"" if damage == "empty" else content[: len(content) // 2])
    else:
      continue
    name = path.relative_to(workdir / "checkpoints" / "30").as_posix()
    assert name in checksums.find_damage(workdir / "checkpoints" / "30")
    assert checkpoints.newest_sound(workdir / "checkpoints", set_aside=False) == 20
    path.write_bytes(content)
  jax.tree.map(np.testing.assert_array_equal, restored(workdir), state_of(30))


def test_a_training_sets_a_damaged_one_aside_and_goes_on_from_the_one_before(workdir, caplog):
  caplog.set_level(logging.WARNING)
  path = max(files_of(workdir), key=lambda p: p.stat().st_size)
  damaged = path.read_bytes()[:-1]
  path.write_bytes(damaged)
  jax.tree.map(np.testing.assert_array_equal, restored(workdir), state_of(20))
  assert names(workdir) == ["10", "20", "30"]  # Reading changes nothing.
  jax.tree.map(np.testing.assert_array_equal, restored(workdir, writes=True), state_of(20))
  assert names(workdir) == ["10", "20", "30.damaged-1"]
  assert path.name in caplog.text
  assert "30.damaged-1" in caplog.text

  # The step is done again, and damaged again.
  keeper = Checkpoints(workdir, keep=3, writes=True)
  keeper.save(state_of(30), {"step": 30})
  keeper.close()
  jax.tree.map(np.testing.assert_array_equal, restored(workdir), state_of(30))
  files_of(workdir)[0].unlink()
  restored(workdir, writes=True)
  assert names(workdir) == ["10", "20", "30.damaged-1", "30.damaged-2"]


@pytest.mark.parametrize("where", ["within", "before the digests", "after the digests"])
def test_what_a_killed_save_leaves_is_not_used_and_goes(workdir, where):
  folder = workdir / "checkpoints"
  (folder / "30.saving").touch()
  if where == "within":
    (folder / "30" / checksums.FILE_NAME).unlink()
    (folder / "30").rename(folder / "30.orbax-checkpoint-tmp")
  elif where == "before the digests":
    (folder / "30" / checksums.FILE_NAME).unlink()
  newest = 30 if where == "after the digests" else 20
  assert int(restored(workdir).step) == newest
  assert int(restored(workdir, writes=True).step) == newest
  assert names(workdir) == [str(step) for step in (10, 20, 30) if step <= newest]


def test_a_training_killed_in_its_first_save_begins_anew(workdir, tmp_path):
  folder = workdir / "checkpoints"
  for step in (20, 30):
    shutil.rmtree(folder / str(step))
  (folder / "10" / checksums.FILE_NAME).unlink()
  (folder / "10.saving").touch()
  with pytest.raises(FileNotFoundError, match="no sound checkpoint: train into it first"):
    Checkpoints(tmp_path / "nowhere", keep=3, writes=False)
  keeper = Checkpoints(workdir, keep=3, writes=True)
  assert keeper.latest is None
  keeper.close()


@pytest.mark.parametrize("writes", [False, True])
def test_a_training_whose_checkpoints_are_all_damaged_does_not_begin_anew(workdir, writes):
  for number, step in enumerate((10, 20, 30)):
    files_of(workdir, step)[number].unlink()
  with pytest.raises(ValueError, match=r"No checkpoint in .* is sound .*Put one back"):
    Checkpoints(workdir, keep=3, writes=writes)
  assert names(workdir) == ["10", "20", "30"]


def test_the_digests_are_what_sha256sum_reads(workdir):
  text = (workdir / "checkpoints" / "30" / checksums.FILE_NAME).read_text()
  digest, name = text.splitlines()[0].split("  ")
  assert len(digest) == 64
  assert (workdir / "checkpoints" / "30" / name).is_file()


@pytest.mark.parametrize("name", ["../20/_CHECKPOINT_METADATA", "/dev/zero", "a\0b"])
def test_digests_of_files_elsewhere_are_not_followed(workdir, name):
  path = workdir / "checkpoints" / "30" / checksums.FILE_NAME
  lines = f"{'0' * 64}  {name}\n"
  path.write_text(f"{lines}# {hashlib.sha256(lines.encode()).hexdigest()}\n")
  assert "is outside the folder" in checksums.find_damage(path.parent)
