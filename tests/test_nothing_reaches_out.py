"""The main jobs open only the files that they are given, their outputs and what is installed."""

import json
import os
import pathlib
import re
import shutil
import site
import subprocess
import sys

import pytest
import shapely

from lgag_jax.inputs.sources import open_source
from tests import all_jobs
from tests.test_reading import pixels, write_tiff
from tests.test_reference import write_layer
from tests.test_scene import NORTH_UP

ROOT = pathlib.Path(__file__).parent.parent
STRACE = shutil.which("strace")
GIVEN = {"scene.tif", "labels.gpkg", "builders", "prepared"}
# Files that GDAL and others would open if they were allowed to look beside a file.
DECOYS = ("scene.tif.ovr", "scene.ovr", "scene.tfw.tmp", "scene.imd", "labels.gpkg.aux.xml")
# Programs of the system: matplotlib asks once for the fonts, and Python for the machine.
PROGRAMS = {"fc-list", "uname"}
INSTALLED = ("/usr", "/lib", "/lib64", "/bin", "/etc", "/proc", "/sys", "/dev", "/opt",
             "/var/cache/fontconfig")
# Of a TFDS set.
BUILDER = """
import numpy as np
import tensorflow_datasets as tfds

class Builder(tfds.core.GeneratorBasedBuilder):
  VERSION = tfds.core.Version("1.0.0")

  def _info(self):
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({
      "image": tfds.features.Image(shape=(8, 8, 3)),
      "label": tfds.features.ClassLabel(names=["non-landslide", "landslide"]),
    }))

  def _split_generators(self, dl_manager):
    return {"train": self._generate_examples()}

  def _generate_examples(self):
    for i in range(4):
      yield i, {"image": np.full((8, 8, 3), i, np.uint8), "label": i % 2}
"""
_SYSTEM_CALL = re.compile(r'(open|openat|execve|connect)\((?:AT_FDCWD, |-?\d+, )?(?:"([^"]*)"|(.*))')


@pytest.fixture(scope="module")
def seen(image_folder, tmp_path_factory):
  """Runs all jobs; returns the folder, Python's events and the system calls, None without strace."""
  folder = tmp_path_factory.mktemp("jobs")
  for path in sorted(image_folder.glob("*/*")):
    if path.stem.endswith(("0", "1", "2", "3", "4")):  # Half of them.
      (folder / "images" / path.parent.name).mkdir(parents=True, exist_ok=True)
      shutil.copy(path, folder / "images" / path.parent.name)
  (folder / "builders" / "tiny").mkdir(parents=True)
  (folder / "builders" / "tiny" / "tiny_dataset_builder.py").write_text(BUILDER)
  assert len(open_source(all_jobs.tfds_config(folder), "train").ids) == 4  # Prepares the set.
  write_tiff(folder / "scene.tif", pixels(128, 128), transform=NORTH_UP, crs="EPSG:32644")
  corners = [NORTH_UP @ corner for corner in ((8, 8), (50, 8), (50, 60), (8, 60))]
  write_layer(folder / "labels.gpkg", [shapely.Polygon(corners)])
  for name in DECOYS:
    (folder / name).write_text("<VRTDataset/>")
  for name in ("home", "tmp", "out"):
    (folder / name).mkdir()
  environment = {
    "PATH": os.environ["PATH"], "HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"),
    "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu", "PYTHONDONTWRITEBYTECODE": "1",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
  }
  trace = folder / "trace"
  tracer = [STRACE, "-f", "--seccomp-bpf", "-qq", "-s", "300", "-e", "trace=open,openat,execve,connect",
            "-o", trace] if STRACE else []
  run = subprocess.run(
    [*tracer, sys.executable, "-m", "tests.all_jobs", folder, folder / "events.json"], cwd=ROOT,
    env=environment, capture_output=True, text=True, timeout=900,
  )
  assert run.returncode == 0, run.stderr[-3000:]
  events = [tuple(event) for event in json.loads((folder / "events.json").read_text())]
  calls = trace.read_text(errors="surrogateescape").splitlines() if STRACE else None
  return folder, events, calls


def unnamed(paths, folder):
  """Returns the paths that are neither given, nor outputs, nor installed."""
  roots = {
    str(folder / name) for name in ("images", "home", "tmp", "out", "events.json")
  } | {str(folder / name) for name in GIVEN} | {
    sys.prefix, sys.base_prefix, os.path.realpath(sys.prefix), str(ROOT), *site.getsitepackages(),
    *INSTALLED,
  }
  # GDAL's journal of SQLite, and the folders on the way.
  roots |= {str(folder / f"labels.gpkg{suffix}") for suffix in ("-journal", "-wal")}
  ways = {str(parent) for root in roots for parent in pathlib.Path(root).parents} | {str(folder)}
  absolute = (os.path.join(ROOT, path) for path in paths)
  return sorted(
    path for path in absolute
    if path not in ways and not any(path == root or path.startswith(f"{root}/") for root in roots)
  )


@pytest.mark.longest
def test_python_opens_only_what_is_named(seen):
  folder, events, _ = seen
  opened = [value for event, value in events if event == "open"]
  assert any(path.endswith("scene.tif") for path in opened)  # The hook sees files.
  assert any("/prepared/tiny/" in path for path in opened)
  assert unnamed(opened, folder) == []
  others = [event for event in events if event[0] != "open"]
  assert {event for event, _ in others} <= {"subprocess.Popen"}
  assert {value for _, value in others} <= PROGRAMS


@pytest.mark.longest
@pytest.mark.skipif(not STRACE, reason="strace is not installed")
def test_libraries_open_only_what_is_named(seen):
  folder, _, calls = seen
  found = [match.groups() for line in calls if (match := _SYSTEM_CALL.search(line))]
  opened = [path for call, path, _ in found if call.startswith("open") and path]
  assert any(path.endswith("labels.gpkg") for path in opened)  # strace sees what GDAL opens.
  assert unnamed(opened, folder) == []
  assert not [path for path in opened if pathlib.Path(path).name in DECOYS]
  assert [rest for call, _, rest in found if call == "connect"] == []
  started = {path for call, path, _ in found if call == "execve"}
  assert {pathlib.Path(path).name for path in started - {sys.executable}} <= PROGRAMS
