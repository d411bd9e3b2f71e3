"""How a Vision Transformer learns where a patch lies: interpolated embeddings, or rotary positions."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_CUBIC = -0.75  # The coefficient of PyTorch's bicubic interpolation.
_THETA = 100.0  # The base of the frequencies of DINOv3's rotations.


def cubic_weights(size: int, new_size: int) -> np.ndarray:
  """Returns the matrix f32[new_size, size] that interpolates as PyTorch's bicubic mode does.

  Pixels are aligned by their centres, borders are repeated, and shrinking does not antialias.
  """
  centres = (np.arange(new_size) + 0.5) * size / new_size - 0.5
  first = np.floor(centres).astype(int)
  weights = np.zeros((new_size, size))
  for offset in range(-1, 3):
    distance = np.abs(centres - first - offset)
    near = ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance**2 + 1
    far = _CUBIC * (((distance - 5) * distance + 8) * distance - 4)
    columns = np.clip(first + offset, 0, size - 1)
    np.add.at(weights, (np.arange(new_size), columns), np.where(distance <= 1, near, far))
  return weights.astype(np.float32)


def resize_positions(
  positions: Float[Array, "n n D"], grid: tuple[int, ...], *, antialias: bool
) -> Float[Array, "h w D"]:
  """Interpolates position embeddings bicubically to another grid.

  Hugging Face antialiases for models with registers, as they were trained, and not for the others.
  """
  if positions.shape[:2] == grid:
    return positions
  if antialias:
    return jax.image.resize(positions, (*grid, positions.shape[2]), "cubic", antialias=True)
  rows, columns = (cubic_weights(len(positions), size) for size in grid)
  return jnp.einsum("hi,wj,ijd->hwd", rows, columns, positions)


def rotation(grid: tuple[int, ...], prefix: int, head_width: int) -> np.ndarray:
  """Returns DINOv3's rotary positions: cosines and sines f32[2, prefix + h * w, head_width].

  The prefix tokens are not rotated.
  """
  rows, columns = (2 * (np.arange(size) + 0.5) / size - 1 for size in grid)
  centres = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
  frequencies = _THETA ** -np.arange(0, 1, 4 / head_width)
  angles = (2 * np.pi * centres[:, :, None] * frequencies).reshape(len(centres), -1)
  angles = np.pad(np.tile(angles, 2), ((prefix, 0), (0, 0)))
  return np.stack([np.cos(angles), np.sin(angles)]).astype(np.float32)


def rotate(x: Float[Array, "B T heads d"], table: np.ndarray) -> Array:
  """Rotates each pair of numbers that lie half a head apart by its token's angles."""
  cosines, sines = table[:, :, None]
  first, second = jnp.split(x, 2, axis=-1)
  return (x * cosines + jnp.concatenate([-second, first], axis=-1) * sines).astype(x.dtype)
