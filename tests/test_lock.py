"""One process at a time holds a workdir; a killed process does not hold it any more."""

import os
import signal
import socket
import subprocess
import sys
import types
from unittest import mock

import pytest

from lgag_jax.config import Config
from lgag_jax.doctor import examine
from lgag_jax.evaluation import report, thresholds_file
from lgag_jax.mapping import output_folder
from lgag_jax.runtime import folders, lock
from lgag_jax.training import loop, pseudo_masks, restore

HOLD = "import pathlib, sys, time; from lgag_jax.runtime import lock; " \
  "f = lock.acquire(pathlib.Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"


def holder(workdir):
  process = subprocess.Popen(
    [sys.executable, "-c", HOLD, str(workdir)], text=True, stdout=subprocess.PIPE
  )
  assert process.stdout.readline() == "held\n"
  return process


def test_a_second_process_learns_the_owner_and_acquires_the_lock_after_a_kill(tmp_path):
  process = holder(tmp_path / "run")
  try:
    owner = f"in use by process {process.pid} on {socket.gethostname()} since"
    with pytest.raises(ValueError, match=owner):
      lock.acquire(tmp_path / "run")
  finally:
    process.send_signal(signal.SIGKILL)
    process.wait()
  assert str(process.pid) in (tmp_path / "run" / lock.FILE_NAME).read_text()
  with lock.acquire(tmp_path / "run"):
    assert f"process {os.getpid()} on" in (tmp_path / "run" / lock.FILE_NAME).read_text()
    with pytest.raises(ValueError, match=f"in use by process {os.getpid()}"):
      lock.acquire(tmp_path / "run")
    for flag in ("workdir", "output"):
      with pytest.raises(ValueError, match=f"Wait for it, or use another --{flag}"):
        lock.acquire(tmp_path / "run", flag)
  lock.acquire(tmp_path / "run").close()


@pytest.mark.parametrize("kind", ["file", "empty file", "missing", "folder", "pipe", "notes"])
def test_a_lock_neither_follows_a_link_nor_empties_a_file(tmp_path, kind):
  target, path = tmp_path / "precious.txt", tmp_path / "run" / lock.FILE_NAME
  path.parent.mkdir()
  if kind in ("file", "empty file"):
    target.write_text("precious" if kind == "file" else "")
    path.symlink_to(target)
  elif kind == "missing":
    path.symlink_to(target)
  elif kind == "folder":
    path.mkdir()
  elif kind == "pipe":
    os.mkfifo(path)
  else:
    path.write_text("process 12 of my thesis")
  before = path.lstat().st_mode, target.exists() and target.read_text()
  with pytest.raises(ValueError, match="run/lock is not a lock file of lgag"):
    lock.acquire(path.parent)
  assert (path.lstat().st_mode, target.exists() and target.read_text()) == before
  assert kind != "notes" or path.read_text() == "process 12 of my thesis"


def test_a_lock_file_that_its_owner_removes_locks_nobody(tmp_path):
  path = tmp_path / "x.lock"
  first = lock.try_acquire(path)
  waiting = path.open("rb")  # A process that has opened the file and waits for its owner.
  path.unlink()
  second = lock.try_acquire(path)
  first.close()
  assert lock.try_acquire(path) is None
  second.close()
  waiting.close()
  lock.try_acquire(path).close()


def test_partial_files_behind_a_link_are_of_another(tmp_path):
  name = ".partial-0123456789abcdef.png"
  for folder in ("work", "others"):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / name).write_text("x")
  (tmp_path / "work" / "eval").symlink_to("../others")
  (tmp_path / "link").symlink_to("work")
  lock.acquire(tmp_path / "link").close()
  assert (tmp_path / "others" / name).exists() and not (tmp_path / "work" / name).exists()


WRITE = "import pathlib, sys, time; from lgag_jax.runtime import folders\n" \
  "with folders.atomic_folder(pathlib.Path(sys.argv[1])) as f:\n" \
  "  (f / 'a').write_text('first'); print('held', flush=True); time.sleep(float(sys.argv[2]))"


