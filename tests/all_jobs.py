"""Runs the main jobs in one process and records what Python is asked to open, connect to and start.

    python -m tests.all_jobs FOLDER EVENTS

FOLDER holds images/, scene.tif, labels.gpkg, and a prepared TFDS set with its builder. All outputs go
to FOLDER/out. Libraries in C open files without Python's knowledge: run it under strace for these.
"""

import json
import os
import pathlib
import sys

_EVENTS = {
  "open": 0, "os.exec": 0, "os.posix_spawn": 0, "os.system": 0, "subprocess.Popen": 0,
  "socket.connect": 1, "socket.getaddrinfo": 0, "socket.sendto": 1, "urllib.Request": 0,
}
_found = set()


def _record(event, arguments):
  if event in _EVENTS:
    value = arguments[_EVENTS[event]]
    if not isinstance(value, int):  # Else an open file's number.
      _found.add((event, os.fsdecode(value) if isinstance(value, bytes | os.PathLike) else str(value)))


def tfds_config(folder):
  """Returns the config of the TFDS set in a folder."""
  from lgag_jax.config import DataConfig

  return DataConfig(
    source="tfds", builder=str(folder / "builders" / "tiny"), directory=str(folder / "prepared"),
    validation_split="train",
  )


def main(folder, events):
  sys.addaudithook(_record)
  import numpy as np
  import pyogrio  # noqa: F401  Before TensorFlow.

  import lgag_jax
  from lgag_jax import config as configs
  from lgag_jax.doctor import examine
  from lgag_jax.evaluation import report
  from lgag_jax.export import export
  from lgag_jax.inputs.sources import open_source
  from lgag_jax.mapping import judge, predict
  from lgag_jax.options import export as export_options
  from lgag_jax.options import tiling
  from lgag_jax.options.mapping import References
  from lgag_jax.runtime import compiled_programs
  from lgag_jax.tiling import tile
  from lgag_jax.training import loop
  from tests import conftest

  compiled_programs.enable_cache()
  out, scene, labels = folder / "out", str(folder / "scene.tif"), str(folder / "labels.gpkg")
  tile.cut(tiling.Settings(scene, str(out / "tiles"), labels=labels, tile_size=32))
  mapping = conftest.make_small_config(folder / "images")
  mapping.model.method = "class_activation"  # Quick to compile.
  mapping.refine.method = "none"
  mapping.localize.anchor_stride = 16
  mapping.train.epochs = 1
  config, workdir = configs.from_mapping(mapping), out / "run"
  examine.examine(config, out / "doctor")
  open_source(tfds_config(folder), "train").read(0)
  loop.train_and_evaluate(config, workdir)
  loop.evaluate_workdir(workdir)
  report.write_report(workdir)
  predict.map_scenes(workdir, scene, out / "maps")
  judge.evaluate(workdir, scene, out / "judged", lgag_jax.Options(), References(labels=labels))
  export.export(workdir, str(out / "exported"), export_options.Settings())
  model = lgag_jax.load(out / "exported" / "model")
  model.predict(np.zeros((64, 64, 3), np.uint8))
  model.predict(scene)
  events.write_text(json.dumps(sorted(_found)))


if __name__ == "__main__":
  main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
