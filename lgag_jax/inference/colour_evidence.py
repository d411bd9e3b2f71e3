"""Evidence from the colours of pixels: how much likelier each is on a landslide than beside one.

The network sees colours through a trunk of stride 4 and more; its maps lose them. Here they come back,
without a mask. First what is known beforehand, such as a colour index chosen by the image labels,
joins the map. Then two colour histograms are counted over training images, one weighted by that map on
positive images, the other by what it leaves and by all of the negative images. The log of their ratio
is added to the map's logit, as for independent evidence.
"""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Callable, Generator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
from jax.sharding import Mesh
from jaxtyping import Array, Float

from lgag_jax.config import Config
from lgag_jax.inference.localize import inputs_of, main_map_name, make_localize
from lgag_jax.method import pairs
from lgag_jax.method.network import Network
from lgag_jax.runtime import files, preemption, processes, sharding
from lgag_jax.state import TrainState
from lgag_jax.trunks.layers import resize

FILE = "colour_evidence.npz"  # In a workdir, beside thresholds.json.
BINS = 24  # Per colour axis.
_SMOOTHING = 1.0  # Standard deviation in bins, of the histograms.
_BLUR = 0.7  # Standard deviation in cells, of the evidence over the image.
_STRIDE = 4  # Of the grid of cells, in pixels of the network's image.
_SAMPLE = 64  # Images that the range of the bins is taken from.
_EDGE = 1e-4  # Scores are kept this far from 0 and 1, where a logit ends.
Prior = Callable[[np.ndarray], np.ndarray]  # Log odds f32[n] of colours f32[n, 3].
_RARE = 1e-7  # Share of a bin that no pixel was seen in.


@dataclasses.dataclass(frozen=True, eq=False)  # Compared by identity: programs are cached by it.
class ColourEvidence:
  """The log odds of landslide by colour, per class, and how an image's colours are binned."""

  log_ratio: np.ndarray  # f32[C, BINS, BINS, BINS]
  low: np.ndarray  # f32[3], of the features of `colour_features`.
  high: np.ndarray  # f32[3]
  bands: tuple[int, ...]  # Red, green and blue, from 1.
  in_unit_range: bool  # Whether images are in [0, 1], not standardised.
  paired: bool = False  # Whether images hold two dates.

  def __call__(
    self, scores: Float[Array, "B H W C"], image: Float[Array, "B H W E"]
  ) -> Float[Array, "B H W C"]:
    """Returns the scores with the evidence of the image's colours added."""
    index = self.bin_index(image)  # B h w
    table = jnp.asarray(self.log_ratio).reshape(len(self.log_ratio), -1).T  # BINS^3 C
    evidence = _blur(table[index])
    evidence = resize(evidence, scores.shape[1:3], antialias=False)
    likely = jnp.clip(scores, _EDGE, 1.0 - _EDGE)
    return jax.nn.sigmoid(jnp.log(likely) - jnp.log1p(-likely) + evidence)

  def bin_index(self, image: Float[Array, "B H W E"]) -> Array:
    """Returns the bin of each cell of the grid, i32[B, h, w], below BINS^3."""
    features = colour_features(image, self.bands, self.in_unit_range, self.paired)
    low, high = jnp.asarray(self.low), jnp.asarray(self.high)
    bins = jnp.clip(((features - low) / (high - low) * BINS).astype(jnp.int32), 0, BINS - 1)
    return (bins[..., 0] * BINS + bins[..., 1]) * BINS + bins[..., 2]

  def save(self, workdir: pathlib.Path) -> None:
    with files.atomic_path(workdir / FILE) as path:
      np.savez(
        path, log_ratio=self.log_ratio, low=self.low, high=self.high, bands=np.array(self.bands),
        in_unit_range=np.array(self.in_unit_range), paired=np.array(self.paired),
      )

  def digest(self) -> str:
    """Returns what tells this evidence from any other."""
    content = b"".join(np.ascontiguousarray(x).tobytes() for x in (self.log_ratio, self.low, self.high))
    return hashlib.sha256(content).hexdigest()[:16]


