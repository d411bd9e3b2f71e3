"""Floating-point tensors of an ONNX file, read without the onnx package, which is not a dependency.

The file may come from anywhere. Every length in it is checked against the bytes that are there, the
number of fields is bounded, and tensors are views of the file's bytes. The numbers of fields are those
of onnx.proto3, and their encoding is protobuf's (https://protobuf.dev/programming-guides/encoding).
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np

_MAX_FIELDS = 1 << 20  # A ViT-L has some fifty thousand.
_MAX_AXES = 8
_MAX_NAME = 1 << 10  # Bytes.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # Wire types.
_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER = 1, 5
_NODE_INPUT, _NODE_OUTPUT, _NODE_TYPE = 1, 2, 4
_DIMS, _DATA_TYPE, _FLOAT_DATA, _NAME, _RAW_DATA, _LOCATION = 1, 2, 4, 8, 9, 14
_FLOAT = 1
_DTYPES = {_FLOAT: np.float32, 10: np.float16, 11: np.float64, 16: ml_dtypes.bfloat16}


class _Node(NamedTuple):
  operation: str
  inputs: list[str]
  outputs: list[str]


def read_onnx(path: str) -> dict[str, np.ndarray]:
  """Returns the file's floating-point initializers by name, read-only.

  An exported linear layer has a kernel [in, out] without a name of its own. The bias that is added to
  the product has one, so the kernel of "a.bias" is returned as "a.weight", [out, in]. Raises
  ValueError for a file that is damaged or that keeps its tensors in other files.
  """
  parser = _Parser()
  tensors, nodes = {}, []
  for number, graph in parser.fields(memoryview(Path(path).read_bytes())):
    if number != _MODEL_GRAPH:
      continue
    for field, content in parser.fields(_as_bytes(graph)):
      if field == _GRAPH_INITIALIZER:
        name, tensor = parser.tensor(_as_bytes(content))
        if name in tensors:
          raise ValueError(f"two of its tensors are called {name!r}")
        if tensor is not None:
          tensors[name] = tensor
      elif field == _GRAPH_NODE:
        nodes.append(parser.node(_as_bytes(content)))
  if not tensors:
    raise ValueError("it holds no floating-point tensor")
  return _with_named_kernels(tensors, nodes)


class _Parser:
  """Reads protobuf messages; counts their fields over the whole file."""

  def __init__(self):
    self._left = _MAX_FIELDS

  def _count(self) -> None:
    self._left -= 1
    if self._left < 0:
      raise ValueError(f"it has more than {_MAX_FIELDS} fields")

  def fields(self, data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yields the number and the content of each field of a message."""
    position = 0
    while position < len(data):
      self._count()
      key, position = _varint(data, position)
      number, kind = key >> 3, key & 7
      if kind == _VARINT:
        value, position = _varint(data, position)
        yield number, value
        continue
      if kind == _BYTES:
        size, position = _varint(data, position)
      elif kind in (_FIXED32, _FIXED64):
        size = 4 if kind == _FIXED32 else 8
      else:
        raise ValueError(f"it has a field of the unknown wire type {kind}")
      if size > len(data) - position:
        raise ValueError(f"a field claims {size} bytes where {len(data) - position} are left")
      yield number, data[position : position + size]
      position += size

  def node(self, data: memoryview) -> _Node:
    """Reads a node's operation and the names of its inputs and outputs."""
    operation, inputs, outputs = "", [], []
    for number, content in self.fields(data):
      if number == _NODE_INPUT:
        inputs.append(_as_text(content))
      elif number == _NODE_OUTPUT:
        outputs.append(_as_text(content))
      elif number == _NODE_TYPE:
        operation = _as_text(content)
    return _Node(operation, inputs, outputs)

  def tensor(self, data: memoryview) -> tuple[str, np.ndarray | None]:
    """Reads a tensor and its name; None for one that does not hold floating-point numbers."""
    name, data_type, shape, raw, floats = "", 0, [], None, []
    for number, content in self.fields(data):
      if number == _NAME:
        name = _as_text(content)
      elif number == _DATA_TYPE:
        data_type = content
      elif number == _DIMS:
        shape += [content] if isinstance(content, int) else self._packed(content)
      elif number == _RAW_DATA:
        raw = _as_bytes(content)
      elif number == _FLOAT_DATA:
        floats.append(_as_bytes(content))
      elif number == _LOCATION and content != 0:
        raise ValueError(f"{name!r} lies in another file; save the model as one file")
      if len(shape) > _MAX_AXES:
        raise ValueError(f"{name!r} has more than {_MAX_AXES} axes")
    if data_type not in _DTYPES:
      return name, None
    if raw is None and data_type == _FLOAT:
      raw = b"".join(floats)
    dtype, size = np.dtype(_DTYPES[data_type]).newbyteorder("<"), len(raw or b"")
    if math.prod(shape) * dtype.itemsize != size:
      raise ValueError(f"{name!r} has the shape {shape} and the type {dtype}, but {size} bytes")
    return name, np.frombuffer(raw or b"", dtype).reshape(shape) if size else np.zeros(shape, dtype)

  def _packed(self, data: memoryview) -> list[int]:
    position, values = 0, []
    while position < len(data) and len(values) <= _MAX_AXES:
      self._count()
      value, position = _varint(data, position)
      values.append(value)
    return values


def _varint(data: memoryview, position: int) -> tuple[int, int]:
  """Returns a number of at most 64 bits and the position after it."""
  value = 0
  for index, byte in enumerate(data[position : position + 10]):
    value |= (byte & 127) << (7 * index)
    if byte < 128:
      return value & (2**64 - 1), position + index + 1
  raise ValueError("it ends within a number, or has a number of more than ten bytes")


def _as_bytes(content: int | memoryview) -> memoryview:
  if isinstance(content, int):
    raise ValueError("it has a number where bytes are expected")
  return content


def _as_text(content: int | memoryview) -> str:
  if len(data := _as_bytes(content)) > _MAX_NAME:
    raise ValueError(f"it has a name of {len(data)} bytes, more than {_MAX_NAME}")
  return str(data, "utf-8")


def _with_named_kernels(tensors: dict[str, np.ndarray], nodes: list[_Node]) -> dict[str, np.ndarray]:
  """Names the kernel of each product after the bias that is added to it."""
  biases = {}  # Of each product, by the name of its output.
  for node in nodes:
    if node.operation == "Add" and len(node.inputs) == 2:
      for product, bias in (node.inputs, node.inputs[::-1]):
        if bias in tensors and bias.endswith(".bias"):
          biases[product] = bias
  kernels, weights = set(), {}
  for node in nodes:
    if node.operation != "MatMul" or len(node.inputs) != 2 or len(node.outputs) != 1:
      continue
    kernel, bias = node.inputs[1], biases.get(node.outputs[0])
    if bias is None or kernel not in tensors or tensors[kernel].ndim != 2:
      continue
    name = bias.removesuffix("bias") + "weight"
    if name in weights or name in tensors.keys() - {kernel}:
      raise ValueError(f"{kernel!r} is not the only kernel of {bias!r}")
    kernels.add(kernel)
    weights[name] = tensors[kernel].T
  return {name: tensor for name, tensor in tensors.items() if name not in kernels} | weights
