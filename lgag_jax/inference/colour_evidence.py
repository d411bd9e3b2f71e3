"""Evidence from the colours of pixels: how much likelier each is on a landslide than beside one.

The network sees colours through a trunk of stride 4 and more; its maps lose them. Here they come back,
without a mask. First what is known beforehand, such as a colour index chosen by the image labels,
joins the map. Then two colour histograms are counted over training images, one weighted by that map on
positive images, the other by what it leaves and by all of the negative images. The log of their ratio
is added to the map's logit, as for independent evidence. The logit may count less than it says, since a
network that knows few images by heart is too sure of any others (evaluation/fit_evidence.py). For the
same reason the colours may decide instead of the network whether an image holds the class.

Bands that the trunk does not see (model.evidence_bands), such as the slope, have histograms of their
own: of the map on positive images, and of its false alarms on negative ones. They count as independent
of the colours and of each other.
"""

import dataclasses
import functools
import hashlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lgag_jax.config import Config
from lgag_jax.method import pairs
from lgag_jax.runtime import array_files, files
from lgag_jax.trunks.layers import resize

FILE = "colour_evidence.npz"  # In a workdir, beside thresholds.json.
_ARRAYS = (
  "log_ratio", "network_weight", "image_weights", "low", "high", "bands", "in_unit_range", "paired",
)
# Of an image that landslides fill. What is chosen without masks is chosen among these.
SHARES = (0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.5)
BINS = 24  # Per colour axis, and per band beyond the colours.
COLOURS = 3
_BLUR = 0.7  # Standard deviation in cells, of the evidence over the image.
_STRIDE = 4  # Of the grid of cells, in pixels of the network's image.
EDGE = 1e-4  # Scores are kept this far from 0 and 1, where a logit ends.


@dataclasses.dataclass(frozen=True, eq=False)  # Compared by identity: programs are cached by it.
class ColourEvidence:
  """The log odds of landslide by colour, per class, and how an image's colours are binned.

  F is the number of its features: three of the colours, and each band beyond them.
  """

  log_ratio: np.ndarray  # f32[C, K]; the K bins are those of `parts`.
  network_weight: np.ndarray  # f32[C], of the logit of the network's map.
  image_weights: np.ndarray  # f32[C, S + 1] for S SHARES, as `image_probabilities` takes them.
  low: np.ndarray  # f32[F], of the features of `colour_features`.
  high: np.ndarray  # f32[F]
  bands: tuple[int, ...]  # F numbers from 1: `ModelConfig.index_bands`, then `evidence_bands`.
  in_unit_range: bool  # Whether images are in [0, 1], not standardised.
  paired: bool = False  # Whether images hold two dates.

  def __call__(
    self, scores: Float[Array, "B H W C"], image: Float[Array, "B H W E"]
  ) -> Float[Array, "B H W C"]:
    """Returns the scores with the evidence of the image's colours added."""
    table = jnp.asarray(self.log_ratio).T  # K C
    evidence = _blur(jnp.sum(table[self.bin_index(image)], axis=-2))
    evidence = resize(evidence, scores.shape[1:3], antialias=False)
    likely = jnp.clip(scores, EDGE, 1.0 - EDGE)
    logits = jnp.log(likely) - jnp.log1p(-likely)
    return jax.nn.sigmoid(jnp.asarray(self.network_weight) * logits + evidence)

  def image_probabilities(
    self, probabilities: Float[Array, "B C"], image: Float[Array, "B H W E"]
  ) -> Float[Array, "B C"]:
    """Returns the probabilities that images hold each class: of the colours, or those given.

    The log odds of the colours are the `share_levels` of an image times the first S `image_weights`,
    plus the last one. A class whose weights are all 0 keeps the probability that the network gives.
    """
    by_colours = np.any(self.image_weights != 0, axis=1)
    if not by_colours.any():
      return probabilities
    table = jnp.asarray(self.log_ratio).T  # K C
    levels = share_levels(jnp.sum(table[self.bin_index(image)], axis=-2))  # B C S
    weights = jnp.asarray(self.image_weights)
    log_odds = jnp.sum(levels * weights[:, :-1], axis=-1) + weights[:, -1]
    return jnp.where(by_colours, jax.nn.sigmoid(log_odds), probabilities)

  def bin_index(self, image: Float[Array, "B H W E"]) -> Array:
    """Returns the bins of each cell of the grid, one in each of the `parts`, i32[B, h, w, P]."""
    features = colour_features(image, self.bands, self.in_unit_range, self.paired)
    low, high = jnp.asarray(self.low), jnp.asarray(self.high)
    bins = jnp.clip(((features - low) / (high - low) * BINS).astype(jnp.int32), 0, BINS - 1)
    colour = (bins[..., 0] * BINS + bins[..., 1]) * BINS + bins[..., 2]
    others = [bins[..., i] + part.start for i, part in enumerate(parts(self.bands)[1:], COLOURS)]
    return jnp.stack([colour, *others], axis=-1)

  def save(self, workdir: pathlib.Path) -> None:
    with files.atomic_path(workdir / FILE) as path:
      np.savez(
        path, log_ratio=self.log_ratio, network_weight=self.network_weight,
        image_weights=self.image_weights, low=self.low, high=self.high, bands=np.array(self.bands),
        in_unit_range=np.array(self.in_unit_range), paired=np.array(self.paired),
      )

  def digest(self) -> str:
    """Returns what tells this evidence from any other."""
    arrays = [self.log_ratio, self.low, self.high]
    if (self.network_weight != 1.0).any():  # Digests of earlier releases, without weights, stay valid.
      arrays.append(self.network_weight)
    if self.image_weights.any():
      arrays.append(self.image_weights)
    if len(self.bands) > COLOURS:
      arrays.append(np.array(self.bands))
    content = b"".join(np.ascontiguousarray(x).tobytes() for x in arrays)
    return hashlib.sha256(content).hexdigest()[:16]


