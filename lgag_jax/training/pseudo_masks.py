"""Pseudo-masks of the training images: what a first stage found, as masks that a second learns from.

The image label decides which classes there are; the threshold is the first stage's own, label-free one;
scores close to it are left out of the second stage's loss, as unknown pixels.
"""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import shutil

import jax
import numpy as np
from PIL import Image

from lgag_jax.config import Config
from lgag_jax.evaluation import thresholds_file
from lgag_jax.imagery import reading
from lgag_jax.inference.localize import Maps, inputs_of, main_map_name, make_localize
from lgag_jax.inputs import image_bytes, pseudo
from lgag_jax.inputs.sources import open_source
from lgag_jax.runtime import files, lock, preemption, processes, sharding
from lgag_jax.runtime.progress import Progress
from lgag_jax.training import examples_record, fill_trunk_outputs, model_directory, restore


def write(workdir: pathlib.Path) -> pathlib.Path:
  """Writes <workdir>/pseudo: a PNG for each training image, and an index.json; returns the folder.

  A folder that the workdir's newest checkpoint and settings have filled before is kept; older masks are
  replaced when all new ones are whole. Raises FileNotFoundError when the training has not finished,
  ValueError when the training images have changed since, when another run is at work there, or when a
  file of another origin would be replaced.
  """
  model_directory.refuse(workdir, "Pseudo-masks are of training images: name the workdir.")
  mesh = sharding.make_mesh()
  config, network, state = restore.restore(workdir, mesh)
  thresholds = thresholds_file.load_thresholds(workdir, config, step=int(state.step))
  thresholds = thresholds[main_map_name(config)]
  network = thresholds_file.with_evidence(network, workdir, config)
  folder, staged = workdir / "pseudo", workdir / ".unfinished-pseudo"
  with lock.hold(workdir):
    source = open_source(config.data, "train", from_workdir=True)
    examples_record.check({"train": source}, workdir, config)
    index = {
      "step": int(state.step), "examples": len(source.ids), "source": pseudo.digest(source),
      **pseudo.parts(source), "images": image_bytes.record(source),
      **({"before": image_bytes.record(source, "before")} if image_bytes.has_before(source) else {}),
      "classes": list(config.data.classes), "thresholds": thresholds, "settings": _settings(config),
    }
    if processes.run_on_first(lambda: _is_complete(folder, index)):
      return folder
    processes.run_on_first(lambda: _prepare(folder, staged, index))
    try:
      train = fill_trunk_outputs.open_split(source, network, state, config, mesh, workdir)
      localize = make_localize(network, config, mesh)
      progress = Progress("pseudo-masks", len(source.ids))
      for batch in preemption.until_stopped(train.eval_batches(config)):
        maps = localize(state, sharding.to_global(inputs_of(batch, config), mesh))
        maps = sharding.local_rows(maps)
        real = (batch["index"] >= 0) & (batch["weight"] > 0)
        masks = pseudo_masks(maps, batch["label"], thresholds, config)
        for i in np.flatnonzero(real):
          path = pseudo.mask_file(staged, int(batch["index"][i]))
          with files.atomic_path(path) as partial:
            Image.fromarray(masks[i]).save(partial, format="PNG")
        progress.advance(len(real) * jax.process_count())
      progress.close()
      processes.barrier("pseudo-masks")
      processes.run_on_first(lambda: _publish(folder, staged, index))
    except BaseException:
      shutil.rmtree(staged, ignore_errors=True)  # No run resumes it, and the disk may be full.
      raise
  return folder


def pseudo_masks(maps: Maps, labels: np.ndarray, thresholds: list[float], config: Config) -> np.ndarray:
  """Returns u8[B, H, W]: a class's number, 0 for background, reading.UNKNOWN in between.

  `labels` is f32[B, C]. A class that the label affirms and no score reaches leaves its image's less
  unlikely half unknown: there is a landslide somewhere.
  """
  scores = np.asarray(maps.scores[main_map_name(config)], np.float32)
  margin = scores - np.array(thresholds, np.float32)
  margin = np.where(labels[:, None, None, :] > 0, margin, -np.inf)  # B H W C
  band = config.refine.ignore_band
  best = margin.argmax(-1)
  top = margin.max(-1)
  masks = np.where(top >= 0, best + 1, 0).astype(np.uint8)
  masks[(np.abs(top) < band) | np.isnan(top)] = reading.UNKNOWN
  for i, c in zip(*np.nonzero(labels > 0), strict=True):
    if not np.any(masks[i] == c + 1):
      likely = scores[i, ..., c] >= np.nanmedian(scores[i, ..., c])
      masks[i][likely & (masks[i] == 0)] = reading.UNKNOWN
  masks[labels.max(-1) == 0] = 0
  return masks


def _settings(config: Config) -> str:
  """Returns what tells maps made in one way from those made in any other."""
  localize = dataclasses.replace(config.localize, batch_size=1)  # Of the machine.
  return hashlib.sha256(repr((localize, config.refine, config.gaa)).encode()).hexdigest()


def _own_examples(folder: pathlib.Path) -> int:
  """Returns how many of the masks in a folder `write` has written there, by its index."""
  try:
    examples = files.read_json(folder / pseudo.INDEX)["examples"]
  except FileNotFoundError:
    return 0
  except (ValueError, LookupError, TypeError):
    examples = None
  if not isinstance(examples, int):
    raise ValueError(f"{folder / pseudo.INDEX} is not what --mode=pseudo writes: move {folder} away.")
  return examples


def _prepare(folder: pathlib.Path, staged: pathlib.Path, index: dict) -> None:
  """Removes what a killed run left; raises ValueError naming a file that is not lgag's."""
  for example in range(_own_examples(folder), index["examples"]):
    path = pseudo.mask_file(folder, example)
    if os.path.lexists(path):
      raise ValueError(
        f"{path} would be replaced, but {folder / pseudo.INDEX} does not list it: move {folder} away."
      )
  shutil.rmtree(staged, ignore_errors=True)
  staged.mkdir(parents=True)


def _publish(folder: pathlib.Path, staged: pathlib.Path, index: dict) -> None:
  """Puts the new masks in their places, with an index last that says that they are whole."""
  own = _own_examples(folder)
  masks = [pseudo.mask_file(pathlib.Path(), example) for example in range(max(own, index["examples"]))]
  files.write_json(staged / pseudo.INDEX, index)  # While nothing has changed: the disk may be full.
  files.write_json(folder / pseudo.INDEX, {"examples": len(masks), pseudo.UNFINISHED: True})
  for mask in masks:
    if (staged / mask).exists():
      (folder / mask).parent.mkdir(parents=True, exist_ok=True)
      (staged / mask).rename(folder / mask)
    else:  # Of an earlier run; its image cannot be read now.
      (folder / mask).unlink(missing_ok=True)
  (staged / pseudo.INDEX).rename(folder / pseudo.INDEX)
  shutil.rmtree(staged)


def _is_complete(folder: pathlib.Path, index: dict) -> bool:
  with contextlib.suppress(OSError, ValueError):
    found = files.read_json(folder / pseudo.INDEX)
    # Earlier releases recorded no parts.
    return found == {name: value for name, value in index.items() if name != "parts" or name in found}
  return False
