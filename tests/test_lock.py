"""One process at a time holds a workdir; a killed process does not hold it any more."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from lgag_jax.runtime import lock

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
