"""Checks of pairs (data.before): whether the images of both dates lie on each other."""

import dataclasses

import numpy as np

from lgag_jax.config import Config, DataConfig
from lgag_jax.doctor.findings import NOTE, WARNING, Finding, finding, images
from lgag_jax.geo import coregistration
from lgag_jax.imagery.reading import ImageError
from lgag_jax.inputs import sources

_SAMPLE = 40  # Images whose shift is estimated, at most.
_COMMON = 0.1  # Share of the images; that many without a known shift are worth a warning.


def check(config: Config) -> list[Finding]:
  """Returns the findings about the shift between the dates, from a sample of the training images."""
  if not config.data.paired:
    return []
  shifts = _shifts(dataclasses.replace(config.data, max_shift=0.0))
  most = config.data.max_shift
  known = {name: shift.length for name, shift in shifts.items() if shift.length is not None}
  unknown = [name for name in shifts if name not in known]
  far = [name for name, length in known.items() if length > most]
  findings = []
  if known:
    lengths = np.array(list(known.values()))
    findings.append(finding(
      NOTE, f"The images of both dates lie {np.median(lengths):.1f} pixels apart (median of "
      f"{images(len(known))}), at most {lengths.max():.1f}.",
      f"Nothing: training moves the image before by up to data.max_shift={most:g} pixels." if most else
      "Set data.max_shift to correct it.",
    ))
  if far:
    findings.append(finding(
      WARNING, f"{images(len(far))} of {len(shifts)}: the image before lies more than "
      f"data.max_shift={most:g} pixels beside the one after, so it is not moved.",
      "Align the images, or raise data.max_shift.", far,
    ))
  if len(unknown) > _COMMON * len(shifts):
    findings.append(finding(
      WARNING, f"{images(len(unknown))} of {len(shifts)}: the shift between the dates is unknown, "
      "since parts of the image do not agree on one.",
      "Look at some of them: do both dates show the same place?", unknown,
    ))
  return findings


def _shifts(data: DataConfig) -> dict[str, coregistration.Shift]:
  """Returns the shift of a sample of the training images by name; faults are other findings."""
  shifts: dict[str, coregistration.Shift] = {}
  try:
    source = sources.make_source(data, "train", {})
  except (ValueError, TypeError, OSError):
    return shifts
  count = len(source.ids)
  for index in np.unique(np.linspace(0, count - 1, min(count, _SAMPLE)).astype(int)) if count else ():
    try:
      pixels, valid = source.read_valid_pixels(int(index))
    except (ImageError, OSError):
      continue
    after, before = np.split(pixels, 2, axis=-1)
    shifts[source.ids[index]] = coregistration.estimate(after, before, valid)
  return shifts
