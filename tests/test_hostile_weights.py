"""Weight files from anywhere: what runs code, lies about sizes, or unpacks to more than it seems."""

import io
import json
import pickle
import re
import struct
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from lgag_jax.trunks import weight_files
from lgag_jax.trunks.weight_files import read_tensors
from tests.test_pretrained import torch_pickle, write_legacy, write_zip

SMALL = {"a": np.arange(6, dtype=np.float32)}


def global_(module, name):
  return f"c{module}\n{name}\n".encode()


def text(value):
  return b"X" + struct.pack("<I", len(value)) + value.encode()


def chain(mark):
  """getattr(__import__('os'), 'system')('touch mark'): no name of it is os.system."""
  system = global_("builtins", "__import__") + b"(" + text("os") + b"tR"
  system = global_("builtins", "getattr") + b"(" + system + text("system") + b"tR"
  return b"\x80\x02" + system + b"(" + text(f"touch {mark}") + b"tR."


def by_dots(_):
  """Reaches past an admitted name, by a dotted path, as protocol 4 allows."""
  path = text("torch._utils") + text("_rebuild_tensor_v2.__globals__") + b"\x93"
  return b"\x80\x04" + path + b"."


def by_instance(mark):
  """The old INST and OBJ opcodes, which call too."""
  return b"(" + text(f"touch {mark}") + b"ios\nsystem\n."


def by_object(mark):
  return b"(" + global_("os", "system") + text(f"touch {mark}") + b"o."


def by_extension(mark):
  return b"\x80\x02\x82\x01(" + text(f"touch {mark}") + b"tR."