def colour_features(
  image: Float[Array, "B H W E"], bands: tuple[int, ...], in_unit_range: bool, paired: bool
) -> Float[Array, "B h w 3"]:
  """Returns log red over green, log blue over green and brightness, on a grid of stride 4.

  Of standardised images, which have no ratios, the differences and the mean of the bands. Of pairs, log
  red over green after the event, its change, and the change of brightness.
  """
  if paired:
    after, before = (
      colour_features(date, bands, in_unit_range, False)
      for date in jnp.split(pairs.matched(image), 2, axis=-1)
    )
    change = after - before
    return jnp.stack([after[..., 0], change[..., 0], change[..., 2]], axis=-1)
  colours = cell_means(image[..., np.array(bands) - 1])
  if in_unit_range:
    red, green, blue = jnp.moveaxis(jnp.maximum(colours, 0.0) + 1 / 255, -1, 0)
    return jnp.stack(
      [jnp.log(red / green), jnp.log(blue / green), (red + green + blue) / 3], axis=-1
    )
  red, green, blue = jnp.moveaxis(colours, -1, 0)
  return jnp.stack([red - green, blue - green, (red + green + blue) / 3], axis=-1)


def fit(
  network: Network, state: TrainState, batches: Callable[[int], Generator[dict, None, None]],
  config: Config, mesh: Mesh, priors: Sequence[Prior | None],
) -> ColourEvidence:
  """Counts the histograms of training images; `batches(at_most)` yields them, with images.

  The map is the network's main one, with each class's prior added. `priors` return log odds f32[n] of
  colours f32[n, 3] in [0, 1]; they do not apply to standardised images and to pairs. No mask is read.
  """
  bands, unit_range = config.model.rgb_bands, config.data.normalise == "trunk"
  paired = config.data.paired
  features = jax.jit(lambda image: colour_features(image, bands, unit_range, paired)[:, ::2, ::2])
  sample = [
    np.asarray(features(batch["image"]))[batch["weight"] > 0]
    for batch in preemption.until_stopped(batches(_SAMPLE))
  ]
  sample = processes.gather({"features": np.concatenate(sample).reshape(-1, 3)})["features"]
  low, high = np.quantile(sample, (0.002, 0.998), axis=0).astype(np.float32)
  high, classes = np.maximum(high, low + 1e-3), len(config.data.classes)
  prior = np.zeros((classes, BINS, BINS, BINS), np.float32)
  for c, log_odds in enumerate(priors if unit_range and not paired else ()):
    if log_odds:
      prior[c] = log_odds(_bin_colours(low, high)).reshape(BINS, BINS, BINS)
  given = ColourEvidence(prior, low, high, bands, unit_range, paired)
  network = dataclasses.replace(network, evidence=given)
  localize, name = make_localize(network, config, mesh), main_map_name(config)
  count = jax.jit(
    functools.partial(_count, given), out_shardings=sharding.replicated_sharding(mesh)
  )
  total = np.zeros((2, classes, BINS**3))
  for batch in preemption.until_stopped(batches(config.localize.calibration_images)):
    inputs = sharding.to_global(inputs_of(batch, config), mesh)
    labels = sharding.to_global({k: batch[k] for k in ("label", "weight")}, mesh)
    scores = localize(state, inputs).scores[name]
    total += np.asarray(count(scores, inputs["image"], labels["label"], labels["weight"]), np.float64)
  ratios = [[_log_share(counts) for counts in kind] for kind in total]
  log_ratio = prior + np.float32(np.array(ratios[0]) - np.array(ratios[1]))
  return dataclasses.replace(given, log_ratio=log_ratio)


