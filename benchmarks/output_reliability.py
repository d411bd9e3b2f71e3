"""What outputs survive: tiles, pseudo-masks, exports and maps under kills, Ctrl-C and full disks.

python -m benchmarks.output_reliability                    # about half an hour
python -m benchmarks.output_reliability kill --count=5 --modes=tile,export
python -m benchmarks.output_reliability interrupt disk     # disk: as root, or where users may mount

Each mode runs as a user would start it, in turn with two settings A and B. After each kill, what lies
under its final name must be that of A or of B as a whole, and the next undisturbed run must give what a
run into a new place gives.
"""

import argparse
import collections
import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import numpy as np
import pyogrio.raw
import rasterio
from PIL import Image

from benchmarks import small

_COMPARED = (  # Others contain times.
  ".tif", ".png", ".jpg", ".geojson", ".qml", ".csv", ".safetensors",
)
_LATEST = 12.0  # Seconds after a start by which a kill comes.
_DISK = 64  # MiB.


@dataclasses.dataclass(frozen=True)
class Mode:
  """A mode of the command line with its output."""

  name: str
  arguments: tuple[str, ...]
  output: str  # Below the folder of the mode.
  replaces: bool  # Whether a run replaces the output of an earlier one.
  settings: tuple[str, ...]  # The arguments of A and B; for "pseudo" a field of config.json.


MODES = (
  Mode("tile", ("--input={f}/scene.tif", "--labels={f}/labels.tiff", "--output={r}/out",
                "--tile_size=32"), "out", False, ("--max_nodata=0.5",) * 2),
  Mode("export", ("--workdir={f}/work", "--output={r}/out", "--what=model,stablehlo"), "out", False,
       ("--onnx_batch=1",) * 2),
  Mode("pseudo", ("--workdir={r}/work",), "work/pseudo", True, ("0.04", "0.15")),
  Mode("predict", ("--workdir={f}/work", "--input={f}/*.tif", "--output={r}/out"), "out", True,
       ("--threshold=0.3", "--threshold=0.5")),
)


def arguments(mode: Mode, folder: pathlib.Path, root: pathlib.Path, setting: int) -> list[str]:
  """Returns the command line of a mode with setting A (0) or B (1), whose output lies in `root`."""
  words = [f"--mode={mode.name}", *(word.format(f=folder, r=root) for word in mode.arguments)]
  if mode.name != "pseudo":
    return [*words, mode.settings[setting]]
  path = root / "work" / "config.json"
  config = json.loads(path.read_text())
  config["refine"]["ignore_band"] = float(mode.settings[setting])
  path.write_text(json.dumps(config))
  return words


def start(mode: Mode, folder: pathlib.Path, root: pathlib.Path, setting: int) -> subprocess.Popen:
  """Starts a mode with setting A (0) or B (1), whose output lies in `root`."""
  return subprocess.Popen(
    [sys.executable, "-m", "lgag_jax.main", *arguments(mode, folder, root, setting)], text=True,
    stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
  )


def contents(output: pathlib.Path) -> dict[str, bytes]:
  """Returns the files under final names that do not depend on the clock, and the features of layers."""
  names = [path.relative_to(output) for path in output.rglob("*") if path.is_file()]
  names = [name for name in names if not any(part.startswith(".") for part in name.parts)]
  found = {str(name): (output / name).read_bytes() for name in names if name.suffix in _COMPARED}
  for name in names:
    if name.suffix == ".gpkg":
      _, _, geometries, fields = pyogrio.raw.read(output / name)
      found[str(name)] = repr((geometries.tolist(), [field.tolist() for field in fields])).encode()
  return found


def leftovers(root: pathlib.Path) -> list[str]:
  """Lists what only an unfinished run has."""
  marks = (".partial", ".unfinished", ".rows-")
  return [str(path) for path in root.rglob("*") if path.name.startswith(marks)]


def has_begun(root: pathlib.Path, began: float) -> bool:
  """Returns whether a run that was started at a time is writing."""
  with contextlib.suppress(OSError):  # A file may go while it is looked at.
    return any(pathlib.Path(path).stat().st_mtime > began for path in leftovers(root))
  return True


def is_sound(mode: Mode, output: pathlib.Path, whole: list[dict[str, bytes]]) -> bool:
  """Returns whether an output is missing, or each of its files is whole and none is missing."""
  now = contents(output)
  if not mode.replaces:
    return not output.exists() or now == whole[0]
  now.pop("predictions.csv", None)  # Written when all scenes are.
  known = all(data in [one.get(name) for one in whole] for name, data in now.items())
  return known and (not now or set(now) == set(whole[0]) - {"predictions.csv"})


