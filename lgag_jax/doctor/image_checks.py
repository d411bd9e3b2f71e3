"""Checks of the images: whether they can be read, have similar sizes and types, and show anything."""

import collections
import contextlib
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
from lgag_jax.doctor.survey import SPLITS, Example, Survey
from lgag_jax.geo import placement
from lgag_jax.imagery import orientation
from lgag_jax.imagery.opening import ImageError, open_raster
from lgag_jax.inputs import shared_ground
from lgag_jax.method.network import Network

_MAX_ENLARGEMENT, _LARGE_ENLARGEMENT = 4, 2  # Larger factors give a warning, and a note.
_MAX_SIZE_RATIO = 2.0  # Between the sides of images. Beyond it, the size of a landslide says little.
_MAX_RESOLUTION_RATIO = 1.5  # Between the widths of pixels on the ground.
_MAX_ASPECT_RATIO = 1.5  # Long side over short side. Beyond it, resizing to a square distorts visibly.
_LOW_CONTRAST = 0.02  # Times the median image's contrast. Below it, an image is nearly constant.
_BLANK = 0.9  # Fraction of pixels at one extreme value. Beyond it, an image is blank.


def check(survey: Survey, config: Config, network: Network) -> list[Finding]:
  """Returns the findings about images."""
  findings = _check_reading(survey, config) + _check_shared_ground(survey)
  if survey.examples:
    findings += _check_orientation(survey)
    findings += _check_sizes(survey.examples, config) + _check_types(survey.examples, config)
    findings += _check_resolutions(survey, config) + _check_contrast(survey.examples)
    findings += value_checks.check(survey.examples, config, network)
  return findings


def _check_shared_ground(survey: Survey) -> list[Finding]:
  sources = [survey.sources[split] for split in SPLITS if split in survey.sources]
  text = shared_ground.between(*sources) if len(sources) == len(SPLITS) else ""
  return [finding(
    ERROR, f"Both splits show the same ground: {text}.",
    "Name the split of each row in the column split of the manifest, or set data.block_size. It stops "
    "training too.",
  )] if text else []


def _check_reading(survey: Survey, config: Config) -> list[Finding]:
  splits = collections.defaultdict(list)
  for split, reason in survey.unopened_splits.items():
    splits[reason].append(split)
  findings = [
    finding(ERROR, f"The {' and the '.join(names)} split cannot be opened: {reason}",
            "Correct the problem in the message; it stops training too.")
    for reason, names in splits.items()
  ]
  data, faults = config.data, survey.faults
  tolerated = data.on_bad_image == "skip" and len(faults) <= data.max_bad_images
  kinds = collections.defaultdict(list)
  for name, reason in faults:
    channels = re.search(r"has (\d+) channels, (?:not |but data\.channels=)(\d+)", reason)
    if channels:
      kinds[f"with {plural(int(channels[1]), 'channel')}, not {channels[2]}"].append(name)
    else:
      kinds[""].append(f"{name}: {reason.replace(f'{pathlib.Path(data.directory) / name} ', '')}")
  for kind, names in kinds.items():
    remedy = "Restore or remove them, or set data.on_bad_image='skip' (and data.max_bad_images)."
    if kind:
      remedy = "Convert them, or set data.channels if all files have this number."
    findings.append(finding(
      WARNING if tolerated else ERROR, f"{images(len(names))} {kind or 'cannot be used'}.", remedy,
      names,
    ))
  return findings


def _check_orientation(survey: Survey) -> list[Finding]:
  files = ((e.name, survey.sources[e.split].files(e.index)[0]) for e in survey.examples)
  names = [name for name, path in files if path and orientation.of_file(path) != 1]
  return [finding(
    NOTE, f"{images(len(names))} of {len(survey.examples):,} {are(len(names))} turned as the "
    "orientation tag (EXIF) says, as viewers do.",
    "Check that their masks were drawn on the turned images.",
    unless_all(names, survey.examples), count=len(names),
  )] if names else []


