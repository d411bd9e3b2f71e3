"""Checks of the images' values: do they fit the range they are scaled by, and the normalisation."""

from collections.abc import Sequence

import numpy as np

from lgag_jax.config import Config
from lgag_jax.doctor.findings import ERROR, NOTE, WARNING, Finding, finding, have, images, unless_all
from lgag_jax.doctor.survey import Example
from lgag_jax.imagery import scaling
from lgag_jax.method.network import Network

_DARK = 0.25  # Of the range: with all values below it is hardly used.
_FAR_OFF, _LOW_CONTRAST = 2.0, 0.1  # In standard deviations that the trunk was trained for.
# Largest values of instruments: 8, 10, 12 and 14 bits, reflectance times 10,000, 16 bits.
_RANGES = (1.0, 255.0, 1023.0, 4095.0, 10000.0, 16383.0, 65535.0)


def statistics(
  examples: Sequence[Example], config: Config, network: Network
) -> list[Finding]:
  """Values against the range they are scaled by, and against the normalisation."""
  data = config.data
  if data.normalise == "train":
    return _measured(examples)
  mean, std = pooled(examples)
  by_mean, by_std = (network.mean, network.std) if data.normalise == "trunk" else (data.mean, data.std)
  shift = (mean - np.array(by_mean)) / np.array(by_std)
  spread = std / np.array(by_std)
  unit = " of full scale" if data.normalise == "trunk" else ""
  text = (
    f"Channel means are {_listed(mean)} and standard deviations {_listed(std)}{unit}; after the "
    f"normalisation by {_listed(by_mean)} and {_listed(by_std)}, means are {_listed(shift)} and "
    f"deviations {_listed(spread)}."
  )
  found = _scaling(examples, config) if data.normalise == "trunk" else []
  off = np.any(np.abs(shift) > _FAR_OFF) or np.any(spread < _LOW_CONTRAST)
  if not off or found:
    return [*found, finding(NOTE, text, "")]
  return [finding(
    WARNING, f"{text} That is far from the 0 and 1 that the trunk was trained on.",
    f"Set data.mean={_listed(mean)} and data.std={_listed(std)}, or data.max_value to the largest "
    "value that is meant to be full brightness, or data.normalise='train' and none of these.",
  )]


def _measured(examples: Sequence[Example]) -> list[Finding]:
  """What data.normalise="train" would divide by, and bands in which there is nothing to divide."""
  mean, std = pooled([e for e in examples if e.split == "train"] or examples)
  constant = [f"band {k + 1}" for k in np.flatnonzero(std <= 1e-7 * np.abs(mean))]
  found = [finding(
    NOTE, f"data.normalise='train': bands are brought to mean 0 and deviation 1, from about "
    f"{_listed(mean)} and {_listed(std)}.", "",
  )]
  return found + ([finding(
    WARNING, f"Of one value in all training images: {', '.join(constant)}.",
    "Leave the band out of the files, if it was not meant to vary.",
  )] if constant else [])


def _listed(values: Sequence[float]) -> str:
  return "(" + ", ".join(f"{v:.3f}" if abs(v) < 100 else f"{v:.5g}" for v in values) + ")"


def pooled(examples: Sequence[Example]) -> tuple[np.ndarray, np.ndarray]:
  """Returns f64[channels], twice: mean and standard deviation over all pixels of all images."""
  weight = np.array([float(np.prod(e.shape)) for e in examples])
  means, stds = np.stack([e.mean for e in examples]), np.stack([e.std for e in examples])
  mean = np.average(means, axis=0, weights=weight)
  square = np.average(stds**2 + means**2, axis=0, weights=weight)
  return mean, np.sqrt(np.maximum(square - mean**2, 0))


def _scaling(examples: Sequence[Example], config: Config) -> list[Finding]:
  """Images beyond full scale, or using a small part of it only."""
  full = [scaling.full_scale(np.dtype(e.dtype), config.data) for e in examples]
  top = np.array([e.high.max() / scale for e, scale in zip(examples, full, strict=True)])
  largest = max(e.high.max() for e in examples)
  lowest = min(e.low.min() for e in examples)
  fitting = next((r for r in _RANGES if r >= largest), largest)
  found = []
  refused = [e.name for e in examples if e.dtype[0] != "u" or config.data.max_value
             if scaling.bands_out_of_range(e.mean, config.data).any()]
  if refused:
    found.append(finding(
      ERROR, f"{images(len(refused))} of {len(examples):,} {have(len(refused))} values far from those "
      f"that are scaled to [0, 1], between {lowest:g} and {largest:g}: training refuses them.",
      "Set data.max_value to the largest value meant, or data.normalise='train', and declare in the "
      "files which value means no data.", unless_all(refused, examples), count=len(refused),
    ))
  beyond = [e.name for e, t in zip(examples, top, strict=True) if t > 1]
  if beyond:
    found.append(finding(
      WARNING, f"{images(len(beyond))} of {len(examples):,} {have(len(beyond))} values beyond full "
      f"scale, up to {largest:g}.",
      f"Set data.max_value={fitting:g} if that is the largest value meant.",
      unless_all(beyond, examples), count=len(beyond),
    ))
  if lowest < 0:
    below = [e.name for e in examples if e.low.min() < 0]
    found.append(finding(
      WARNING, f"{images(len(below))} of {len(examples):,} {have(len(below))} negative values, down to "
      f"{lowest:g}.",
      "Declare the value that means no data in the files; if these are data, data.normalise='train'.",
      unless_all(below, examples), count=len(below),
    ))
  # The median: one hot pixel in one image does not make the others bright.
  if np.median(top) < _DARK:
    usual = float(np.median([e.high.max() for e in examples]))
    typical = next((r for r in _RANGES if r >= usual), usual)
    found.append(finding(
      WARNING, f"Images look black: the brightest value of half of them is at most {usual:g}, "
      f"{np.median(top):.1%} of full scale ({full[0]:g}).",
      f"Set data.max_value={typical:g} (12 bits in 16-bit files are 4095), or what the sensor's "
      "largest value is.",
    ))
  return found
