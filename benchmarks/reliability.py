"""What a training survives: kills, damaged checkpoints, a full disk.

python -m benchmarks.reliability                      # about half an hour
python -m benchmarks.reliability kill --count=50
python -m benchmarks.reliability damage --count=200
python -m benchmarks.reliability disk                 # Linux; as root, or where users may mount

The trainer is the real one, started as a user would, on a small set of images.
"""

import argparse
import collections
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np

from benchmarks import small
from lgag_jax.runtime import sharding
from lgag_jax.training import checkpoints, restore

_TRAINING = {
  "train.epochs": 12, "train.log_every": 3, "train.checkpoint_every": 2, "train.evaluate_every": 1,
}
# The trainer on a disk whose size it cannot see.
_HIDDEN = """
import runpy, shutil
shutil.disk_usage = lambda path: shutil._ntuple_diskusage(1 << 50, 0, 1 << 50)
runpy.run_module("lgag_jax.main", run_name="__main__", alter_sys=True)
"""
_LATEST = 25.0  # Seconds after a start by which a kill comes; start-up is about half of it.


_PROGRAM = ("-m", "lgag_jax.main")


def start(
  data: pathlib.Path, workdir: pathlib.Path, program: tuple[str, ...] = _PROGRAM,
  **changes: object,
) -> subprocess.Popen:
  """Starts a training."""
  command = [
    sys.executable, *program, "--config=configs/image_folder.py", f"--workdir={workdir}",
    f"--config.data.directory={data}", *small.flags(**{**_TRAINING, **changes}),
  ]
  environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
  return subprocess.Popen(
    command, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
  )


def finish(process: subprocess.Popen) -> None:
  """Waits for a training; raises RuntimeError with what it said when it failed."""
  _, text = process.communicate()
  if process.returncode:
    raise RuntimeError(text)


def outcome(workdir: pathlib.Path) -> dict:
  """Returns all that a training leaves that does not depend on the clock."""
  _, _, state = restore.restore(workdir, sharding.make_mesh())
  lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  for line in lines:
    line.pop("steps_per_second", None)
  with np.load(workdir / "eval" / "panels.npz") as panels:
    shown = {name: panels[name].tobytes() for name in panels.files}
  return {
    "state": [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(jax.device_get(state))],
    "metrics": lines, "panels": shown,
    **{name: (workdir / name).read_text() for name in ("thresholds.json", "eval/validation.json")},
  }


def leftovers(workdir: pathlib.Path) -> list[str]:
  """Lists what only an unfinished write has."""
  marks = ("partial", "orbax-checkpoint-tmp", ".saving", ".damaged")
  return sorted(
    str(p.relative_to(workdir)) for p in workdir.rglob("*") if any(m in p.name for m in marks)
  )


def kill(folder: pathlib.Path, count: int) -> dict:
  """Kills trainings at random moments, every second one while it saves, and starts them again."""
  data = small.write_folder(folder / "data")
  finish(start(data, folder / "reference"))
  reference = outcome(folder / "reference")
  random, found = np.random.default_rng(0), collections.Counter()
  workdir, runs = folder / "run-0", 1
  while found["kills"] < count:
    process = start(data, workdir)
    saving = bool(found["kills"] % 2)
    _wait(process, workdir, random.uniform(0.0, _LATEST), saving, random)
    if process.poll() is None:
      found["kills"] += 1
      found["of them with an unfinished write on disk"] += bool(leftovers(workdir))
      process.send_signal(signal.SIGKILL)
      process.communicate()
      continue
    finish(process)
    found["differences"] += outcome(workdir) != reference
    found["leftovers"] += len(leftovers(workdir))
    shutil.rmtree(workdir)
    workdir, runs = folder / f"run-{runs}", runs + 1
  finish(start(data, workdir))
  found["differences"] += outcome(workdir) != reference
  found["leftovers"] += len(leftovers(workdir))
  return {**found, "trainings finished": runs}


def _wait(process, workdir, seconds, saving, random) -> None:
  """Waits that long; then, with `saving` set, for the next save to begin, and a little into it."""
  end = time.monotonic() + seconds
  while time.monotonic() < end and process.poll() is None:
    time.sleep(0.005)
  while saving and process.poll() is None and not list(workdir.glob("checkpoints/*.saving")):
    time.sleep(0.001)
  if saving:
    time.sleep(random.uniform(0.0, 0.3))


