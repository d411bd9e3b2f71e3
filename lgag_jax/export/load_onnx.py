"""Runs the exported network in this folder. Needs only onnxruntime and numpy.

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

  - scores, f32[B, side, side, C]: per class, refined and gated;
  - probabilities, f32[B, C]: that the image shows the class;
  - mask, u8[B, side, side]: 0 is background, k is class k, at the thresholds in facts.json.

  The program takes `onnx_batch` images at a time: this function pads and splits the batch.
  """
  facts = json.loads((folder / "facts.json").read_text())
  if image_type not in facts["onnx"]:
    raise ValueError(f"exported for {', '.join(facts['onnx'])} images only, not {image_type}")
  program = onnxruntime.InferenceSession(
    str(folder / facts["onnx"][image_type]), providers=list(providers)
  )
  names, size = [output.name for output in program.get_outputs()], facts["onnx_batch"]
  shape = (facts["side"], facts["side"], facts["channels"])

  def predict(images):
    images = np.asarray(images)
    if images.shape[1:] != shape or images.dtype != image_type:
      raise ValueError(f"images are {images.dtype}{list(images.shape)}, not {image_type}[B, *{shape}]")
    padded = np.pad(images, ((0, -len(images) % size), (0, 0), (0, 0), (0, 0)))
    parts = [program.run(names, {"images": padded[i : i + size]}) for i in range(0, len(padded), size)]
    outputs = [np.concatenate(output)[: len(images)] for output in zip(*parts, strict=True)]
    return dict(zip(names, outputs, strict=True))

  return predict


if __name__ == "__main__":
  if len(sys.argv) != 3:
    sys.exit(__doc__)
  batch = np.load(sys.argv[1])
  np.savez(sys.argv[2], allow_pickle=False, **load(batch.dtype.name)(batch))