def writer(folder, seconds):
  process = subprocess.Popen(
    [sys.executable, "-c", WRITE, str(folder), str(seconds)], text=True, stdout=subprocess.PIPE
  )
  assert process.stdout.readline() == "held\n"
  return process


@pytest.mark.parametrize("place", ["tiles", "new/tiles", "empty", "link"])
def test_two_runs_never_write_one_folder(tmp_path, place):
  (tmp_path / "empty").mkdir()
  (tmp_path / "link").symlink_to(tmp_path / "linked")
  process = writer(tmp_path / place, 1.5)
  for _ in range(2):
    with (
      pytest.raises(ValueError, match=f"{place} is being written by process {process.pid} .*--output"),
      folders.atomic_folder(tmp_path / place),
    ):
      raise AssertionError
  assert process.wait() == 0
  assert (tmp_path / place / "a").read_text() == "first"
  with pytest.raises(FileExistsError, match="empty folder"), folders.atomic_folder(tmp_path / place):
    raise AssertionError
  assert not list(tmp_path.rglob(".partial*"))


@pytest.mark.parametrize("target", ["tiles", "eval/model", "mask/tiles.new"])
def test_another_mode_beside_a_folder_that_is_written_leaves_its_lock(tmp_path, target):
  (tmp_path / target).parent.mkdir(exist_ok=True)
  with folders.atomic_folder(tmp_path / target) as folder:
    (folder / "a").write_text("first")
    (folder.parent / ".partial-0123456789abcdef.json").touch()  # Of a killed run.
    lock.acquire(tmp_path, "output").close()
    output_folder.prepare(tmp_path, {})
    assert not list(folder.parent.glob(".partial-*.json"))
    with (
      pytest.raises(ValueError, match=f"being written by process {os.getpid()} "),
      folders.atomic_folder(tmp_path / target),
    ):
      raise AssertionError
  assert [path.name for path in (tmp_path / target).iterdir()] == ["a"]


def test_a_killed_run_blocks_no_folder_and_leaves_nothing_in_it(tmp_path):
  process = writer(tmp_path / "tiles", 60)
  process.kill()
  process.wait()
  assert not (tmp_path / "tiles").exists() and list(tmp_path.glob(".partial*"))
  with folders.atomic_folder(tmp_path / "tiles") as folder:
    assert not any(folder.iterdir())
    (folder / "b").touch()
  assert [path.name for path in tmp_path.iterdir()] == ["tiles"]
  assert [path.name for path in (tmp_path / "tiles").iterdir()] == ["b"]


@pytest.mark.parametrize("what", ["report", "doctor", "pseudo", "eval"])
def test_a_workdir_in_use_is_refused_in_every_mode(tmp_path, what, monkeypatch):
  folder = tmp_path / "doctor" if what == "doctor" else tmp_path
  (tmp_path / "eval").mkdir()
  (tmp_path / "eval" / "validation.json").write_text("{}")
  restored = types.SimpleNamespace(data=Config().data), None, types.SimpleNamespace(step=1)
  monkeypatch.setattr(restore, "restore", lambda *_: restored)
  monkeypatch.setattr(thresholds_file, "load_thresholds", lambda *_, **__: {"lgag": [0.5]})
  monkeypatch.setattr(thresholds_file, "with_evidence", lambda *_: None)
  monkeypatch.setattr(pseudo_masks, "main_map_name", lambda _: "lgag")
  for name in ("estimate", "survey", "image_checks", "label_checks", "duplicate_checks", "findings"):
    monkeypatch.setattr(examine, name, mock.MagicMock())
  call = {
    "report": report.write_report, "pseudo": pseudo_masks.write, "eval": loop.evaluate_workdir,
    "doctor": lambda workdir: examine.examine(Config(), workdir),
  }[what]
  with lock.acquire(folder), pytest.raises(ValueError, match=f"in use by process {os.getpid()}"):
    call(tmp_path)