def prepare(folder: pathlib.Path) -> None:
  """Trains on a small set of images, and writes a scene with its labels."""
  data = small.write_folder(folder / "data")
  settings = {"train.epochs": 1, "refine.colour_evidence": False}
  subprocess.run([
    sys.executable, "-m", "lgag_jax.main", "--config=configs/image_folder.py",
    f"--workdir={folder}/work", f"--config.data.directory={data}",
    *(flag for flag in small.flags(**settings) if "grid_stride" not in flag),
  ], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
  images, masks = small.images(64)
  for name, tiles in (("scene", images), ("labels", masks[..., None] // 255)):
    rows = [np.concatenate(list(tiles[i : i + 8]), axis=1) for i in range(0, 64, 8)]
    pixels = np.moveaxis(np.concatenate(rows), -1, 0)
    with rasterio.open(
      folder / f"{name}.tif", "w", driver="GTiff", height=512, width=512, count=len(pixels),
      dtype="uint8", crs="EPSG:32644", transform=rasterio.Affine(2, 0, 5e5, 0, -2, 3e6),
    ) as raster:
      raster.write(pixels)
  (folder / "labels.tif").rename(folder / "labels.tiff")
  Image.fromarray(images[0]).save(folder / "picture.png")


def new_root(mode: Mode, folder: pathlib.Path, root: pathlib.Path) -> pathlib.Path:
  """Makes the folder of an output, with a workdir of its own for a mode that writes into it."""
  root.mkdir(exist_ok=True)
  if mode.name == "pseudo":
    shutil.copytree(folder / "work", root / "work")
  return root


def whole_outputs(mode: Mode, folder: pathlib.Path) -> tuple[list[dict[str, bytes]], float]:
  """Returns the outputs of undisturbed runs with A and B, and the seconds that one takes."""
  whole, began = [], time.monotonic()
  for setting in (0, 1)[: 1 + mode.replaces]:
    root = new_root(mode, folder, folder / f"{mode.name}-{'AB'[setting]}")
    finish(start(mode, folder, root, setting))
    whole.append(contents(root / mode.output))
  return whole, (time.monotonic() - began) / len(whole)


def finish(process: subprocess.Popen) -> None:
  _, text = process.communicate()
  if process.returncode:
    raise RuntimeError(text)


def disturb(
  mode: Mode, folder: pathlib.Path, count: int, number: signal.Signals
) -> Iterator[tuple[str, int]]:
  """Sends signals at random moments, every second time after the first write; yields what it found."""
  whole, seconds = whole_outputs(mode, folder)
  root, random = new_root(mode, folder, folder / f"{mode.name}-{number.name}"), np.random.default_rng(0)
  if mode.replaces:
    finish(start(mode, folder, root, 0))
  sent = 0
  while sent < count:
    began = time.time()
    process = start(mode, folder, root, sent // 4 % 2 if mode.replaces else 0)
    end = time.monotonic() + random.uniform(0.0, min(seconds, _LATEST))
    while process.poll() is None and (
      not has_begun(root, began) if sent % 2 else time.monotonic() < end
    ):
      time.sleep(0.002)
    time.sleep(random.uniform(0.0, 0.5) if sent % 2 else 0.0)
    if process.poll() is None:
      sent += 1
      process.send_signal(number)
      process.communicate()
      yield "signals", 1
      yield "of them with unfinished files", bool(leftovers(root))
      yield "ended otherwise", process.returncode != -number
    elif process.returncode and "exists and is not an empty" not in process.communicate()[1]:
      yield "failed by themselves", 1
    yield "unsound outputs", not is_sound(mode, root / mode.output, whole)
    if not mode.replaces and process.returncode >= 0:
      shutil.rmtree(root / mode.output, ignore_errors=True)
  if not (root / mode.output).exists() or mode.replaces:
    finish(start(mode, folder, root, int(mode.replaces)))
  yield "differences at the end", contents(root / mode.output) != whole[-1]
  yield "leftovers at the end", len(leftovers(root))


def fill(mode: Mode, folder: pathlib.Path, count: int) -> Iterator[tuple[str, int]]:
  """Runs a mode where the disk fills up at different places, then with room."""
  whole, _ = whole_outputs(mode, folder)
  disk = folder / "disk"
  disk.mkdir(exist_ok=True)
  size = sum(map(len, whole[0].values()))
  for share in np.linspace(0.0, 1.3, count):
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK}m", "tmpfs", disk], check=True)
    try:
      root = new_root(mode, folder, disk / "run")
      if mode.replaces:
        finish(start(mode, folder, root, 0))
      before = contents(root / mode.output)
      room = shutil.disk_usage(disk).free - int(share * size) - 4096
      with (disk / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, room)
      process = start(mode, folder, root, 1 if mode.replaces else 0)
      _, text = process.communicate()
      yield "disks", 1
      if process.returncode:
        yield "filled up", 1
        yield "exit code 1 and one line", process.returncode == 1 and "Traceback" not in text
        yield "said so", "No space left on device" in text
        yield "earlier output changed", contents(root / mode.output) != before
      (disk / "filler").unlink()
      if process.returncode:
        finish(start(mode, folder, root, int(mode.replaces)))
      yield "differences at the end", contents(root / mode.output) != whole[-1]
      yield "leftovers at the end", len(leftovers(root))
    finally:
      subprocess.run(["umount", disk], check=True)


def main() -> None:
  parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
  parser.add_argument("what", nargs="*", default=["kill", "interrupt", "disk"])
  parser.add_argument("--count", type=int, default=20, help="signals, or disks, for each mode")
  parser.add_argument("--modes", default=",".join(mode.name for mode in MODES))
  options = parser.parse_args()
  runs = {
    "kill": functools.partial(disturb, number=signal.SIGKILL),
    "interrupt": functools.partial(disturb, number=signal.SIGINT), "disk": fill,
  }
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    prepare(folder)
    for what in options.what:
      for mode in (mode for mode in MODES if mode.name in options.modes.split(",")):
        found: collections.Counter[str] = collections.Counter()
        for key, number in runs[what](mode, folder, options.count):
          found[key] += number
        print(f"{what}, {mode.name}: {dict(found)}", flush=True)
        for path in folder.glob(f"{mode.name}-*"):
          shutil.rmtree(path)


if __name__ == "__main__":
  main()