ATTACKS = {f.__name__: f for f in (chain, by_dots, by_instance, by_object, by_extension)}


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("attack", sorted(ATTACKS))
def test_no_opcode_runs_anything(attack, form, tmp_path):
  mark, path = tmp_path / "mark", tmp_path / "bad.pth"
  data = ATTACKS[attack](mark)
  if form == "zip":
    write_zip(path, {}, data=data)
  else:
    parts = [pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    path.write_bytes(b"".join([*parts, data, pickle.dumps([], 2)]))
  with pytest.raises(ValueError, match=r"bad\.pth cannot be read as weights"):
    read_tensors(path)
  assert not mark.exists()
  if attack in ("chain", "by_instance", "by_object"):  # The attack is a real one.
    pickle.load(io.BytesIO(data))
    assert mark.exists()


def test_admitted_names_cannot_be_bent(tmp_path):
  for name in ("torch._utils", "collections"):
    for attribute in ("__init__", "__globals__", "OrderedDict.__init__.__globals__"):
      data = b"\x80\x04" + text(name) + text(attribute) + b"\x93."
      write_zip(tmp_path / "bad.pth", {}, data=data)
      with pytest.raises(ValueError, match="which weights have no need of: refused"):
        read_tensors(tmp_path / "bad.pth")


def doubled(levels, *, lists=False):
  """A tuple (or list) made of two of the one before, and so on: small to write, endless to walk."""
  step = b"q\x00]q\x01(h\x00h\x00e" if lists else b"2\x86"
  return b")" + step * levels


@pytest.mark.parametrize("use", ["key", "persistent", "shape", "lists"])
def test_what_refers_to_itself_twice_over_takes_no_time(tmp_path, use):
  data = {
    "key": b"\x80\x02}" + doubled(60) + b"Ns.",
    "persistent": b"\x80\x02" + doubled(60) + b"Q.",
    "shape": b"\x80\x02" + global_("torch._utils", "_rebuild_tensor_v2") + b"(NK\x00" + doubled(60)
    + b"NtR.",
    "lists": b"\x80\x02(" + text("storage") + text("FloatStorage") + text("0")
    + doubled(60, lists=True) + b"NtQ.",
  }[use]
  write_zip(tmp_path / "bad.pth", {}, data=data)
  started = time.monotonic()
  with pytest.raises(ValueError, match=r"bad\.pth cannot be read") as caught:
    read_tensors(tmp_path / "bad.pth")
  assert time.monotonic() - started < 2.0
  assert len(str(caught.value)) < 2000


MEASURE = """
import json, os, sys
from lgag_jax.trunks.weight_files import read_tensors
peak = lambda: int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
for path in sys.argv[1:]:
  if os.fork():  # A process a file, or one's peak would hide another's.
    assert os.wait()[1] == 0
    continue
  before = peak()
  try:
    said = str({n: t.shape for n, t in read_tensors(path).items()})
  except ValueError as error:
    said = str(error)
  print(json.dumps([path, said, (peak() - before) / 1024]), flush=True)
  os._exit(0)
"""


def npy_header(shape, dtype="<f4"):
  buffer = io.BytesIO()
  np.lib.format.write_array_header_1_0(
    buffer, {"descr": dtype, "fortran_order": False, "shape": shape}
  )
  return buffer.getvalue()


def safetensors_header(content, length=None):
  head = content if isinstance(content, bytes) else json.dumps(content).encode()
  return struct.pack("<Q", len(head) if length is None else length) + head + bytes(64)


def zipped(path, name, data, method=zipfile.ZIP_DEFLATED, claimed=None):
  with zipfile.ZipFile(path, "w", method) as archive, archive.open(name, "w", force_zip64=True) as out:
    for part in data:
      out.write(part)


def f32(offsets, shape=(4,)):
  return {"dtype": "F32", "shape": list(shape), "data_offsets": offsets}


FILES = {
  # Suffix, content: bytes, or what writes the file; what the refusal says.
  "npz-shape": (".npz", lambda p: zipped(p, "a.npy", [npy_header((1 << 40,)), bytes(64)]), ""),
  "npz-negative": (".npz", lambda p: zipped(p, "a.npy", [npy_header((-1, 4)), bytes(64)]), ""),
  "npz-bomb": (
    ".npz", lambda p: zipped(p, "a.npy", [npy_header((520 << 20,))] + [bytes(1 << 20)] * 2080),
    "unpacks to .* more than"),
  "npz-lzma": (
    ".npz", lambda p: zipped(p, "a.npy", [npy_header((16,)), bytes(64)], zipfile.ZIP_LZMA),
    "another method than deflate"),
  "npz-raw": (".npz", lambda p: zipped(p, "a.txt", [b"x"]), "'a.txt' is no array"),
  "npz-pickle": (".npz", pickle.dumps({"a": 1}), ""),
  "npz-npy": (".npz", npy_header((1 << 40,)) + bytes(64), ""),
  "safetensors-length": (".safetensors", safetensors_header(b"{}", 1 << 60), "header claims"),
  "safetensors-json": (".safetensors", safetensors_header(b"[" * 100_000), ""),
  "safetensors-outside": (".safetensors", safetensors_header({"a": f32([0, 1 << 40])}), ""),
  "safetensors-shape": (".safetensors", safetensors_header({"a": f32([0, 16], (1 << 62,))}), ""),
  "safetensors-negative": (".safetensors", safetensors_header({"a": f32([-16, 0])}), ""),
  "safetensors-overlap": (
    ".safetensors", safetensors_header({"a": f32([0, 16]), "b": f32([0, 16])}), ""),
  "pth-deflated": (
    ".pth", lambda p: zipped(p, "archive/data.pkl", [bytes(1 << 20)] * 200), "compressed"),
  "pth-marks": (
    ".pth", lambda p: write_zip(p, {}, data=b"\x80\x02" + b"(" * (16 << 20)), "pickle takes more than"),
  "pth-memo": (".pth", lambda p: write_zip(p, {}, data=b"\x80\x02Nr\xff\xff\xff\x7f."), ""),
  "pth-bytes": (".pth", lambda p: write_zip(p, {}, data=b"\x80\x04\x8e" + b"\xff" * 7 + b"\x00."), ""),
  "pth-array": (".pth", lambda p: write_zip(p, {}, data=b"\x80\x05\x96" + b"\xff" * 5 + b"\0" * 3), ""),
  "pth-frame": (".pth", lambda p: write_zip(p, {}, data=b"\x80\x04\x95" + b"\xff" * 7 + b"\0."), ""),
  "pth-no-text": (".pth", lambda p: write_zip(p, {}, data=b"\x80\x02}K\x01Ns."), "which is no text"),
  "legacy-memo": (".pth", b"\x80\x02Nr\xff\xff\xff\x7f.", ""),
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
  """What reading each of FILES says, and by how many MiB it makes a process grow."""
  folder, names = tmp_path_factory.mktemp("claims"), {}
  for name, (suffix, content, _) in FILES.items():
    path = folder / name / f"bad{suffix}"
    path.parent.mkdir()
    names[str(path)] = name
    if callable(content):
      content(path)
    else:
      path.write_bytes(content)
    assert path.stat().st_size < 20_000_000
  run = subprocess.run(
    [sys.executable, "-c", MEASURE, *names], capture_output=True, text=True, check=True, timeout=120
  )
  lines = [json.loads(line) for line in run.stdout.splitlines()]
  return {names[path]: (said, growth) for path, said, growth in lines}


@pytest.mark.parametrize("name", sorted(FILES))
def test_claims_take_no_memory(name, measured):
  said, growth = measured[name]
  assert "cannot be read as weights" in said and "Fetch it again" in said, said
  assert re.search(FILES[name][2], said), said
  # The list of marks that a pickle may leave is the most.
  assert growth < (900 if name == "pth-marks" else 150), f"{growth} MiB"


def test_entries_that_share_their_bytes_are_counted_each(tmp_path, monkeypatch):
  """Many entries of a zip file may point to the same bytes, so the file's size bounds nothing."""
  monkeypatch.setattr(weight_files, "_MAX_BYTES", 100_000)
  path = tmp_path / "a.npz"
  np.savez_compressed(path, **{f"t{i}": np.zeros(5000, np.float32) for i in range(6)})
  assert path.stat().st_size < 10_000
  with pytest.raises(ValueError, match=r"unpacks to 1207\d\d bytes, more than 100000"):
    read_tensors(path)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pth"])
def test_a_file_of_any_size_is_not_read(tmp_path, suffix):
  path = tmp_path / f"huge{suffix}"
  with path.open("wb") as file:
    file.truncate(1 << 40)  # Sparse: takes no room.
  with pytest.raises(ValueError, match=r"it has 1099511627776 bytes, more than"):
    read_tensors(path)


def test_limits_are_far_from_real_files(tmp_path):
  for name, write in (("z.pth", write_zip), ("l.pth", write_legacy)):
    tensors = {f"layer{i}.weight": np.full((3, 2), i, np.float32) for i in range(3000)}
    write(tmp_path / name, tensors)
    assert len(torch_pickle(tensors)) < weight_files._MAX_PICKLE
    got = read_tensors(tmp_path / name)
    np.testing.assert_array_equal(got["layer2999.weight"], tensors["layer2999.weight"])
  safetensors.numpy.save_file(SMALL, tmp_path / "a.safetensors")
  assert read_tensors(tmp_path / "a.safetensors")["a"].shape == (6,)