def parts(bands: tuple[int, ...]) -> list[slice]:
  """Returns the bins of each histogram among all: that of the colours, and one of each other band."""
  first = BINS**COLOURS
  starts = range(first, first + BINS * (len(bands) - COLOURS), BINS)
  return [slice(0, first), *(slice(start, start + BINS) for start in starts)]


def colour_features(
  image: Float[Array, "B H W E"], bands: tuple[int, ...], in_unit_range: bool, paired: bool
) -> Float[Array, "B h w F"]:
  """Returns log red over green, log blue over green and brightness, on a grid of stride 4.

  With a near-infrared band, the three are near infrared, red and green (`ModelConfig.index_bands`). Of
  standardised images, which have no ratios, the differences and the mean of the bands. Of pairs, log
  red over green after the event, its change, and the change of brightness. Bands beyond the first
  three follow as they are, of pairs those after the event.
  """
  if paired:
    after, before = (
      colour_features(date, bands, in_unit_range, False)
      for date in jnp.split(pairs.matched(image), 2, axis=-1)
    )
    change = after - before
    return jnp.stack([
      after[..., 0], change[..., 0], change[..., 2], *jnp.moveaxis(after[..., COLOURS:], -1, 0)
    ], axis=-1)
  red, green, blue, *others = jnp.moveaxis(cell_means(image[..., np.array(bands) - 1]), -1, 0)
  if in_unit_range:
    red, green, blue = (jnp.maximum(colour, 0.0) + 1 / 255 for colour in (red, green, blue))
    ratios = jnp.log(red / green), jnp.log(blue / green)
  else:
    ratios = red - green, blue - green
  return jnp.stack([*ratios, (red + green + blue) / 3, *others], axis=-1)


