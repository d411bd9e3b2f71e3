"""Arrays of strangers' workdirs and maps that claim to be small, or to be arrays."""

import io
import struct
import zipfile

import numpy as np
import pytest

from lgag_jax.runtime import array_files
from tests import peak_memory


def npz(path, members, method=zipfile.ZIP_DEFLATED):
  with zipfile.ZipFile(path, "w", method) as archive:
    for name, data in members.items():
      archive.writestr(name, data)


def test_a_member_that_is_no_array_is_refused(tmp_path):
  npz(tmp_path / "x.npz", {"a.npy": b"no array"})
  with pytest.raises(ValueError, match=r"x\.npz cannot be read: a is no array"):
    array_files.read_arrays(tmp_path / "x.npz", ("a",))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_arrays_are_deflated_or_stored(tmp_path, method):
  buffer = io.BytesIO()
  np.save(buffer, np.zeros(9))
  npz(tmp_path / "x.npz", {"a.npy": buffer.getvalue()}, method)
  with pytest.raises(ValueError, match=r"x\.npz cannot be read: .* another method than deflate"):
    array_files.read_arrays(tmp_path / "x.npz", ("a",))


def test_a_long_list_of_arrays_is_not_read(tmp_path):
  entry = b"PK\1\2" + bytes(24) + struct.pack("<HHHHHLL", 1, 0, 0, 0, 0, 0, 0) + b"b"
  entries = entry * (1 << 19)
  end = struct.pack("<HHHHLLH", 0, 0, 1, 1, len(entries), 0, 0)
  (tmp_path / "x.npz").write_bytes(entries + b"PK\5\6" + end)
  with pytest.raises(ValueError, match=r"x\.npz cannot be read: one of its headers exceeds"):
    array_files.read_arrays(tmp_path / "x.npz", ("a",))


GREEDY = """
import pathlib, sys, numpy as np
from lgag_jax import config
from lgag_jax.inference import colour_evidence
from lgag_jax.mapping import gate_windows
from tests import peak_memory

folder, count = pathlib.Path(sys.argv[1]), 3 << 20

def evidence():
  np.savez_compressed(folder / colour_evidence.FILE, log_ratio=np.zeros(9, "f4"), low=np.zeros(3, "f4"),
                      high=np.ones(3, "f4"), in_unit_range=True, bands=np.full(count, 1, "i8"))
  try:
    colour_evidence.load(folder, config.Config(), "x")
    raise SystemExit("It was read.")
  except ValueError:
    pass

def gate():
  windows = gate_windows.GateWindows(
    np.zeros((count, 1), "f4"), np.full((count, 4), 300, "i4"), np.zeros(0, "u1"))
  gate_windows.write(folder / "x.npz", windows)
  gate_windows.read(folder / "x.npz", (999, 999), 1).at(0.3, 0.7, (999, 999))

peak_memory.print_growths({"evidence": evidence, "gate": gate})
"""


def test_small_arrays_do_not_become_large_lists(tmp_path):
  for name, growth in peak_memory.growths(GREEDY, tmp_path).items():
    assert growth < 300, name