def load(workdir: pathlib.Path, config: Config, digest: str) -> ColourEvidence | None:
  """Reads what `save` wrote; None where `digest`, of thresholds.json, is "".

  Raises ValueError naming the file if it is missing, damaged, or not that of the digest.
  """
  path = workdir / FILE
  if not digest:
    return None
  if not path.exists():
    raise ValueError(f"{path} is missing, which the thresholds belong to: run --mode=eval.")
  arrays = files.read_arrays(path)
  try:
    evidence = ColourEvidence(
      arrays["log_ratio"], arrays["low"], arrays["high"], tuple(map(int, arrays["bands"])),
      bool(arrays["in_unit_range"]), config.data.paired,
    )
    shapes = evidence.log_ratio.shape, evidence.low.shape, evidence.high.shape, len(evidence.bands)
    sound = bool(arrays.get("paired", False)) == config.data.paired
    sound &= shapes == ((len(config.data.classes), BINS, BINS, BINS), (3,), (3,), 3)
    sound &= all(np.isfinite(x).all() for x in (evidence.log_ratio, evidence.low, evidence.high))
    sound &= bool((evidence.high > evidence.low).all()) and min(evidence.bands) > 0
    sound &= max(evidence.bands) <= config.data.channels
  except (KeyError, TypeError, ValueError, OverflowError):
    sound = False
  if not sound:
    raise ValueError(f"{path} is not what --mode=eval writes for this config: run it again.")
  if evidence.digest() != digest:
    raise ValueError(f"{path} does not belong to thresholds.json: run --mode=eval again.")
  return evidence


def _bin_colours(low: np.ndarray, high: np.ndarray) -> np.ndarray:
  """Returns red, green and blue of the bins' centres, f32[BINS^3, 3]: `colour_features` undone."""
  centres = [a + (np.arange(BINS) + 0.5) / BINS * (b - a) for a, b in zip(low, high, strict=True)]
  red, blue, brightness = (x.ravel() for x in np.meshgrid(*centres, indexing="ij"))
  green = 3 * brightness / (np.exp(red) + 1.0 + np.exp(blue))
  colours = np.stack([green * np.exp(red), green, green * np.exp(blue)], axis=-1)
  return np.maximum(colours - 1 / 255, 0.0).astype(np.float32)


def cell_means(x: Float[Array, "B H W F"]) -> Float[Array, "B h w F"]:
  """Returns the mean of each cell of the grid; pixels that fill no cell are left out."""
  rows, cols = x.shape[1] // _STRIDE, x.shape[2] // _STRIDE
  cells = x[:, : rows * _STRIDE, : cols * _STRIDE]
  cells = cells.reshape(x.shape[0], rows, _STRIDE, cols, _STRIDE, x.shape[3])
  return jnp.mean(cells, axis=(2, 4))


def _count(evidence, scores, image, label, weight):
  """Returns counts of landslide and background colours, f32[2, C, BINS^3], of a batch."""
  index = evidence.bin_index(image)
  share = jnp.clip(cell_means(scores), _EDGE, 1.0 - _EDGE) * label[:, None, None, :]  # B h w C
  weight = weight[:, None, None, None]
  weights = jnp.stack([share * weight, (1.0 - share) * weight])  # 2 B h w C
  add = lambda w: jnp.zeros(BINS**3).at[index.ravel()].add(w.ravel())
  over_classes = jax.vmap(add, in_axes=-1)
  return jax.vmap(over_classes)(weights)


def _log_share(counts: np.ndarray) -> np.ndarray:
  smooth = scipy.ndimage.gaussian_filter(counts.reshape(BINS, BINS, BINS), _SMOOTHING)
  return np.log(smooth / max(smooth.sum(), 1e-9) + _RARE)


def _blur(x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
  """Returns x after a Gaussian blur; beyond a border x is its border's value."""
  radius = 3
  kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / _BLUR) ** 2)
  kernel = kernel / kernel.sum()
  for axis in (1, 2):
    size = x.shape[axis]
    padding = [(radius, radius) if a == axis else (0, 0) for a in range(4)]
    padded = jnp.pad(x, padding, mode="edge")
    parts = [
      k * jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i, k in enumerate(kernel)
    ]
    x = functools.reduce(jnp.add, parts)
  return x
