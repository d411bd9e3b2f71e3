"""Finds duplicate images: the same pixels, or the same view saved again.

The signature of a view holds the low frequencies of its cosine transform. Nearly equal images share a
group of their signs (128 bits), which gives the pairs to compare. The correlation of two signatures
decides whether they show the same view.
"""

import hashlib
from collections.abc import Iterator

import numpy as np
from PIL import Image
from scipy import fft

LENGTH = 128  # Numbers in a signature.
_SIDE = 32  # Images are resized to this square, so that size and aspect ratio do not matter.
# On Landslide4Sense and UAV tiles, a JPEG of quality 75 changes at most 15 signs, and brightness +-5 %
# changes at most 4, while different tiles differ in 26 or more.
_MAX_CHANGED_SIGNS = 16
_MIN_CORRELATION = 0.95
# With up to 9 changed signs, a pair surely shares one of ten groups; with 16, most pairs still do.
_GROUPS = 10
_MAX_DISTANCE = 500  # Compares only images this close in the order of a group, to bound the time.


def digest(image: np.ndarray) -> bytes:
  """Returns 16 bytes that are equal for images [H, W, channels] of equal pixels, type and shape."""
  header = f"{image.shape} {image.dtype.str}".encode()
  digest = hashlib.blake2b(header, digest_size=16)
  digest.update(np.ascontiguousarray(image).data)
  return digest.digest()


def signature(image: np.ndarray) -> np.ndarray:
  """Returns the signature f16[LENGTH] of an image [H, W, channels] of any type; its norm is 1.

  It does not depend on brightness and contrast. A constant image has a signature of zeros.
  """
  gray = Image.fromarray(np.mean(image, axis=-1, dtype=np.float32))
  small = np.asarray(gray.resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float64)
  waves = np.asarray(fft.dctn(small, norm="ortho"))[_ROWS, _COLS] * _WEIGHTS
  return (waves / max(np.linalg.norm(waves), 1e-12)).astype(np.float16)


def _lowest_frequencies() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns rows, columns and frequencies of the LENGTH lowest waves, without the mean."""
  rows, cols = np.divmod(np.arange(1, _SIDE * _SIDE), _SIDE)
  frequency = np.hypot(rows, cols)
  order = np.argsort(frequency, kind="stable")[:LENGTH]
  # Amplitudes of natural scenes fall as 1/f. The weight f gives every scale the same influence.
  return rows[order], cols[order], frequency[order]


_ROWS, _COLS, _WEIGHTS = _lowest_frequencies()


def exact_pairs(digests: list[bytes]) -> np.ndarray:
  """Returns i64[m, 2], pairs of equal digests: the index of the first, and that of each other one."""
  first: dict[bytes, int] = {}
  pairs = [(first.setdefault(key, i), i) for i, key in enumerate(digests)]
  return np.array([p for p in pairs if p[0] != p[1]], np.int64).reshape(-1, 2)


def near_pairs(signatures: np.ndarray) -> np.ndarray:
  """Returns pairs of signatures [n, LENGTH] that show the same view: i64[m, 2], the lower index first.

  If several signatures have the same signs, each is paired with the first of them only.
  """
  if len(signatures) < 2:
    return np.zeros((0, 2), np.int64)
  words = np.packbits(signatures > 0, axis=1).view(np.uint64)
  _, first, inverse = np.unique(words, axis=0, return_index=True, return_inverse=True)
  representative = first[inverse.reshape(-1)]
  others = np.flatnonzero(representative != np.arange(len(words)))
  candidates = [np.stack([representative[others], others], 1)]
  distinct = np.sort(first)
  candidates += [distinct[pairs] for pairs in _similar_pairs(words[distinct])]
  pairs = np.unique(np.sort(np.concatenate(candidates), axis=1), axis=0)
  # Computed in parts, which bounds the memory for a data set of many copies of one image.
  correlations = [np.zeros(0)]
  for i in range(0, len(pairs), 65536):
    left, right = (signatures[column].astype(np.float32) for column in pairs[i : i + 65536].T)
    correlations.append(np.einsum("nd,nd->n", left, right))
  return pairs[np.concatenate(correlations) >= _MIN_CORRELATION]


def _similar_pairs(words: np.ndarray) -> Iterator[np.ndarray]:
  """Yields pairs i64[m, 2] of words u64[n, 2] that differ in few bits; a pair may come repeatedly."""
  bits = np.unpackbits(words.view(np.uint8), axis=1)
  for group in range(_GROUPS):
    part = bits[:, group::_GROUPS]  # Interleaved, so that each group has coarse and fine waves.
    keys = part @ (1 << np.arange(part.shape[1]))
    order = np.argsort(keys, kind="stable")
    for left, right in _equal_neighbours(keys[order]):
      pair = np.stack([order[left], order[right]], 1)
      changed = np.bitwise_count(words[pair[:, 0]] ^ words[pair[:, 1]]).sum(axis=1)
      yield pair[changed <= _MAX_CHANGED_SIGNS]


def _equal_neighbours(keys: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Yields positions (left, right) of equal values in sorted keys, at one distance after another."""
  left = np.arange(len(keys))
  for distance in range(1, _MAX_DISTANCE):
    left = left[left + distance < len(keys)]
    left = left[keys[left] == keys[left + distance]]
    if not len(left):
      return
    yield left, left + distance
