"""Files that are whole or not there."""

import errno
import json
import os
import resource
import signal

import numpy as np
import pytest

from lgag_jax.runtime import files


def test_json_is_whole_or_as_it_was(tmp_path):
  path = tmp_path / "folder" / "x.json"
  files.write_json(path, {"a": 1})
  with pytest.raises(TypeError):
    files.write_json(path, {"a": object()})
  assert json.loads(path.read_text()) == {"a": 1}
  assert os.listdir(path.parent) == ["x.json"]


def test_the_suffix_stays_for_writers_that_go_by_it(tmp_path):
  with files.beside(tmp_path / "x.npz") as partial:
    np.savez(partial, a=np.arange(3))
    assert os.listdir(tmp_path) == [partial.name]
  assert os.listdir(tmp_path) == ["x.npz"]
  assert np.load(tmp_path / "x.npz")["a"].tolist() == [0, 1, 2]


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
  path = tmp_path / "x.txt"
  files.write_text(path, "old")

  def fill():
    with files.beside(path) as partial:
      partial.write_text("ne")
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  with pytest.raises(OSError, match=r"No space left on device.*x\.txt"):
    fill()
  assert path.read_text() == "old"
  assert os.listdir(tmp_path) == ["x.txt"]


def test_what_a_killed_run_left_is_written_over(tmp_path):
  with files.beside(tmp_path / "x.txt") as partial:
    partial.touch()
  partial.write_text("much more than there will be")  # As a kill within the block leaves it.
  files.write_text(tmp_path / "x.txt", "new")
  assert (tmp_path / "x.txt").read_text() == "new"
  assert os.listdir(tmp_path) == ["x.txt"]


def test_a_line_is_appended_whole_or_not_at_all(tmp_path):
  path = tmp_path / "x.jsonl"
  files.append_line(path, "one")
  _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  resource.setrlimit(resource.RLIMIT_FSIZE, (8, hard))  # The next line fits by half.
  try:
    with pytest.raises(OSError, match=r"No space left on device.*x\.jsonl"):
      files.append_line(path, "second line")
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    signal.signal(signal.SIGXFSZ, old)
  files.append_line(path, "three")
  assert path.read_text() == "one\nthree\n"
