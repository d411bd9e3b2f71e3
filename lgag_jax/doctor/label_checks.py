"""Checks of the labels: whether there are enough positives and negatives, and whether masks agree."""

from collections.abc import Sequence

import numpy as np

from lgag_jax.config import Config
from lgag_jax.doctor.findings import ERROR, NOTE, WARNING, Finding, finding, have, images, plural
from lgag_jax.doctor.survey import SPLITS, Example, MaskValues, Survey
from lgag_jax.imagery.mask_values import BY_VALUES
from lgag_jax.imagery.reading import UNKNOWN
from lgag_jax.method.registry import method_of

# The least number of positives and of negatives. With fewer, results are a matter of luck.
_MIN_EXAMPLES = {"train": 20, "validation": 5}
_RARE = 0.05  # Fraction of the training split. Balancing repeats rarer examples very often.
_MAX_COVERED = 0.5  # Fraction of a positive's area, in the median. Beyond it, masks may be inverted.
_MAX_VALUES = 16  # Distinct values per mask. A mask with more looks like a picture.


def check(survey: Survey, config: Config) -> list[Finding]:
  """Returns the findings about labels and masks."""
  findings = []
  for split in SPLITS:
    if split not in survey.unopened_splits:
      findings += _check_balance(survey.of(split), split, config)
  return findings + _check_masks_against_labels(survey, config) + _check_masks(survey, config)


def _check_balance(examples: Sequence[Example], split: str, config: Config) -> list[Finding]:
  """Returns findings for missing, few or rare positives or negatives, and for missing classes."""
  training = split == "train"
  positive = sum(e.positive for e in examples)
  counts = {"positive": positive, "negative": len(examples) - positive}
  findings = []
  for kind, count in counts.items():
    if count == 0:
      content = "one of data.classes" if kind == "positive" else "none of data.classes"
      reason = "training with yes/no labels compares positives with negatives." if training else (
        "image scores can only be evaluated on positives and negatives."
      )
      findings.append(finding(
        ERROR if training else WARNING, f"The {split} split has no {kind} image.",
        f"Add images with {content}{_or_tiles(config)}: {reason}",
      ))
    elif count < _MIN_EXAMPLES[split]:
      findings.append(finding(
        WARNING, f"The {split} split has only {plural(count, f'{kind} image')}.",
        f"Add some{_or_tiles(config)}, to have at least {_MIN_EXAMPLES[split]}: results from so few "
        "are a matter of luck.", count=count,
      ))
    elif training and count < _RARE * len(examples):
      balance = "data.balance=True would show them as often as the others"
      if config.data.balance:
        balance = "data.balance=True repeats each of them often to make up for it"
      findings.append(finding(
        WARNING, f"Only {count / len(examples):.1%} of the training images are {kind}.",
        f"Add {kind} images if you can; {balance}.", count=count,
      ))
  for k, name in enumerate(config.data.classes if positive else ()):
    if len(config.data.classes) > 1 and not any(e.label[k] for e in examples):
      findings.append(finding(
        ERROR if training else WARNING, f"No image of the {split} split has the class {name!r}.",
        "Add some, or remove the class from data.classes.",
      ))
  findings.append(finding(
    NOTE, f"The {split} split has {images(len(examples))}: {positive:,} positive, "
    f"{counts['negative']:,} negative.", "",
  ))
  if training and len(examples) < config.train.batch_size:
    findings.append(finding(
      NOTE, f"A batch of {config.train.batch_size} is larger than the training split of "
      f"{len(examples)}.", "Lower train.batch_size: each batch repeats images.",
    ))
  return findings


def _or_tiles(config: Config) -> str:
  whole = config.data.source == "patches" and not config.data.tile_size
  return ", or cut images into tiles (data.tile_size)" if whole else ""


def _check_masks_against_labels(survey: Survey, config: Config) -> list[Finding]:
  """Returns findings for masks with a class that the label lacks, or without a class that it has."""
  examples = survey.examples
  # The labels of patches come from their masks, with a minimum number of pixels. If a tile overlaps the
  # previous one, its mask is partly unknown, and may have no class left.
  from_masks = config.data.source == "patches"
  empty = [
    e.name for e in examples
    if not from_masks and (e.known_pixels or e.mask_file) and not _is_drawn(e.split, config)
    and any(label and not n for label, n in zip(e.label, e.pixels_per_class, strict=True))
  ]
  full = [
    e.name for e in examples
    if any(n and not label for label, n in zip(e.label, e.pixels_per_class, strict=True))
  ]
  findings = []
  if empty:
    findings.append(finding(
      WARNING, f"{images(len(empty))} labelled positive {have(len(empty))} a mask without a pixel of "
      "the class.",
      "Correct the label or the mask. Evaluation counts every pixel mapped there as wrong.", empty,
    ))
  if full and from_masks:
    findings.append(finding(
      NOTE, f"{images(len(full))} labelled negative {have(len(full))} some pixels of a class, but "
      "fewer than data.min_mask_pixels or data.min_mask_fraction.",
      "Lower these if such images should be positive.", full,
    ))
  elif full:
    findings.append(finding(
      WARNING, f"{images(len(full))} labelled negative {have(len(full))} a mask with pixels of a "
      "class.", "Correct the label or the mask.", full,
    ))
  return findings + _check_masks_of_negatives(survey)


