"""Files are written completely or not at all."""

import errno
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from lgag_jax import config
from lgag_jax.blocks import region_files
from lgag_jax.geo import scale
from lgag_jax.imagery import tables
from lgag_jax.runtime import array_files, files

CONFIG = config.Config()


def test_a_failed_write_leaves_the_old_json(tmp_path):
  path = tmp_path / "folder" / "x.json"
  files.write_json(path, {"a": 1})
  with pytest.raises(TypeError, match="not JSON serializable"):
    files.write_json(path, {"a": object()})
  assert json.loads(path.read_text()) == {"a": 1}
  assert os.listdir(path.parent) == ["x.json"]


def test_the_partial_file_keeps_the_suffix(tmp_path):
  with files.atomic_path(tmp_path / "x.npz") as partial:
    np.savez(partial, a=np.arange(3))
    assert os.listdir(tmp_path) == [partial.name]
  assert os.listdir(tmp_path) == ["x.npz"]
  assert np.load(tmp_path / "x.npz")["a"].tolist() == [0, 1, 2]


def test_an_error_of_a_full_disk_names_the_file(tmp_path):
  path = tmp_path / "x.txt"
  files.write_text(path, "old")

  def fill():
    with files.atomic_path(path) as partial:
      partial.write_text("ne")
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  with pytest.raises(OSError, match=r"No space left on device.*x\.txt"):
    fill()
  assert path.read_text() == "old"
  assert os.listdir(tmp_path) == ["x.txt"]


def test_a_partial_file_of_a_killed_run_is_overwritten(tmp_path):
  with files.atomic_path(tmp_path / "x.txt") as partial:
    partial.touch()
  partial.write_text("much more than the new text")  # A kill within the block leaves this.
  files.write_text(tmp_path / "x.txt", "new")
  assert (tmp_path / "x.txt").read_text() == "new"
  assert os.listdir(tmp_path) == ["x.txt"]


def test_a_line_is_appended_completely_or_not_at_all(tmp_path):
  path = tmp_path / "x.jsonl"
  files.append_line(path, "one")
  _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  resource.setrlimit(resource.RLIMIT_FSIZE, (8, hard))  # Only half of the next line fits.
  try:
    with pytest.raises(OSError, match=r"No space left on device.*x\.jsonl"):
      files.append_line(path, "second line")
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    signal.signal(signal.SIGXFSZ, old)
  files.append_line(path, "three")
  assert path.read_text() == "one\nthree\n"


@pytest.mark.parametrize("header", [
  "{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776, 99999)}", "-" * 9000 + "1",
  "{'descr': '|u1', 'fortran_order': False, 'shape': (" + "(" * 4000, "{'shape'",
])
def test_headers_of_arrays_are_not_believed(tmp_path, header):
  data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header.encode() + b"\n"
  with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
    archive.writestr("a.npy", data)
  with pytest.raises(ValueError, match=r"x\.npz cannot be read: .*Run --mode=eval again"):
    array_files.read_arrays(tmp_path / "x.npz", ("a",))


@pytest.mark.parametrize("read", [
  files.read_json, files.read_json_lines, config.load, lambda path: scale.load(path.parent, CONFIG),
  lambda path: array_files.read_arrays(path, ("a",)), region_files.read,
  lambda path: tables.read_table(path, ("a",)),
])
def test_a_pipe_is_not_waited_for(tmp_path, read):
  os.mkfifo(tmp_path / "scale.json")
  with pytest.raises(ValueError, match=r"scale\.json is .*not a regular file"):
    read(tmp_path / "scale.json")


def test_a_config_of_gibibytes_is_not_read(tmp_path):
  with (tmp_path / "config.json").open("wb") as file:
    file.truncate(1 << 40)
  with pytest.raises(ValueError, match=r"config\.json is no valid config: it has more than 1 MiB"):
    config.load(tmp_path / "config.json")


@pytest.mark.parametrize("name", ["model.safetensors", "w.npz", "w.onnx", "w.pth"])
def test_weights_wait_for_no_pipe(tmp_path, name):
  os.mkfifo(tmp_path / name)
  code = f"from lgag_jax.trunks import weight_files; weight_files.read_tensors({name!r})"
  done = subprocess.run(
    [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    env={**os.environ, "PYTHONPATH": os.getcwd()})
  assert f"{name} is not a regular file" in done.stderr
