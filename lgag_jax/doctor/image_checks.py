"""Checks of the images themselves: can they be read, are they alike, do they show anything."""

import collections
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from lgag_jax.config import Config
from lgag_jax.doctor import value_checks
from lgag_jax.doctor.findings import (
  ERROR,
  NOTE,
  WARNING,
  Finding,
  are,
  finding,
  images,
  plural,
  unless_all,
)
from lgag_jax.doctor.survey import Example, Survey
from lgag_jax.method.network import Network

_SMALL, _RATHER_SMALL = 4, 2  # Enlarged by more than this.
_SIZE_RATIO = 2.0  # Between the longest sides of images: more, and a landslide's size says little.
_ASPECT = 1.5  # Long side over short side: more is squeezed visibly into a square.
_FLAT = 0.02  # Of the median image's contrast: less is as good as constant.
_BLANK = 0.9  # Of the pixels at one extreme: hardly a picture.


def check(survey: Survey, config: Config, network: Network) -> list[Finding]:
  """Returns the findings about images."""
  found = unreadable(survey, config)
  if survey.examples:
    found += sizes(survey.examples, config) + types(survey.examples, config)
    found += constants(survey.examples) + value_checks.statistics(survey.examples, config, network)
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
        "and adds no detail.", unless_all(names, examples), count=len(names),
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
      unless_all(long, examples), count=len(long),
    ))
  return found


def types(examples: Sequence[Example], config: Config) -> list[Finding]:
  """Data types that differ between files."""
  count = collections.Counter(e.dtype for e in examples)
  if len(count) == 1:
    return []
  usual = count.most_common(1)[0][0]
  rare = [f"{e.name}: {e.dtype}" for e in examples if e.dtype != usual]
  scale = "each is scaled by its own type's range"
  if config.data.max_value:
    scale = f"data.max_value={config.data.max_value:g} divides all alike"
  if config.data.normalise != "trunk":
    scale = "their values are taken as they are"
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
