"""Sizes of a workdir's exported programs, and how far their scores are from prediction's.

    python -m benchmarks.export --workdir=runs/demo

Judged on drawn images and on noise, at the workdir's own size, on the CPU.
"""

import importlib
import pathlib
import sys
import tempfile
import time

import numpy as np
from absl import app, flags

from data.synthetic_landslides import drawing
from lgag_jax.export import export
from lgag_jax.mapping import predict, window_scores
from lgag_jax.options.export import Settings

_WORKDIR = flags.DEFINE_string("workdir", None, "A finished training.", required=True)
_IMAGES = 4  # Of each kind.


def main(_: list[str]) -> None:
  model = predict.load_model(pathlib.Path(_WORKDIR.value).absolute())
  windows = export.training_windows(model)
  noise = np.random.default_rng(0).integers(0, 256, (_IMAGES, windows.side, windows.side, 3), np.uint8)
  drawn = [drawing.draw_patch(i, size=windows.side, landslide=True)[0] for i in range(_IMAGES)]
  images = np.concatenate([noise, drawn])
  compute_scores = window_scores.make_window_scores(model.network, model.config, model.mesh, windows)
  scores, probabilities = map(np.asarray, compute_scores(model.state, images))
  gated = scores * (probabilities > model.gate)[:, None, None]
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name, "exported")
    settings = Settings(what=("stablehlo", "onnx", "model"), onnx_batch=len(images))
    begin = time.monotonic()
    export.export(model.workdir, folder, settings)
    print(f"exported in {time.monotonic() - begin:.0f} s; scores from {scores.min():.3f} to "
          f"{scores.max():.3f}, {np.mean(gated > 0):.0%} above the gate")
    print("| what | MB | scores | probabilities |\n| --- | --- | --- | --- |")
    sys.path.insert(0, str(folder))
    for form in ("stablehlo", "onnx"):
      module = importlib.import_module(f"load_{form}")
      found = module.load("uint8", folder)(images)
      size = (folder / f"model_uint8.{form}").stat().st_size
      wanted = {"scores": gated, "probabilities": probabilities}
      worst = [np.abs(found[name] - value).max() for name, value in wanted.items()]
      print(f"| {form} | {size / 1e6:.1f} | {worst[0]:.1e} | {worst[1]:.1e} |")
    copy = predict.load_model(folder / "model")
    found = map(np.asarray, compute_scores(copy.state, images))
    worst = [np.abs(a - b).max() for a, b in zip(found, (scores, probabilities), strict=True)]
    size = sum(path.stat().st_size for path in (folder / "model").iterdir())
    print(f"| model directory | {size / 1e6:.1f} | {worst[0]:.1e} | {worst[1]:.1e} |")


if __name__ == "__main__":
  app.run(main)
