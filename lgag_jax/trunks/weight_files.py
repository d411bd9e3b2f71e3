"""Tensors from .safetensors, .npz, .onnx and torch files, without torch or free unpickling.

Such files may come from anywhere: nothing in them is run, and what they can make of memory and time is
bounded by their size, which is bounded too.
"""

import collections
import math
import os
import pickle
import reprlib
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np
import safetensors.numpy

from lgag_jax.runtime import array_files, files
from lgag_jax.trunks.onnx_weights import read_onnx

_MAX_BYTES = 1 << 31  # Of a file, and of what it unpacks to: a ViT-L takes 1.2 GB.
_MAX_HEADER = 1 << 24  # Of a .safetensors file's list of tensors: some hundred thousand names.
_MAX_PICKLE = 1 << 22  # Of a torch file's pickle, whose every byte may become an object.
_MAX_TUPLE, _MAX_DEPTH = 64, 3  # State dicts have tuples of six in each other, at most two deep.
_LEGACY_MAGIC, _LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_STORAGES = {
  "DoubleStorage": np.float64, "FloatStorage": np.float32, "HalfStorage": np.float16,
  "BFloat16Storage": ml_dtypes.bfloat16, "LongStorage": np.int64, "IntStorage": np.int32,
  "ShortStorage": np.int16, "CharStorage": np.int8, "ByteStorage": np.uint8, "BoolStorage": bool,
}

# A storage's kind is a key of _STORAGES, its length a number of elements.
_Storage = collections.namedtuple("_Storage", "kind key length")
_Tensor = collections.namedtuple("_Tensor", "storage offset size stride")


class _Counted:
  """A file for one pickle, which may take at most _MAX_PICKLE bytes of it."""

  def __init__(self, file: IO[bytes]):
    self._file, self._left = file, _MAX_PICKLE

  def read(self, size: int) -> bytes:
    return self._count(self._file.read(min(size, self._left + 1)))

  def readline(self) -> bytes:
    return self._count(self._file.readline(self._left + 1))

  def _count(self, data: bytes) -> bytes:
    self._left -= len(data)
    if self._left < 0:
      raise ValueError(f"its pickle takes more than {_MAX_PICKLE} bytes")
    return data


# Python's own, not C's: C's takes memory for as many memos as a pickle claims, and cannot be told what
# a tuple may hold. State dicts are small, so it is fast enough.
class _Unpickler(pickle._Unpickler):
  """Admits what a state dict is made of; tensors come out as descriptions of themselves.

  What it hands to the pickle must not be changeable by it, since a pickle can set attributes:
  strings for storage types, bound methods for functions, named tuples for what they return.
  """

  stack: list  # The standard library sets it; its type stubs leave it out.

  def __init__(self, file: IO[bytes]):
    super().__init__(_Counted(file))
    self.storages: dict[str, _Storage] = {}

  def find_class(self, module: str, name: str) -> Any:
    admitted = {
      "collections.OrderedDict": collections.OrderedDict,
      "torch._utils._rebuild_tensor_v2": self._tensor,
      "torch._utils._rebuild_parameter": self._parameter,
    } | {f"torch.{kind}": kind for kind in _STORAGES}
    if f"{module}.{name}" not in admitted:
      raise ValueError(f"it asks for {module}.{name}, which weights have no need of: refused")
    return admitted[f"{module}.{name}"]

  def persistent_load(self, pid: Any) -> _Storage:
    tag, kind, key, _, length, *view = pid
    known = tag == "storage" and type(kind) is str and kind in _STORAGES
    if not known or type(key) is not str or type(length) is not int or any(view):
      raise ValueError(f"storage {reprlib.repr(pid)} has no known form")
    storage = _Storage(kind, key, length)
    if self.storages.setdefault(storage.key, storage) != storage:
      raise ValueError(f"storage {key} is declared twice, differently")
    return storage

  def _tensor(self, storage, offset, size, stride, *_) -> _Tensor:
    return _Tensor(storage, offset, size, stride)

  def _parameter(self, tensor, *_) -> _Tensor:
    return tensor


def _with_checked_tuple(load: Callable[[Any], None]) -> Callable[[Any], None]:
  def checked(unpickler: _Unpickler) -> None:
    load(unpickler)
    if _too_large(unpickler.stack[-1], _MAX_DEPTH):
      raise ValueError("it holds a tuple that is larger than any of a state dict")

  return checked


def _too_large(value: Any, depth: int) -> bool:
  """Whether a tuple would take for ever to hash or print, as one made of itself twice, and so on."""
  if not isinstance(value, tuple):
    return False
  return depth == 0 or len(value) > _MAX_TUPLE or any(_too_large(v, depth - 1) for v in value)


_Unpickler.dispatch = pickle._Unpickler.dispatch | {
  code[0]: _with_checked_tuple(pickle._Unpickler.dispatch[code[0]])
  for code in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3)
}


