"""Finds pictures that a data set holds twice: the same pixels, or the same view saved again.

A view's signature is the low frequencies of its cosine transform. Their signs, 128 bits, say where to
look (near-equal pictures share some band of them), their correlation says whether it is the same view.
"""

import hashlib
from collections.abc import Iterator

import numpy as np
from PIL import Image
from scipy import fft

LENGTH = 128  # Numbers in a signature.
_SIDE = 32  # Pictures are shrunk to this square, so that size and aspect do not matter.
# On Landslide4Sense and UAV tiles a JPEG of quality 75 flips at most 15 signs and brightness +-5 %
# at most 4, while different tiles differ in 26 or more.
_MAX_FLIPS = 16
_LEAST_CORRELATION = 0.95
# Pairs within 9 flips share one of ten bands for certain, and of those at 16 still most do.
_BANDS = 10
_LONGEST_RUN = 500  # In a fuller bucket only neighbours this near are compared: time stays bounded.


def digest(image: np.ndarray) -> bytes:
  """Returns 16 bytes that are equal for equal pixels [H, W, channels] of one type and shape."""
  head = f"{image.shape} {image.dtype.str}".encode()
  digest = hashlib.blake2b(head, digest_size=16)
  digest.update(np.ascontiguousarray(image))
  return digest.digest()


def signature(image: np.ndarray) -> np.ndarray:
  """Returns the signature f16[LENGTH], of unit length, of an image [H, W, channels] of any type.

  Brightness and contrast do not change it. That of a constant image is zero.
  """
  gray = Image.fromarray(np.mean(image, axis=-1, dtype=np.float32))
  small = np.asarray(gray.resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float64)
  waves = fft.dctn(small, norm="ortho")[_ROWS, _COLS] * _WEIGHTS
  return (waves / max(np.linalg.norm(waves), 1e-12)).astype(np.float16)


def _lowest_frequencies() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns rows, columns and frequencies of the LENGTH lowest waves; the mean is left out."""
  rows, cols = np.divmod(np.arange(1, _SIDE * _SIDE), _SIDE)
  frequency = np.hypot(rows, cols)
  order = np.argsort(frequency, kind="stable")[:LENGTH]
  # Amplitudes of natural scenes fall as 1/f: weighed by f, every scale has its say.
  return rows[order], cols[order], frequency[order]


_ROWS, _COLS, _WEIGHTS = _lowest_frequencies()


def exact_pairs(digests: list[bytes]) -> np.ndarray:
  """Returns i64[m, 2]: of equal digests the first's index with each other's."""
  first: dict[bytes, int] = {}
  pairs = [(first.setdefault(key, i), i) for i, key in enumerate(digests)]
  return np.array([p for p in pairs if p[0] != p[1]], np.int64).reshape(-1, 2)


def near_pairs(signatures: np.ndarray) -> np.ndarray:
  """Returns i64[m, 2], the lower index first, of signatures [n, LENGTH] that show the same view.

  Of several with the very same signs each is paired with the first of them only.
  """
  if len(signatures) < 2:
    return np.zeros((0, 2), np.int64)
  words = np.packbits(signatures > 0, axis=1).view(np.uint64)
  _, first, inverse = np.unique(words, axis=0, return_index=True, return_inverse=True)
  representative = first[inverse.reshape(-1)]
  others = np.flatnonzero(representative != np.arange(len(words)))
  found = [np.stack([representative[others], others], 1)]
  distinct = np.sort(first)
  found += [distinct[pair] for pair in _close(words[distinct])]
  pairs = np.unique(np.sort(np.concatenate(found), axis=1), axis=0)
  # Blocks bound the memory taken by a set that is one picture all over.
  agree = [_correlation(signatures, pairs[i : i + 65536]) for i in range(0, len(pairs), 65536)]
  return pairs[np.concatenate([np.zeros(0), *agree]) >= _LEAST_CORRELATION]


def _correlation(signatures: np.ndarray, pairs: np.ndarray) -> np.ndarray:
  left, right = (signatures[pairs[:, k]].astype(np.float32) for k in (0, 1))
  return np.einsum("nd,nd->n", left, right)


def _close(words: np.ndarray) -> Iterator[np.ndarray]:
  """Yields pairs i64[m, 2] of words u64[n, 2] that differ in few bits; one may come up repeatedly."""
  bits = np.unpackbits(words.view(np.uint8), axis=1)
  for band in range(_BANDS):
    part = bits[:, band::_BANDS]  # Interleaved, so that each band holds coarse and fine waves.
    keys = part @ (1 << np.arange(part.shape[1]))
    order = np.argsort(keys, kind="stable")
    for left, right in _equal_neighbours(keys[order]):
      pair = np.stack([order[left], order[right]], 1)
      flips = np.bitwise_count(words[pair[:, 0]] ^ words[pair[:, 1]]).sum(axis=1)
      yield pair[flips <= _MAX_FLIPS]


def _equal_neighbours(keys: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Yields positions (left, right) of equal values in sorted keys, at one distance after another."""
  left = np.arange(len(keys))
  for distance in range(1, _LONGEST_RUN):
    left = left[left + distance < len(keys)]
    left = left[keys[left] == keys[left + distance]]
    if not len(left):
      return
    yield left, left + distance
