"""Checks of the images' values: whether they fit the assumed range and the normalisation."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from lgag_jax.config import Config
from lgag_jax.doctor.findings import ERROR, NOTE, WARNING, Finding, finding, have, images, unless_all
from lgag_jax.doctor.survey import Example
from lgag_jax.imagery import scaling
from lgag_jax.method.network import Network

_MAX_SHIFT, _MIN_STD = 2.0, 0.1  # In standard deviations of the images that the trunk was trained on.


def check(examples: Sequence[Example], config: Config, network: Network) -> list[Finding]:
  """Returns the findings about the range and the normalisation of values."""
  data = config.data
  if data.normalise == "train":
    return _check_measured(examples)
  mean, std = _pooled(examples)
  by_mean, by_std, dates = data.mean, data.std, ""
  if data.normalise == "trunk":
    by_mean, by_std = network.mean, network.std
    if data.paired:  # The network gives the image before the mean and the deviation of the one after.
      mean, std, dates = mean[: data.channels], std[: data.channels], " of the images after the event"
  shift = (mean - np.array(by_mean)) / np.array(by_std)
  normalised_std = std / np.array(by_std)
  unit = " of full scale" if data.normalise == "trunk" else ""
  text = (
    f"The channels{dates} have means {_listed(mean)} and standard deviations {_listed(std)}{unit}. "
    f"After normalisation with {_listed(by_mean)} and {_listed(by_std)}, the means are "
    f"{_listed(shift)} and the standard deviations {_listed(normalised_std)}."
  )
  findings = _check_scaling(examples, config) if data.normalise == "trunk" else []
  fits = not (np.any(np.abs(shift) > _MAX_SHIFT) or np.any(normalised_std < _MIN_STD))
  if fits or findings:
    return [*findings, finding(NOTE, text, "")]
  return [finding(
    WARNING, f"{text} The trunk was trained on means of 0 and standard deviations of 1.",
    f"Set data.mean={_listed(mean)} and data.std={_listed(std)}, or set data.max_value to the value of "
    "full brightness. Or set data.normalise='train' and none of these.",
  )]


def _check_measured(examples: Sequence[Example]) -> list[Finding]:
  mean, std = _pooled([e for e in examples if e.split == "train"] or examples)
  constant = [f"band {k + 1}" for k in np.flatnonzero(std <= 1e-7 * np.abs(mean))]
  findings = [finding(
    NOTE, "data.normalise='train' will scale the bands to mean 0 and standard deviation 1, from about "
    f"{_listed(mean)} and {_listed(std)}.", "",
  )]
  return findings + ([finding(
    WARNING, f"{', '.join(constant).capitalize()}: the same value in all training images.",
    "Remove the band from the files if its values should vary.",
  )] if constant else [])


def _listed(values: Sequence[float] | np.ndarray) -> str:
  return "(" + ", ".join(f"{v:.3f}" if abs(v) < 100 else f"{v:.5g}" for v in values) + ")"


def _pooled(examples: Sequence[Example]) -> tuple[np.ndarray, np.ndarray]:
  """Returns mean and standard deviation over all pixels of all images, f64[channels] each."""
  weight = np.array([float(np.prod(e.shape)) for e in examples])
  means, stds = np.stack([e.mean for e in examples]), np.stack([e.std for e in examples])
  mean = np.average(means, axis=0, weights=weight)
  square = np.average(stds**2 + means**2, axis=0, weights=weight)
  return mean, np.sqrt(np.maximum(square - mean**2, 0))


def _too_wide(dtype: np.dtype, config: Config) -> bool:
  return scaling.scales_by_type(dtype, config.data) and dtype.itemsize > 2


def _proposed(examples: Sequence[Example], config: Config, value: float) -> str:
  """Returns a setting of data.max_value for a largest value, "" if some images would not fit it."""
  full = scaling.likely_full_scale(value)
  data = dataclasses.replace(config.data, max_value=full)
  means = [e.mean * scaling.full_scale(np.dtype(e.dtype), config.data) / full for e in examples]
  refused = any(scaling.bands_out_of_range(mean, data).any() for mean in means)
  dark = np.median([e.high.max() for e in examples]) < scaling.DARK_SHARE * full
  return "" if refused or dark else f"data.max_value={full:g}"


def _check_scaling(examples: Sequence[Example], config: Config) -> list[Finding]:
  """Returns findings for images with values beyond full scale, or far below it."""
  full_scales = [scaling.full_scale(np.dtype(e.dtype), config.data) for e in examples]
  brightest = np.array([e.high.max() / full for e, full in zip(examples, full_scales, strict=True)])
  largest = max(e.high.max() for e in examples)
  lowest = min(e.low.min() for e in examples)
  usual = float(np.median([e.high.max() for e in examples]))
  proposed = _proposed(examples, config, largest)
  findings = []
  wide = [e.name for e in examples if _too_wide(np.dtype(e.dtype), config)]
  if wide:
    return [finding(
      ERROR, f"{images(len(wide))} of {len(examples):,} hold integers of more than 16 bits, and "
      "data.max_value is not set: training refuses them.",
      f"Set {f'{proposed} if that is' if proposed else 'data.max_value to'} the largest valid value, "
      "or save the images with 8 or 16 bits.", unless_all(wide, examples), count=len(wide),
    )]
  refused = [e.name for e in examples if e.dtype[0] != "u" or config.data.max_value
             if scaling.bands_out_of_range(e.mean, config.data).any()]
  if refused:
    findings.append(finding(
      ERROR, f"{images(len(refused))} of {len(examples):,} {have(len(refused))} values far from the "
      f"range that is scaled to [0, 1], between {lowest:g} and {largest:g}: training refuses them.",
      "Set data.max_value to the largest valid value, or set data.normalise='train'. Declare the "
      "nodata value in the files.", unless_all(refused, examples), count=len(refused),
    ))
  beyond = [e.name for e, value in zip(examples, brightest, strict=True) if value > 1]
  if beyond:
    findings.append(finding(
      WARNING, f"{images(len(beyond))} of {len(examples):,} {have(len(beyond))} values beyond full "
      f"scale, up to {largest:g}.",
      f"Set {proposed} if that is the largest valid value." if proposed else (
        f"No value of data.max_value fits all images: half of them reach at most {usual:g}. Declare "
        "the nodata value in the files, or set data.normalise='train'."
      ),
      unless_all(beyond, examples), count=len(beyond),
    ))
  if lowest < 0:
    below = [e.name for e in examples if e.low.min() < 0]
    findings.append(finding(
      WARNING, f"{images(len(below))} of {len(examples):,} {have(len(below))} negative values, down to "
      f"{lowest:g}.",
      "If they mean nodata, declare that value in the files. Otherwise set data.normalise='train'.",
      unless_all(below, examples), count=len(below),
    ))
  # The median, so that a single bright pixel in one image does not hide dark images.
  if np.median(brightest) < scaling.DARK_SHARE:
    proposed = proposed or _proposed(examples, config, usual)
    findings.append(finding(
      WARNING, f"Images look black: the brightest value of half of them is at most {usual:g}, "
      f"{np.median(brightest):.1%} of full scale ({full_scales[0]:g}).",
      f"Set {proposed or 'data.normalise=' + repr('train')}, or data.max_value to the largest value of "
      "your sensor (4095 for 12 bits in 16-bit files).",
    ))
  return findings