def read_tensors(path: str) -> dict[str, np.ndarray]:
  """Reads every tensor of a .safetensors, .npz, .onnx, .pth or .pt file, read-only or not.

  Raises ValueError, naming the file and the remedy, for any other suffix, for a damaged file and
  for a pickle that asks for anything but tensors.
  """
  suffix = Path(path).suffix.lower()
  readers = {".safetensors": _read_safetensors, ".npz": _read_npz, ".onnx": read_onnx}
  readers |= {".pth": _read_torch, ".pt": _read_torch}
  if suffix not in readers:
    raise ValueError(f"{path}: its suffix is none of {', '.join(readers)}; convert it to one")
  with files.open_regular(Path(path)) as file:  # No pipe waits. A missing file fails as files do.
    size = os.fstat(file.fileno()).st_size
  try:
    if size > _MAX_BYTES:
      raise ValueError(f"it has {size} bytes, more than {_MAX_BYTES}")
    return readers[suffix](path)
  except Exception as error:  # Damaged bytes can raise nearly anything from the parsers.
    raise ValueError(
      f"{path} cannot be read as weights: {type(error).__name__}, {error}. Fetch it again, or save"
      " the model's plain state dict anew on a little-endian machine, best as .safetensors"
    ) from error


def _read_safetensors(path: str) -> dict[str, np.ndarray]:
  with open(path, "rb") as file:
    (length,) = struct.unpack("<Q", file.read(8))
  if length > _MAX_HEADER:
    raise ValueError(f"its header claims {length} bytes, more than {_MAX_HEADER}")
  return safetensors.numpy.load_file(path)


def _read_npz(path: str) -> dict[str, np.ndarray]:
  _check_zip(path)
  with np.load(path, allow_pickle=False) as arrays:
    tensors = dict(arrays)
  strange = [name for name, array in tensors.items() if not isinstance(array, np.ndarray)]
  if strange:
    raise ValueError(f"{strange[0]!r} is no array")
  return tensors


def _check_zip(path: str) -> None:
  """Raises ValueError for a zip file that would take more memory than weights may."""
  with open(path, "rb") as file:
    # No more than this is read of an entry, whatever it would unpack to.
    total = sum(entry.file_size for entry in array_files.entries(file))
  if total > _MAX_BYTES:
    raise ValueError(f"it unpacks to {total} bytes, more than {_MAX_BYTES}")


def _read_torch(path: str) -> dict[str, np.ndarray]:
  entries, buffers = (_read_zip if zipfile.is_zipfile(path) else _read_legacy)(path)
  if not isinstance(entries, dict):
    raise ValueError(f"it holds a {type(entries).__name__}, not a state dict")
  strange = [name for name in entries if type(name) is not str]
  if strange:
    raise ValueError(f"it names a tensor {reprlib.repr(strange[0])}, which is no text")
  return {name: _view(name, tensor, buffers) for name, tensor in entries.items()}


def _read_zip(path: str) -> tuple[Any, dict[str, bytes]]:
  _check_zip(path)
  with zipfile.ZipFile(path) as archive:
    names = set(archive.namelist())
    roots = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
    if len(roots) != 1:
      raise ValueError("it is a zip file, but holds no data.pkl, or several")
    # Torch compresses nothing; anything else may unpack to more than memory holds.
    if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
      raise ValueError("it holds compressed entries")
    if f"{roots[0]}byteorder" in names and archive.read(f"{roots[0]}byteorder") != b"little":
      raise ValueError("it was written on a big-endian machine")
    with archive.open(f"{roots[0]}data.pkl") as file:
      unpickler = _Unpickler(file)
      entries = unpickler.load()
    return entries, {key: archive.read(f"{roots[0]}data/{key}") for key in unpickler.storages}


def _read_legacy(path: str) -> tuple[Any, dict[str, bytes]]:
  with open(path, "rb") as file:
    magic, protocol, system = (_Unpickler(file).load() for _ in range(3))
    if (magic, protocol, system["little_endian"]) != (_LEGACY_MAGIC, _LEGACY_PROTOCOL, True):
      raise ValueError("it is no torch file, of an unknown version, or from a big-endian machine")
    unpickler, buffers = _Unpickler(file), {}
    entries, keys = unpickler.load(), _Unpickler(file).load()
    for key in keys:
      (length,) = struct.unpack("<q", file.read(8))
      count = length * np.dtype(_STORAGES[unpickler.storages[key].kind]).itemsize
      left = os.fstat(file.fileno()).st_size - file.tell()
      if not 0 <= count <= left:
        raise ValueError(f"storage {key} takes {count} bytes where {left} are left")
      buffers[key] = file.read(count)
    return entries, buffers


def _view(name: str, tensor: Any, buffers: dict[str, bytes]) -> np.ndarray:
  """Cuts one tensor out of its storage, after checking that it lies inside."""
  if not isinstance(tensor, _Tensor) or not isinstance(tensor.storage, _Storage):
    raise ValueError(f"entry {name!r} is a {type(tensor).__name__}, not a tensor")
  storage, offset, size, stride = tensor
  dtype, buffer = np.dtype(_STORAGES[storage.kind]), buffers[storage.key]
  if len(buffer) != storage.length * dtype.itemsize:
    raise ValueError(f"{name!r} has {len(buffer)} bytes, not {storage.length} {dtype} numbers")
  numbers = (offset, *size, *stride)
  if len(size) != len(stride) or any(type(n) is not int or n < 0 for n in numbers):
    raise ValueError(f"{name!r} has offset, size and stride {reprlib.repr(tensor[1:])}")
  if 0 in size:
    return np.zeros(size, dtype)
  end = offset + 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
  # The product matters where stride zero would turn one element into any number of them.
  if max(end, math.prod(size)) > storage.length:
    raise ValueError(f"{name!r}, {reprlib.repr(tensor[1:])}, ends after its storage, {storage.length}")
  strides = [n * dtype.itemsize for n in stride]
  return np.ndarray(size, dtype, buffer, offset * dtype.itemsize, strides)