def damage(folder: pathlib.Path, count: int) -> dict:
  """Damages the newest checkpoint in every way; a training must find it and take the one before."""
  data = small.write_folder(folder / "data")
  finish(start(data, folder / "reference", _PROGRAM, **{"train.epochs": 2}))
  steps = sorted(int(p.name) for p in (folder / "reference" / "checkpoints").iterdir())
  _, _, like = restore.restore(folder / "reference", sharding.make_mesh())
  random, found = np.random.default_rng(0), collections.Counter()
  newest = folder / "reference" / "checkpoints" / str(steps[-1])
  names = sorted(p.relative_to(newest) for p in newest.rglob("*") if p.is_file())
  sizes = np.array([(newest / name).stat().st_size for name in names], float)
  # Half of the flips by size, half by file: small files matter too.
  chances = sizes / sizes.sum() / 2 + (sizes > 0) / np.sum(sizes > 0) / 2
  trials = [("flipped bit", names[random.choice(len(names), p=chances)]) for _ in range(count)]
  trials += [(how, name) for how in ("truncated", "emptied", "removed") for name in names]
  for how, name in trials:
    workdir = folder / "trial"
    shutil.copytree(folder / "reference", workdir)
    if not _harm(workdir / "checkpoints" / str(steps[-1]) / name, how, random):
      shutil.rmtree(workdir)
      continue
    found[f"{how}: trials"] += 1
    keeper = checkpoints.Checkpoints(workdir, keep=3, writes=True)
    aside = (workdir / "checkpoints" / f"{steps[-1]}.damaged-1").is_dir()
    found[f"{how}: found and set aside"] += aside and keeper.latest == steps[-2]
    state, _ = keeper.restore(like)
    keeper.close()
    found[f"{how}: the one before restored"] += int(state.step) == steps[-2]
    shutil.rmtree(workdir)
  return dict(found)


def _harm(path: pathlib.Path, how: str, random: np.random.Generator) -> bool:
  """Damages a file; returns whether that changes it."""
  content = bytearray(path.read_bytes())
  if how == "removed":
    path.unlink()
    return True
  if not content:
    return False
  if how == "flipped bit":
    content[random.integers(len(content))] ^= 1 << random.integers(8)
  path.write_bytes({"truncated": content[: len(content) // 2], "emptied": b""}.get(how, content))
  return True


def disk(folder: pathlib.Path) -> dict:
  """Trains on disks of many sizes, which fill up everywhere; then with room again to the end.

  Every second one hides that it is small, as a quota does.
  """
  data = small.write_folder(folder / "data")
  finish(start(data, folder / "reference"))
  reference, found = outcome(folder / "reference"), collections.Counter()
  for mebibytes in (*range(1, 12), *range(12, 90, 6)):
    workdir = folder / "small" / "run"
    workdir.parent.mkdir(exist_ok=True)
    _mount(workdir.parent, mebibytes)
    try:
      program = ("-c", _HIDDEN) if mebibytes % 4 in (0, 3) else ("-m", "lgag_jax.main")
      process = start(data, workdir, program)
      _, text = process.communicate()
      found["disks"] += 1
      found["filled up"] += process.returncode != 0
      if process.returncode:
        found["exit code 1"] += process.returncode == 1
        said = re.search("Error: .*No space left on device.*small/run", text)
        found["said so, and where"] += said is not None
        found["partial files"] += len(leftovers(workdir))
        _mount(workdir.parent, 400, again=True)
        finish(start(data, workdir))
        found["went on with more room"] += 1
      found["differences"] += outcome(workdir) != reference
    finally:
      subprocess.run(["umount", workdir.parent], check=True)
  return dict(found)


def _mount(folder: pathlib.Path, mebibytes: int, *, again: bool = False) -> None:
  options = f"size={mebibytes}m" + (",remount" if again else "")
  subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)


def main() -> None:
  parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
  parser.add_argument("what", nargs="*", default=["kill", "damage", "disk"])
  parser.add_argument("--count", type=int, help="kills, or flipped bits")
  arguments = parser.parse_args()
  for name in arguments.what:
    with tempfile.TemporaryDirectory() as folder:
      path = pathlib.Path(folder)
      run = {
        "kill": lambda path=path: kill(path, arguments.count or 50),
        "damage": lambda path=path: damage(path, arguments.count or 200),
        "disk": lambda path=path: disk(path),
      }[name]
      print(f"{name}:", flush=True)
      for what, number in run().items():
        print(f"- {what}: {number}", flush=True)


if __name__ == "__main__":
  main()