def _check_sizes(examples: Sequence[Example], config: Config) -> list[Finding]:
  """Returns findings for images much smaller than the model's input, of mixed sizes, or not square."""
  side, tiled = config.data.image_size, config.data.tile_size > 0
  findings = []
  shortest = {e.name: min(e.shape) for e in examples}
  for factor, severity in ((_MAX_ENLARGEMENT, WARNING), (_LARGE_ENLARGEMENT, NOTE)):
    names = [name for name, length in shortest.items() if length * factor < side]
    if names:
      findings.append(finding(
        NOTE if tiled else severity,
        f"{images(len(names))} of {len(examples):,} {are(len(names))} enlarged more than {factor} "
        f"times: the shorter side has {min(shortest.values())} pixels or more, data.image_size={side}.",
        "Lower data.image_size, if objects are still several pixels wide then. Enlarging costs time "
        "and adds no detail.", unless_all(names, examples), count=len(names),
      ))
      break
  longest = np.array([max(e.shape) for e in examples])
  if len({e.shape for e in examples}) > 1:
    median = float(np.median(longest))
    outliers = [
      e.name for e, length in zip(examples, longest, strict=True)
      if max(length / median, median / length) > _MAX_SIZE_RATIO
    ]
    text = (
      f"; {len(outliers):,} {are(len(outliers))} more than {_MAX_SIZE_RATIO:g} times larger or smaller "
      f"than the median of {median:g}"
    )
    findings.append(finding(
      WARNING if outliers else NOTE,
      f"Images have {len({e.shape for e in examples})} sizes, from {longest.min()} to "
      f"{longest.max()} pixels on the longer side{text if outliers else ''}.",
      "All are resized to the same square. Cut images so that a pixel covers the same ground in each, "
      "or use tiles (data.tile_size, with masks).", outliers,
    ))
  long = [e.name for e in examples if max(e.shape) > _MAX_ASPECT_RATIO * min(e.shape)]
  if long:
    findings.append(finding(
      WARNING, f"{images(len(long))} of {len(examples):,} {are(len(long))} more than "
      f"{_MAX_ASPECT_RATIO:g} times as long as wide: resizing to a square distorts them.",
      "Cut them into squares.", unless_all(long, examples), count=len(long),
    ))
  return findings


def _check_types(examples: Sequence[Example], config: Config) -> list[Finding]:
  count = collections.Counter(e.dtype for e in examples)
  if len(count) == 1:
    return []
  usual = count.most_common(1)[0][0]
  rare = [f"{e.name}: {e.dtype}" for e in examples if e.dtype != usual]
  scale = "each image is scaled by the range of its own type"
  if config.data.max_value:
    scale = f"all are divided by data.max_value={config.data.max_value:g}"
  if config.data.normalise != "trunk":
    scale = "their values are used without scaling"
  kinds = ", ".join(f"{n:,} {kind}" for kind, n in count.most_common())
  return [finding(
    WARNING, f"Data types are mixed: {kinds}; {scale}.",
    "Convert all files to one type in one unit.", rare,
  )]


def _check_resolutions(survey: Survey, config: Config) -> list[Finding]:
  """Returns a finding for images of different ground resolutions, unless data.gsd names one."""
  if config.data.gsd:
    return []
  files = {survey.sources[e.split].files(e.index)[0]: e.name for e in survey.examples}
  resolutions = {}
  for path, name in files.items():
    with contextlib.suppress(ImageError):  # It was read a moment ago.
      if path and (gsd := _resolution(path)):
        resolutions[name] = gsd
  if not resolutions or max(resolutions.values()) <= _MAX_RESOLUTION_RATIO * min(resolutions.values()):
    return []
  usual = float(np.median([*resolutions.values()]))
  others = [
    f"{name}: {gsd:.3g} m" for name, gsd in resolutions.items()
    if max(gsd / usual, usual / gsd) > _MAX_RESOLUTION_RATIO**0.5
  ]
  return [finding(
    WARNING, f"Ground resolutions are mixed: pixels of {min(resolutions.values()):.3g} to "
    f"{max(resolutions.values()):.3g} m, so that landslides of one size look different.",
    "Resample all images to one ground resolution (gdalwarp -tr), or train a network for each.", others,
  )]


def _resolution(path: pathlib.Path) -> float | None:
  with open_raster(path) as raster:
    return placement.grid_of(raster, path).gsd()


def _check_contrast(examples: Sequence[Example]) -> list[Finding]:
  usual = np.median([e.std.max() for e in examples])
  constant, nearly = "of one value throughout", "nearly constant"
  blank = f"blank on more than {_BLANK:.0%} of their area"
  groups: dict[str, list[int]] = {constant: [], nearly: [], blank: []}
  for i, e in enumerate(examples):
    if is_constant(e):
      groups[constant].append(i)
    elif e.std.max() < _LOW_CONTRAST * usual:
      groups[nearly].append(i)
    elif e.blank > _BLANK:
      groups[blank].append(i)
  return [
    finding(
      NOTE if kind == blank else WARNING,  # Images at the edge of a scene are blank for good reason.
      f"{images(len(members))} of {len(examples):,} {are(len(members))} {kind}, "
      f"{sum(examples[i].positive for i in members):,} of them labelled positive.",
      "Remove them if they are empty (nodata, cloud, a failed export).",
      [examples[i].name for i in members], pictures=[(i,) for i in members],
    )
    for kind, members in groups.items() if members
  ]


def is_constant(example: Example) -> bool:
  """Returns whether each channel has a single value."""
  return bool(np.all(example.low == example.high))
