"""Checks of the labels: are there enough of both kinds, and do masks say the same."""

from collections.abc import Sequence

import numpy as np

from lgag_jax import methods
from lgag_jax.config import Config, LocalizeConfig, ModelConfig
from lgag_jax.doctor.findings import ERROR, NOTE, WARNING, Finding, finding, have, images, plural
from lgag_jax.doctor.survey import SPLITS, Example, MaskValues, Survey
from lgag_jax.method.registry import method_of

# Examples of a kind: fewer to train on, or to judge by, make results a matter of luck.
_FEW = {"train": 20, "validation": 5}
_RARE = 0.05  # Of the training split: a kind rarer than this comes round very often when balanced.
_MOST_COVERED = 0.5  # Of a median positive's area: more, and masks may be inverted.
_SOFT = 16  # Distinct values of a mask: more look like a picture than like classes.


def check(survey: Survey, config: Config) -> list[Finding]:
  """Returns the findings about labels and masks."""
  found = []
  for split in SPLITS:
    if split not in survey.closed:
      found += balance(survey.of(split), split, config)
  return found + contradictions(survey, config) + strange_masks(survey, config)


def balance(examples: Sequence[Example], split: str, config: Config) -> list[Finding]:
  """No positives, no negatives, few, or few of one kind; classes that never come up."""
  training = split == "train"
  positive = sum(e.positive for e in examples)
  counts = {"positive": positive, "negative": len(examples) - positive}
  found = []
  for kind, count in counts.items():
    shows = "one of data.classes" if kind == "positive" else "none of data.classes"
    if count == 0:
      found.append(finding(
        ERROR if training else WARNING, f"The {split} split has no {kind} image.",
        f"Add images with {shows}{_or_tiles(config)}: " + (
          "yes/no labels teach by comparing both kinds." if training
          else "without both kinds the image scores cannot be judged."
        ),
      ))
    elif count < _FEW[split]:
      found.append(finding(
        WARNING, f"The {split} split has only {plural(count, f'{kind} image')}.",
        f"Add some{_or_tiles(config)}, {_FEW[split]} at the very least: results from so few are a "
        "matter of luck.",
        count=count,
      ))
    elif training and count < _RARE * len(examples):
      often = "data.balance=True shows each of them that much more often" if config.data.balance else (
        "data.balance=True would show them as often as the others"
      )
      found.append(finding(
        WARNING, f"Only {count / len(examples):.1%} of the training images are {kind}.",
        f"Add {kind} images if you can; {often}.", count=count,
      ))
  for k, name in enumerate(config.data.classes if positive else ()):
    if len(config.data.classes) > 1 and not any(e.label[k] for e in examples):
      found.append(finding(
        ERROR if training else WARNING, f"No image of the {split} split is of class {name!r}.",
        "Add some, or leave the class out of data.classes.",
      ))
  found.append(finding(
    NOTE, f"The {split} split has {images(len(examples))}: {positive:,} positive, "
    f"{counts['negative']:,} negative.", "",
  ))
  if training and len(examples) < config.train.batch_size:
    found.append(finding(
      NOTE, f"A batch of {config.train.batch_size} is larger than the training split of "
      f"{len(examples)}.", "Lower train.batch_size: each batch repeats images.",
    ))
  return found


def _or_tiles(config: Config) -> str:
  whole = config.data.source == "patches" and not config.data.tile_size
  return ", or cut images into tiles (data.tile_size)" if whole else ""


def contradictions(survey: Survey, config: Config) -> list[Finding]:
  """Masks that show what the label denies, or nothing of what it says."""
  examples = survey.examples
  cut = config.data.source == "patches"  # Labels are the masks', down to a least number of pixels.
  # Of a tile that overlaps the one before, the mask is kept in part: it may well be empty.
  empty = [
    e.name for e in examples
    if not cut and (e.known or e.mask_file)
    and any(label and not n for label, n in zip(e.label, e.pixels, strict=True))
  ]
  full = [
    e.name for e in examples
    if any(n and not label for label, n in zip(e.label, e.pixels, strict=True))
  ]
  found = []
  if empty:
    found.append(finding(
      WARNING, f"{images(len(empty))} labelled positive {have(len(empty))} a mask without a pixel of "
      "the class.",
      "Correct the label or the mask; evaluation counts every pixel drawn there as wrong.", empty,
    ))
  if full and cut:
    found.append(finding(
      NOTE, f"{images(len(full))} labelled negative {have(len(full))} some pixels of a class, fewer "
      "than data.min_mask_pixels and data.min_mask_fraction ask for.",
      "Lower these if such images should count as positive.", full,
    ))
  elif full:
    found.append(finding(
      WARNING, f"{images(len(full))} labelled negative {have(len(full))} a mask with pixels of a "
      "class.", "Correct the label or the mask.", full,
    ))
  return found + _masks_of_negatives(survey)


