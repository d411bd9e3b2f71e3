"""Published weights of DINOv2 and DINOv3 in the names and layout that a Vision Transformer reads.

The names are those of Hugging Face's models. An ONNX file made from such a model has them, too, behind
a prefix such as "backbone.".
"""

import math
import re
from collections.abc import Iterable

import numpy as np

# Tensors that a trunk does not use.
UNUSED = ("embeddings.mask_token", "layernorm.", "rope_embeddings.")

_CLASS_TOKEN, _POSITIONS = "embeddings.cls_token", "embeddings.position_embeddings"
_REGISTERS = "embeddings.register_tokens"
# Two leaves are made of several tensors; these are their names in messages.
_PREFIX = "embeddings.cls_token with embeddings.register_tokens"
_PATCH_POSITIONS = "embeddings.position_embeddings of the patches"

_LEAVES = {
  "query": "attention.attention.query", "key": "attention.attention.key",
  "value": "attention.attention.value", "output": "attention.output.dense",
}
# DINOv3's names (patterns), and DINOv2's for the same tensors.
_RENAMED = (
  (r"^layer\.", "encoder.layer."),
  (r"^norm\.", "layernorm."),
  (r"^embeddings\.patch_embeddings\.(weight|bias)$", r"embeddings.patch_embeddings.projection.\1"),
  (r"\.attention\.o_proj\.", ".attention.output.dense."),
  (r"\.attention\.q_proj\.", ".attention.attention.query."),
  (r"\.attention\.k_proj\.", ".attention.attention.key."),
  (r"\.attention\.v_proj\.", ".attention.attention.value."),
  (r"\.up_proj\.", ".fc1."),
  (r"\.down_proj\.", ".fc2."),
)


def published_name(leaf: tuple[str, ...]) -> str:
  """Names a leaf, such as ("params", "stage1", "block0", "norm1", "scale"), as `prepare` does."""
  _, stage, *block, kind = leaf
  kind = {"kernel": "weight", "scale": "weight"}.get(kind, kind)
  if stage == "stem":
    return {"positions": _PATCH_POSITIONS}.get(kind, f"embeddings.patch_embeddings.projection.{kind}")
  if kind == "prefix":
    return _PREFIX
  name, *layer = block
  prefix = f"encoder.layer.{name.removeprefix('block')}"
  if not layer:
    return f"{prefix}.layer_{kind[:-1]}{kind[-1]}.lambda1"
  if layer[0] == "attention":
    return f"{prefix}.{_LEAVES[layer[1]]}.{kind}"
  return ".".join([prefix, *layer, kind])


def prepare(tensors: dict[str, np.ndarray], names: Iterable[str]) -> dict[str, np.ndarray]:
  """Returns the backbone's tensors under the names of `published_name`.

  Everything outside the backbone and every block after the last one in `names` is omitted. Kernels
  are [out, in, 1, 1], as `pretrained.load_trunk` expects them. Raises ValueError unless there is
  exactly one class token.
  """
  roots = [name.removesuffix(_CLASS_TOKEN) for name in tensors if name.endswith(_CLASS_TOKEN)]
  if len(roots) != 1:
    raise ValueError(
      f"{len(roots)} tensors are called {_CLASS_TOKEN}, not one; Hugging Face's names are expected"
    )
  inside = {
    name.removeprefix(roots[0]): tensor for name, tensor in tensors.items() if name.startswith(roots[0])
  }
  anonymous = [tensor for name, tensor in tensors.items() if not name.startswith(roots[0])]
  _join_prefix(inside, anonymous)
  _join_gates(inside)
  depth = 1 + max((_block(name) for name in names), default=-1)
  prepared = {}
  for name, tensor in inside.items():
    for pattern, replacement in _RENAMED:
      name = re.sub(pattern, replacement, name)
    if _block(name) < depth:
      is_kernel = tensor.ndim == 2 and name.endswith(".weight")
      prepared[name] = tensor[:, :, None, None] if is_kernel else tensor
  return prepared


def _block(name: str) -> int:
  """Returns the number of the block that a tensor belongs to; -1 if it belongs to none."""
  match = re.match(r"encoder\.layer\.(\d{1,4})\.", name)
  return int(match[1]) if match else -1


def _join_prefix(tensors: dict[str, np.ndarray], anonymous: list[np.ndarray]) -> None:
  """Replaces tokens and position embeddings by the two tensors that the trunk reads."""
  token = tensors.pop(_CLASS_TOKEN)
  width = token.shape[-1] if token.ndim else 0
  positions = tensors.pop(_POSITIONS, None)
  positions = _find_positions(anonymous, width) if positions is None else positions
  registers = tensors.pop(_REGISTERS, np.zeros((1, 0, width), token.dtype))
  parts = {_CLASS_TOKEN: token, _POSITIONS: positions, _REGISTERS: registers}
  for name, part in parts.items():
    if part is not None and (part.ndim != 3 or part.shape[::2] != (1, width)):
      raise ValueError(f"{name} has shape {part.shape}, not (1, number, {width})")
  if positions is not None:
    side = math.isqrt(positions.shape[1] - 1)
    token = token + positions[:, :1]
    tensors[_PATCH_POSITIONS] = positions[0, 1:].reshape(side, side, width)
  tensors[_PREFIX] = np.concatenate([token, registers], axis=1)


def _find_positions(anonymous: list[np.ndarray], width: int) -> np.ndarray | None:
  """Joins the two parts of the position embeddings that an ONNX export cuts and leaves unnamed.

  Their shapes, [1, 1, D] and [1, n * n, D], tell them; None unless there is exactly one of each.
  """
  rows = [tensor for tensor in anonymous if tensor.ndim == 3 and tensor.shape[::2] == (1, width)]
  of_class = [tensor for tensor in rows if tensor.shape[1] == 1]
  of_patches = [t for t in rows if t.shape[1] > 1 and math.isqrt(t.shape[1]) ** 2 == t.shape[1]]
  if len(of_class) != 1 or len(of_patches) != 1:
    return None
  return np.concatenate([of_class[0], of_patches[0]], axis=1)


def _join_gates(tensors: dict[str, np.ndarray]) -> None:
  """Gives DINOv3's gated MLPs the form of DINOv2's: gate and values in one tensor."""
  for gate in [name for name in tensors if ".gate_proj." in name]:
    up, down = (gate.replace("gate_proj", layer) for layer in ("up_proj", "down_proj"))
    if missing := [name for name in (up, down) if name not in tensors]:
      raise ValueError(f"{missing[0]} is missing")
    parts = [tensors.pop(gate), tensors.pop(up)]
    tensors[gate.replace("gate_proj", "weights_in")] = np.concatenate(parts)
    tensors[gate.replace("gate_proj", "weights_out")] = tensors.pop(down)
