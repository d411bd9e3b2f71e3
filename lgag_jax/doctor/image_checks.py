"""Checks of the images themselves: can they be read, are they alike, do they show anything."""

import collections
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from lgag_jax.config import Config
from lgag_jax.doctor.findings import ERROR, NOTE, WARNING, Finding, are, finding, have, images, plural
from lgag_jax.doctor.survey import Example, Survey
from lgag_jax.models.network import Network

_SMALL, _RATHER_SMALL = 4, 2  # Enlarged by more than this.
_SIZE_RATIO = 2.0  # Between the longest sides of images: more, and a landslide's size says little.
_ASPECT = 1.5  # Long side over short side: more is squeezed visibly into a square.
_FLAT = 0.02  # Of the median image's contrast: less is as good as constant.
_BLANK = 0.9  # Of the pixels at one extreme: hardly a picture.
_DARK = 0.25  # Of the range: with all values below it is hardly used.
_FAR_OFF, _LOW_CONTRAST = 2.0, 0.1  # In standard deviations that the trunk was trained for.
# Largest values of instruments: 8, 10, 12 and 14 bits, reflectance times 10,000, 16 bits.
_RANGES = (1.0, 255.0, 1023.0, 4095.0, 10000.0, 16383.0, 65535.0)


def check(survey: Survey, config: Config, network: Network) -> list[Finding]:
  """Returns the findings about images."""
  found = unreadable(survey, config)
  if survey.examples:
    found += sizes(survey.examples, config) + types(survey.examples, config)
    found += constants(survey.examples) + statistics(survey.examples, config, network)
  return found


def unreadable(survey: Survey, config: Config) -> list[Finding]:
  """Splits that cannot be opened, and files that cannot be read, by kind of reason."""
  reasons = collections.defaultdict(list)
  for split, why in survey.closed.items():
    reasons[why].append(split)
  found = [
    finding(ERROR, f"The {' and the '.join(s)} split cannot be opened: {why}",
            "Mend what the message names; training stops at it too.")
    for why, s in reasons.items()
  ]
  data, faults = config.data, survey.faults
  tolerated = data.on_bad_image == "skip" and len(faults) <= data.max_bad_images
  kinds = collections.defaultdict(list)
  for name, why in faults:
    wrong = re.search(r"has (\d+) channels, (?:not|data)", why)
    if wrong:
      kinds[f"with {plural(int(wrong[1]), 'channel')}, not {data.channels}"].append(name)
    else:
      kinds[""].append(f"{name}: {why.replace(f'{pathlib.Path(data.directory) / name} ', '')}")
  for kind, names in kinds.items():
    remedy = "Restore or remove them, or set data.on_bad_image='skip' (and data.max_bad_images)."
    if kind:
      remedy = "Convert them, or set data.channels if all files are like these."
    found.append(finding(
      WARNING if tolerated else ERROR, f"{images(len(names))} {kind or 'cannot be used'}.", remedy,
      names,
    ))
  return found


def sizes(examples: Sequence[Example], config: Config) -> list[Finding]:
  """Images much smaller than the model's input, of mixed sizes, or far from square."""
  side, tiled = config.data.image_size, config.data.tile_size > 0
  found = []
  shortest = {e.name: min(e.shape) for e in examples}
  for factor, severity in ((_SMALL, WARNING), (_RATHER_SMALL, NOTE)):
    names = [name for name, length in shortest.items() if length * factor < side]
    if names:
      found.append(finding(
        NOTE if tiled else severity,
        f"{images(len(names))} of {len(examples):,} {are(len(names))} enlarged more than {factor} "
        f"times: the shorter side is {min(shortest.values())} pixels or more, data.image_size {side}.",
        "Lower data.image_size, if objects are still several pixels wide then; enlarging costs time "
        "and adds no detail.", _unless_all(names, examples), count=len(names),
      ))
      break
  longest = np.array([max(e.shape) for e in examples])
  if len({e.shape for e in examples}) > 1:
    usual = float(np.median(longest))
    odd = [
      e.name for e, length in zip(examples, longest, strict=True)
      if max(length / usual, usual / length) > _SIZE_RATIO
    ]
    off = f"{len(odd):,} {are(len(odd))} more than {_SIZE_RATIO:g} times off the median of {usual:g}"
    found.append(finding(
      WARNING if odd else NOTE,
      f"Images are of {len({e.shape for e in examples})} sizes, from {longest.min()} to "
      f"{longest.max()} pixels on the longer side{f'; {off}' if odd else ''}.",
      "All are resized to one square: cut images so that a pixel covers as much ground in each, or "
      "use tiles (data.tile_size, with masks).", odd,
    ))
  long = [e.name for e in examples if max(e.shape) > _ASPECT * min(e.shape)]
  if long:
    found.append(finding(
      WARNING, f"{images(len(long))} of {len(examples):,} {are(len(long))} more than {_ASPECT:g} times "
      "as long as wide: the network gets them squeezed into a square.", "Cut them into squares.",
      _unless_all(long, examples), count=len(long),
    ))
  return found


def types(examples: Sequence[Example], config: Config) -> list[Finding]:
  """Data types that differ between files."""
  count = collections.Counter(e.dtype for e in examples)
  if len(count) == 1:
    return []
  usual = count.most_common(1)[0][0]
  rare = [f"{e.name}: {e.dtype}" for e in examples if e.dtype != usual]
  scale = (
    f"data.max_value={config.data.max_value:g} divides all alike" if config.data.max_value
    else "each is scaled by its own type's range"
  )
  kinds = ", ".join(f"{n:,} {kind}" for kind, n in count.most_common())
  return [finding(
    WARNING, f"Data types are mixed: {kinds}; {scale}.",
    "Convert all files to one type in one unit.", rare,
  )]


