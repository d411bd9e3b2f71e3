"""Runs the exported network in this folder. Needs only jax and numpy.

    python load_stablehlo.py images.npy maps.npz
"""

import json
import pathlib
import sys

import jax
import numpy as np
from jax import export

FOLDER = pathlib.Path(__file__).parent


def load(image_type="uint8", folder=FOLDER):
  """Returns the function from images [B, side, side, channels] to scores, probabilities and mask.

  - scores, f32[B, side, side, C]: per class, refined and gated;
  - probabilities, f32[B, C]: that the image shows the class;
  - mask, u8[B, side, side]: 0 is background, k is class k, at the thresholds in facts.json.
  """
  facts = json.loads((folder / "facts.json").read_text())
  if image_type not in facts["stablehlo"]:
    raise ValueError(f"exported for {', '.join(facts['stablehlo'])} images only, not {image_type}")
  program = export.deserialize(bytearray((folder / facts["stablehlo"][image_type]).read_bytes()))
  run, shape = jax.jit(program.call), (facts["side"], facts["side"], facts["channels"])

  def predict(images):
    images = np.asarray(images)
    if images.shape[1:] != shape or images.dtype != image_type:
      raise ValueError(f"images are {images.dtype}{list(images.shape)}, not {image_type}[B, *{shape}]")
    return {name: np.asarray(value) for name, value in run(images).items()}

  return predict


if __name__ == "__main__":
  if len(sys.argv) != 3:
    sys.exit(__doc__)
  batch = np.load(sys.argv[1])
  np.savez(sys.argv[2], allow_pickle=False, **load(batch.dtype.name)(batch))