def _masks_of_negatives(survey: Survey) -> list[Finding]:
  named = [
    f"{name} and {path.parent.name}/{path.name}"
    for name, path in survey.masks_of_negatives.items() if any(survey.masks[path].values)
  ]
  return [finding(
    WARNING, f"{images(len(named))} in the folder of negatives {have(len(named))} a mask of that name "
    "which is not empty.",
    "Move them to the positives if the mask is right: as negatives, their masks are not looked at and "
    "every pixel is taught as background.", named,
  )] if named else []


def strange_masks(survey: Survey, config: Config) -> list[Finding]:
  """Masks with values or bands that will be read otherwise than meant."""
  groups: dict[str, list[str]] = {"bands": [], "soft": [], "several": [], "fault": []}
  for path, mask in survey.masks.items():
    kind = _strangeness(mask, config)
    if kind:
      groups[kind].append(f"{path.parent.name}/{path.name}{_listed(mask)}")
  remedies = {
    "bands": ("with several bands, of which the first alone is read",
              "Save them as one band, 0 where there is no landslide."),
    "soft": (f"with more than {_SOFT} different values, like a picture saved as JPEG or with "
             "soft edges", "Save them as PNG or TIFF with 0 and 1 (or 255) only."),
    "several": ("with several values besides 0, all of which count as landslide",
                "If one of them means unknown, set data.mask_ignore to it; if they are classes, name "
                "them in data.classes."),
    "fault": ("that cannot be read", "Restore them."),
  }
  found = [
    finding(WARNING, f"{plural(len(names), 'mask')} {remedies[kind][0]}.", remedies[kind][1], names)
    for kind, names in groups.items() if names
  ]
  odd = [f"{e.name}: {', '.join(map(str, e.strange))}" for e in survey.examples if e.strange]
  if odd:
    found.append(finding(
      WARNING, f"{images(len(odd))} {have(len(odd))} mask values that are no class.",
      "Use class indices, and 255 for unknown.", odd,
    ))
  return found + _coverage(survey, config) + _without_masks(survey)


def _strangeness(mask: MaskValues, config: Config) -> str:
  """Names what is strange about a mask's file, "" when nothing is."""
  kinds = [v for v in mask.values if v not in (0, config.data.mask_ignore)]
  if mask.fault:
    return "fault"
  if mask.bands > 1:
    return "bands"
  if len(config.data.classes) > 1:  # Values that are no class stop the image from being read.
    return ""
  return "soft" if len(kinds) > _SOFT else "several" if len(kinds) > 1 else ""


def _listed(mask: MaskValues) -> str:
  values = ", ".join(f"{v:g}" for v in mask.values[:6])
  dots = ", ..." if len(mask.values) > 6 else ""
  return f": {mask.fault}" if mask.fault else f": {values}{dots}"


def _coverage(survey: Survey, config: Config) -> list[Finding]:
  # Of training images: no setting follows the masks that maps are judged by.
  shares = [sum(e.pixels) / e.known for e in survey.of("train") if e.positive and e.known]
  if not shares:
    return []
  share = float(np.median(shares))
  text = f"Masks cover {100 * share:.3g} % of the median positive training image"
  if share > _MOST_COVERED and not config.data.tile_size:  # A tile may well lie inside a landslide.
    remedy = "Look whether they are inverted: landslide is any value but 0."
    return [finding(WARNING, f"{text}.", remedy)]
  asked = config.localize.agreement_fraction
  if method_of(config).rule(config) == "agreement" and share < asked / 2:
    return [finding(
      WARNING, f"{text}, and localize.agreement_fraction={asked:g} wants more: maps will be too large.",
      f"Set model.top_fraction={ModelConfig.top_fraction} and "
      f"localize.threshold_rule={LocalizeConfig.threshold_rule}.",
    )]
  pooled = config.model.pooling == "top" and method_of(config).supervision == "labels"
  if pooled and share >= methods.CLOSE_UP_SHARE and config.model.top_fraction < share / 2:
    settings = ", ".join(f"{name}={value}" for name, value in methods.CLOSE_UP.items())
    return [finding(NOTE, f"{text}: they are seen from close by.", f"This suits them: {settings}.")]
  return []


def _without_masks(survey: Survey) -> list[Finding]:
  found = []
  for split in SPLITS:
    positives = [e for e in survey.of(split) if e.positive]
    bare = [e.name for e in positives if not e.known and e.mask_file is None]
    if 0 < len(bare) < len(positives):
      found.append(finding(
        NOTE, f"{len(bare):,} of {len(positives):,} positive images of the {split} split "
        f"{have(len(bare))} no mask.",
        "Maps are judged on the others alone.", bare,
      ))
  return found