def _is_drawn(split: str, config: Config) -> bool:
  """Returns whether masks hold what a person has drawn: they need not show all of a landslide."""
  return split == "train" and config.loss.drawn_pixel_weight > 0


def _check_masks_of_negatives(survey: Survey) -> list[Finding]:
  names = [
    f"{name} and {path.parent.name}/{path.name}"
    for name, path in survey.masks_of_negatives.items() if any(survey.masks[path].values)
  ]
  return [finding(
    WARNING, f"{images(len(names))} in the folder of negatives {have(len(names))} a mask of the same "
    "name with landslides.",
    "If the mask is right, move them to the positives. The mask of a negative is ignored: all its "
    "pixels count as background.", names,
  )] if names else []


def _check_masks(survey: Survey, config: Config) -> list[Finding]:
  """Returns findings for masks with unexpected values or bands, and for missing masks."""
  groups: dict[str, list[str]] = {"bands": [], "soft": [], "several": [], "fault": []}
  for path, mask in survey.masks.items():
    if problem := _problem(mask, config):
      groups[problem].append(f"{path.parent.name}/{path.name}: {_description(mask)}")
  texts = {
    "bands": ("with several bands, of which only the first is read",
              "Save them with one band, and 0 for pixels without a landslide."),
    "soft": (f"with more than {_MAX_VALUES} different values, like a picture saved as JPEG or with "
             "soft edges", "Save them as PNG or TIFF with 0 and 1 (or 255) only."),
    "several": ("with several values besides 0, all of which count as landslide",
                "If one of them means unknown, set data.mask_ignore to it. If they are classes, name "
                "them in data.classes."),
    "fault": ("that cannot be read", "Restore them."),
  }
  findings = [
    finding(WARNING, f"{plural(len(names), 'mask')} {texts[problem][0]}.", texts[problem][1], names)
    for problem, names in groups.items() if names
  ]
  invalid = [
    f"{e.name}: {', '.join(map(str, e.invalid_values))}" for e in survey.examples if e.invalid_values
  ]
  if invalid:
    findings.append(finding(
      WARNING, f"{images(len(invalid))} {have(len(invalid))} mask values that are not a class.",
      "Use class indices, and 255 for unknown.", invalid,
    ))
  return findings + _check_coverage(survey, config) + _check_missing_masks(survey, config)


def _problem(mask: MaskValues, config: Config) -> str:
  """Returns the kind of problem of a mask file, "" if there is none."""
  ignore = config.data.mask_ignore
  # Opening the source has refused values without a clear meaning, so 255 beside others is unknown.
  values = [v for v in mask.values if v not in (0, UNKNOWN if ignore == BY_VALUES else ignore)]
  if mask.fault:
    return "fault"
  if mask.bands > 1:
    return "bands"
  if len(config.data.classes) > 1:  # Reading the image already fails for values that are not a class.
    return ""
  return "soft" if len(values) > _MAX_VALUES else "several" if len(values) > 1 else ""


def _description(mask: MaskValues) -> str:
  values = ", ".join(f"{v:g}" for v in mask.values[:6])
  return mask.fault or values + (", ..." if len(mask.values) > 6 else "")


def _check_coverage(survey: Survey, config: Config) -> list[Finding]:
  # Only training masks: settings must not follow the masks that maps are evaluated on.
  if _is_drawn("train", config):
    return []
  fractions = [
    sum(e.pixels_per_class) / e.known_pixels
    for e in survey.of("train") if e.positive and e.known_pixels
  ]
  if not fractions:
    return []
  covered = float(np.median(fractions))
  text = f"Masks cover {100 * covered:.3g} % of the median positive training image"
  if covered > _MAX_COVERED and not config.data.tile_size:  # A tile may lie inside a landslide.
    remedy = "Check whether they are inverted: every value but 0 means landslide."
    return [finding(WARNING, f"{text}.", remedy)]
  agreement = config.localize.agreement_fraction
  if method_of(config).rule(config) == "agreement" and covered < agreement / 2:
    return [finding(
      WARNING, f"{text}, but localize.agreement_fraction={agreement:g} is for larger landslides: maps "
      "will be too large.",
      "Set localize.agreement_fraction=0, which lets the labels choose.",
    )]
  return []


def _check_missing_masks(survey: Survey, config: Config) -> list[Finding]:
  findings = []
  for split in SPLITS:
    positives = [e for e in survey.of(split) if e.positive]
    without = [e.name for e in positives if not e.known_pixels and e.mask_file is None]
    if 0 < len(without) < len(positives) and not _is_drawn(split, config):
      findings.append(finding(
        NOTE, f"{len(without):,} of {len(positives):,} positive images of the {split} split "
        f"{have(len(without))} no mask.",
        "Maps are evaluated on the other images only.", without,
      ))
  return findings
