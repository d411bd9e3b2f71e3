"""Runs the exported network in this folder; it needs onnxruntime and numpy alone.

    python load_onnx.py images.npy maps.npz
"""

import json
import pathlib
import sys

import numpy as np
import onnxruntime

FOLDER = pathlib.Path(__file__).parent


def load(image_type="uint8", folder=FOLDER, providers=("CPUExecutionProvider",)):
  """Returns the function from images [B, side, side, channels] to scores, probabilities and mask.

  Scores f32[B, side, side, C] are refined and gated, probabilities f32[B, C] are the images', the mask
  u8[B, side, side] is drawn at the thresholds that facts.json names: 0 is background, k its class k.
  The program takes `onnx_batch` images at once: others are padded here.
  """
  facts = json.loads((folder / "facts.json").read_text())
  if image_type not in facts["onnx"]:
    raise ValueError(f"exported for {', '.join(facts['onnx'])} alone, not {image_type} images")
  session = onnxruntime.InferenceSession(
    str(folder / facts["onnx"][image_type]), providers=list(providers)
  )
  names, size = [output.name for output in session.get_outputs()], facts["onnx_batch"]
  shape = (facts["side"], facts["side"], facts["channels"])

  def predict(images):
    images = np.asarray(images)
    if images.shape[1:] != shape or images.dtype != image_type:
      raise ValueError(f"images are {images.dtype}{list(images.shape)}, not {image_type}[B, *{shape}]")
    padded = np.pad(images, ((0, -len(images) % size), (0, 0), (0, 0), (0, 0)))
    parts = [
      session.run(names, {"images": padded[i : i + size]}) for i in range(0, len(padded), size)
    ]
    joined = [np.concatenate(part)[: len(images)] for part in zip(*parts, strict=True)]
    return dict(zip(names, joined, strict=True))

  return predict


if __name__ == "__main__":
  if len(sys.argv) != 3:
    sys.exit(__doc__)
  given = np.load(sys.argv[1])
  np.savez(sys.argv[2], **load(given.dtype.name)(given))