def no_image_weights(classes: int) -> np.ndarray:
  """Returns the weights that leave all image probabilities to the network, f32[C, S + 1]."""
  return np.zeros((classes, len(SHARES) + 1), np.float32)


def share_levels(log_ratio: Float[Array, "B h w C"]) -> Float[Array, "B C S"]:
  """Returns the log ratio that each of SHARES of an image's cells reaches."""
  count, *_, classes = log_ratio.shape  # The count may be a symbol: programs are exported for any.
  ordered = jnp.sort(log_ratio.reshape(count, -1, classes), axis=1)
  counts = np.maximum(1, np.round(np.array(SHARES) * ordered.shape[1]).astype(int))
  return jnp.moveaxis(ordered[:, -counts], 1, -1)


def load(workdir: pathlib.Path, config: Config, digest: str) -> ColourEvidence | None:
  """Reads what `save` wrote; None where `digest`, of thresholds.json, is "".

  Raises ValueError naming the file if it is missing, damaged, or not that of the digest.
  """
  path = workdir / FILE
  if not digest:
    return None
  if not path.exists():
    raise ValueError(f"{path} is missing, which the thresholds belong to: run --mode=eval.")
  arrays = array_files.read_arrays(path, _ARRAYS)
  try:
    classes, features = len(config.data.classes), COLOURS + len(config.model.evidence_bands)
    bands = tuple(map(int, arrays["bands"].reshape(features)))  # No more than these: each has bins.
    evidence = ColourEvidence(
      arrays["log_ratio"].reshape(classes, parts(bands)[-1].stop),  # It had an axis for each colour.
      arrays.get("network_weight", np.ones(classes, np.float32)),
      arrays.get("image_weights", no_image_weights(classes)), arrays["low"], arrays["high"],
      bands, bool(arrays["in_unit_range"]), config.data.paired,
    )
    numbers = (
      evidence.log_ratio, evidence.network_weight, evidence.image_weights, evidence.low, evidence.high
    )
    sound = bool(arrays.get("paired", False)) == config.data.paired
    shapes = [(classes,), (classes, len(SHARES) + 1), (features,), (features,)]
    sound &= [x.shape for x in numbers[1:]] == shapes
    sound &= len(evidence.bands) == features and all(np.isfinite(x).all() for x in numbers)
    sound &= bool((evidence.high > evidence.low).all()) and min(evidence.bands) > 0
    sound &= max(evidence.bands) <= config.data.channels
  except (KeyError, TypeError, ValueError, OverflowError):
    sound = False
  if not sound:
    raise ValueError(f"{path} is not what --mode=eval writes for this config: run it again.")
  if evidence.digest() != digest:
    raise ValueError(f"{path} does not belong to thresholds.json: run --mode=eval again.")
  return evidence


def cell_means(x: Float[Array, "B H W F"]) -> Float[Array, "B h w F"]:
  """Returns the mean of each cell of the grid; pixels that fill no cell are left out."""
  rows, cols = x.shape[1] // _STRIDE, x.shape[2] // _STRIDE
  cells = x[:, : rows * _STRIDE, : cols * _STRIDE]
  cells = cells.reshape(x.shape[0], rows, _STRIDE, cols, _STRIDE, x.shape[3])
  return jnp.mean(cells, axis=(2, 4))


def _blur(x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
  """Returns x after a Gaussian blur; beyond a border x is its border's value."""
  radius = 3
  kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / _BLUR) ** 2)
  kernel = kernel / kernel.sum()
  for axis in (1, 2):
    size = x.shape[axis]
    # Not by jnp.pad: it joins empty arrays, which no program for ONNX may hold.
    first, last = (jax.lax.slice_in_dim(x, i, i + 1, axis=axis) for i in (0, size - 1))
    padded = jnp.concatenate([first] * radius + [x] + [last] * radius, axis=axis)
    parts = [
      k * jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i, k in enumerate(kernel)
    ]
    x = functools.reduce(jnp.add, parts)
  return x
