"""Makes a finished workdir without training: packaged trunk, random head, a filled bank."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from data.synthetic_landslides import drawing
from lgag_jax.geo import scale
from lgag_jax.inference.localize import map_names
from lgag_jax.method import memory_bank
from lgag_jax.runtime import files, sharding
from lgag_jax.settings.maps import RULES
from lgag_jax.training import restore
from lgag_jax.training.checkpoints import Checkpoints

SIDE = 64
GSD = 2.0
THRESHOLD = 0.25  # Between the lowest and the highest score of the random head.


def make_workdir(folder, config, evidence=None):
  """Writes to `folder` what a training of `config` writes, with an evaluation; returns the folder.

  The network's maps are joined by `evidence`, a ColourEvidence, if there is any.
  """
  mesh = sharding.make_mesh()
  _, _, state = restore.start(config, mesh, 1)
  rng = np.random.default_rng(5)
  anchors = rng.normal(size=(config.bank.slots, *state.bank.centres.shape[::2])).astype(np.float32)
  bank = jax.device_get(state.bank)
  bank = jax.jit(lambda bank, anchors: memory_bank.refresh(
    memory_bank.push(bank, anchors, jnp.ones(anchors.shape[:2], bool)), config.bank
  ))(bank, anchors)
  assert bank.ready
  # The cross-attention starts at zero, where it would have no effect.
  move = lambda leaf: leaf + rng.normal(scale=0.05, size=leaf.shape).astype(np.float32)
  head = jax.tree.map(move, jax.device_get(state.params["head"]))
  state = state.replace(
    step=np.int32(7), params={"trunk": state.params["trunk"], "head": head}, bank=jax.device_get(bank)
  )
  state = jax.device_put(state, jax.devices()[0])  # A sharded state takes longer to save.
  checkpoints = Checkpoints(folder, keep=1, writes=True)
  checkpoints.save(state, {})
  checkpoints.close()
  files.write_json(folder / "config.json", dataclasses.asdict(config))
  scale.save(scale.Scale(SIDE, GSD), folder)
  levels = {rule: [THRESHOLD] * len(config.data.classes) for rule in RULES}
  thresholds = {"step": 7, "maps": dict.fromkeys(map_names(config), levels)}
  if evidence:
    evidence.save(folder)
    thresholds["colour_evidence"] = evidence.digest()
  files.write_json(folder / "thresholds.json", thresholds)
  pixels = {"iou": 0.4321, "f1": 0.6, "precision": 0.7, "recall": 0.5, "landslide_pixels": 9}
  maps = {name: {"label_free": pixels} for name in map_names(config)}
  classes = {name: {"image": {"auc": 0.9}, "maps": maps} for name in config.data.classes}
  files.write_json(
    folder / "eval" / "validation.json", {"step": 7, "examples": 12, "classes": classes}
  )
  return folder


def pictures():
  """Returns random and drawn images u8[4, SIDE, SIDE, 3]."""
  noise = np.random.default_rng(1).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
  drawn = [drawing.draw_patch(seed, size=SIDE, landslide=True)[0] for seed in (2, 3)]
  return np.stack([*noise, *drawn])