def constants(examples: Sequence[Example]) -> list[Finding]:
  """Images without any contrast, with next to none compared with the others, and blank ones."""
  usual = np.median([e.std.max() for e in examples])
  blank = f"blank on more than {_BLANK:.0%} of their area"
  groups: dict[str, list[int]] = {"of one value throughout": [], "nearly constant": [], blank: []}
  for i, e in enumerate(examples):
    if is_constant(e):
      groups["of one value throughout"].append(i)
    elif e.std.max() < _FLAT * usual:
      groups["nearly constant"].append(i)
    elif e.blank > _BLANK:
      groups[blank].append(i)
  return [
    finding(
      NOTE if kind == blank else WARNING,  # The edges of scenes are blank, and no fault.
      f"{images(len(members))} of {len(examples):,} {are(len(members))} {kind}, "
      f"{sum(examples[i].positive for i in members):,} of them labelled positive.",
      "Remove them if they are empty (no data, cloud, a failed export).",
      [examples[i].name for i in members], pictures=[(i,) for i in members],
    )
    for kind, members in groups.items() if members
  ]


def is_constant(example: Example) -> bool:
  """Whether each channel has one value only."""
  return bool(np.all(example.low == example.high))


def statistics(
  examples: Sequence[Example], config: Config, network: Network
) -> list[Finding]:
  """Values against the range they are scaled by, and against the trunk's normalisation."""
  mean, std = pooled(examples)
  shift = (mean - np.array(network.mean)) / np.array(network.std)
  spread = std / np.array(network.std)
  listed = lambda values: "(" + ", ".join(f"{v:.3f}" for v in values) + ")"
  text = (
    f"Channel means are {listed(mean)} and standard deviations {listed(std)} of full scale; after the "
    f"normalisation by {listed(network.mean)} and {listed(network.std)}, means are {listed(shift)} and "
    f"deviations {listed(spread)}."
  )
  scaling = _scaling(examples, config)
  off = np.any(np.abs(shift) > _FAR_OFF) or np.any(spread < _LOW_CONTRAST)
  if not off or scaling:
    return [*scaling, finding(NOTE, text, "")]
  return [finding(
    WARNING, f"{text} That is far from the 0 and 1 that the trunk was trained on.",
    f"Set data.mean={listed(mean)} and data.std={listed(std)}, or data.max_value to the largest value "
    "that is meant to be full brightness.",
  )]


def pooled(examples: Sequence[Example]) -> tuple[np.ndarray, np.ndarray]:
  """Returns f64[channels], twice: mean and standard deviation over all pixels of all images."""
  weight = np.array([float(np.prod(e.shape)) for e in examples])
  means, stds = np.stack([e.mean for e in examples]), np.stack([e.std for e in examples])
  mean = np.average(means, axis=0, weights=weight)
  square = np.average(stds**2 + means**2, axis=0, weights=weight)
  return mean, np.sqrt(np.maximum(square - mean**2, 0))


def _scaling(examples: Sequence[Example], config: Config) -> list[Finding]:
  """Images beyond full scale, or using a small part of it only."""
  top = np.array([e.high.max() / _full_scale(e, config) for e in examples])
  largest = max(e.high.max() for e in examples)
  lowest = min(e.low.min() for e in examples)
  fitting = next((r for r in _RANGES if r >= largest), largest)
  found = []
  beyond = [e.name for e, t in zip(examples, top, strict=True) if t > 1]
  if beyond:
    found.append(finding(
      WARNING, f"{images(len(beyond))} of {len(examples):,} {have(len(beyond))} values beyond full "
      f"scale, up to {largest:g}.",
      f"Set data.max_value={fitting:g} if that is the largest value meant.",
      _unless_all(beyond, examples), count=len(beyond),
    ))
  if lowest < 0:
    below = [e.name for e in examples if e.low.min() < 0]
    found.append(finding(
      WARNING, f"{images(len(below))} of {len(examples):,} {have(len(below))} negative values, down to "
      f"{lowest:g}.",
      "Declare the value that means no data in the files, or shift values to begin at 0.",
      _unless_all(below, examples), count=len(below),
    ))
  # The median: one hot pixel in one image does not make the others bright.
  if np.median(top) < _DARK:
    usual = float(np.median([e.high.max() for e in examples]))
    typical = next((r for r in _RANGES if r >= usual), usual)
    found.append(finding(
      WARNING, f"Images look black: the brightest value of half of them is at most {usual:g}, "
      f"{np.median(top):.1%} of full scale ({_full_scale(examples[0], config):g}).",
      f"Set data.max_value={typical:g} (12 bits in 16-bit files are 4095), or what the sensor's "
      "largest value is.",
    ))
  return found


def _unless_all(names: list[str], examples: Sequence[Example]) -> list[str]:
  """What is so of every image needs no names."""
  return names if len(names) < len(examples) else []


def _full_scale(example: Example, config: Config) -> float:
  if config.data.max_value:
    return config.data.max_value
  kind = np.dtype(example.dtype)
  return float(np.iinfo(kind).max) if np.issubdtype(kind, np.integer) else 1.0
