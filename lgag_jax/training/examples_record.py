"""The record of a workdir's examples, which tells if the data change between two starts.

Training images of an earlier start could otherwise become validation images without a word: without
named splits, the last images by name are the validation split.
"""

import logging
import pathlib
from typing import Any

from lgag_jax.config import Config
from lgag_jax.inputs import image_bytes, pseudo, shared_ground
from lgag_jax.inputs.sources import Source
from lgag_jax.method.registry import method_of
from lgag_jax.runtime import sealed_json

_LOG = logging.getLogger(__name__)

FILE = "examples.json"
_CHANGED = {
  "images": "pixels in images of the same names", "masks": "masks",
  "before": "images before the event, or another place of them",
}


def write(sources: dict[str, Source], workdir: pathlib.Path, config: Config) -> None:
  """Writes number and digests (names, labels, order; bytes) of each split's examples into a workdir."""
  record = {}
  for split, source in sources.items():
    kinds = _kinds(source, config)
    content = {kind: image_bytes.record(source, kind) for kind in kinds}
    record[split] = _entry(source) | pseudo.parts(source) | content
  sealed_json.write(workdir / FILE, record)


def is_record(workdir: pathlib.Path) -> bool:
  """Returns whether the record in a workdir is one that `write` wrote."""
  try:
    content = sealed_json.read(workdir / FILE, "")
  except (OSError, ValueError):
    return False
  splits = content.values() if isinstance(content, dict) else ()
  return bool(splits) and all(isinstance(split, dict) and "digest" in split for split in splits)


def check(sources: dict[str, Source], workdir: pathlib.Path, config: Config) -> None:
  """Compares the examples with those that the workdir was trained on.

  Raises ValueError if training examples were added, removed, renamed or relabelled, or if their images
  changed. Logs a warning if only validation examples did. A workdir of an older version has no record;
  it is not checked.
  """
  path = workdir / FILE
  if not path.exists():
    return
  record = sealed_json.read(path, "Restore it from a copy, or use a new --workdir.")
  if not isinstance(record, dict):
    raise ValueError(f"{path} is damaged: restore it, or use a new --workdir.")
  changes = {}
  for split, source in sources.items():
    if change := _find_change(split, record.get(split), source, config):
      changes[split] = change
  if "train" in changes:
    raise ValueError(
      f"The data have changed since {workdir} was trained: {' '.join(changes.values())} Use a new "
      "--workdir to train on the data as they are now, or restore the data to use this one."
    )
  for change in changes.values():
    _LOG.warning(
      "The data have changed since %s was trained: %s Earlier validation figures are of other images.",
      workdir, change,
    )


def warn_of_shared(sources: dict[str, Source]) -> None:
  """Logs a warning if training images are among the validation images."""
  train, validation = (sources[split].keys for split in ("train", "validation"))
  if shared := set(train) & set(validation):
    _LOG.warning(
      "%d of %d validation images are training images, too: figures on them are too good "
      "(data.train_split, data.validation_split).", len(shared), len(validation),
    )


def warn_of_overlap(sources: dict[str, Source]) -> None:
  """Logs a warning if parts of an image in both splits overlap; `refuse_overlap` explains it."""
  if text := shared_ground.between(sources["train"], sources["validation"]):
    _LOG.warning("Figures on validation images are too good: %s.", text)


def refuse_overlap(sources: dict[str, Source], config: Config) -> None:
  """Raises ValueError if a part of an image in one split overlaps another part in the other one."""
  if text := shared_ground.between(sources["train"], sources["validation"]):
    raise ValueError(
      f"{config.data.directory}: {text}. Figures on validation images would be too good. Name the "
      "split of each row in the column split of the manifest, without parts of different splits that "
      "overlap, or split by blocks (data.block_size)."
    )


def _entry(source: Source) -> dict[str, Any]:
  positives = int((source.labels.max(axis=1) > 0).sum())
  return {"examples": len(source.ids), "positives": positives, "digest": pseudo.digest(source)}


def _kinds(source: Source, config: Config) -> list[image_bytes.Kind]:
  """Returns the files of a source whose bytes matter."""
  kinds: list[image_bytes.Kind] = ["images"]
  if _learns_masks(source, config):
    kinds.append("masks")
  if config.data.paired and image_bytes.has_before(source):
    kinds.append("before")
  return kinds


def _learns_masks(source: Source, config: Config) -> bool:
  """Returns whether training learns from the masks of a source; evaluation opens no pseudo-masks."""
  is_own = bool(config.data.pseudo_masks) == isinstance(source, pseudo.PseudoSource)
  return is_own and method_of(config).learns_masks(config)


def _find_change(split: str, old: Any, source: Source, config: Config) -> str:
  """Returns how examples differ from those of a record, "" if they do not."""
  new = _entry(source)
  if not isinstance(old, dict) or any(old.get(name) != value for name, value in new.items()):
    return _change(split, old, new)
  if not pseudo.same_parts(old, source):
    return (
      f"the {split} split has other parts of the same images (row_start, row_stop, col_start and "
      "col_stop in the manifest, or data.tile_size)."
    )
  for kind in _kinds(source, config):
    if image_bytes.has_changed(old.get(kind), source, kind):
      return f"the {split} split has other {_CHANGED[kind]}."
  return ""


def _change(split: str, old: Any, new: dict[str, Any]) -> str:
  names = ("examples", "positives")
  counts = [old.get(name) for name in names] if isinstance(old, dict) else [None, None]
  if counts == [new[name] for name in names]:
    return (
      f"the {split} split still has {new['examples']} examples, but other names or labels."
    )
  return (
    f"the {split} split had {counts[0]} examples, {counts[1]} of them positive; now it has "
    f"{new['examples']}, {new['positives']} of them positive."
  )
