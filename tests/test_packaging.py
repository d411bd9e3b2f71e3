"""What is installed: the wheel and the source distribution, and that they work where no checkout is."""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from lgag_jax import __version__

ROOT = pathlib.Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SHIPPED = {"lgag_jax": "lgag_jax", "configs": "lgag_jax/configs", "data": "lgag_jax/data"}


def requirements(name):
  lines = (ROOT / name).read_text().splitlines()
  return {
    (found.name, str(found.marker)): found
    for line in lines if line[:1] not in ("", "#", "-") for found in [Requirement(line)]
  }


def next_breaking(version):
  major, minor, *_ = [*version.release, 0]
  return Version(f"{major + 1}") if major or not minor else Version(f"0.{minor + 1}")


def test_ranges_begin_at_the_tested_versions_and_end_before_the_next_that_may_break():
  ranges = {(r.name, str(r.marker)): r for r in map(Requirement, PROJECT["project"]["dependencies"])}
  pins = requirements("requirements.txt")
  assert set(ranges) == set(pins)
  for key, pin in pins.items():
    (version,) = (Version(s.version) for s in pin.specifier)
    lowest, below = next_breaking(version), None
    bounds = {s.operator: Version(s.version) for s in ranges[key].specifier}
    assert bounds.pop(">=") == version, key
    below = bounds.pop("<")
    assert below == lowest or (version.release[:2] == (0, 0) and below == Version("0.1")), key
    assert not bounds
  for extra in ("cuda", "tpu"):
    (wanted,) = map(Requirement, PROJECT["project"]["optional-dependencies"][extra])
    (pinned,) = requirements(f"requirements-{extra}.txt").values()
    assert wanted.extras == pinned.extras
    assert wanted.specifier == ranges["jax", "None"].specifier


def test_the_dockerfile_names_what_there_is():
  lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
  steps = [line.split(None, 1) for line in lines if line.strip() and not line.startswith("#")]
  kinds = [kind for kind, _ in steps]
  assert kinds[0] == "FROM"
  assert set(kinds) <= {"FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "ENTRYPOINT"}
  assert "USER" in kinds[kinds.index("RUN") :]  # Not root's in the end.
  ignored = (ROOT / ".dockerignore").read_text().split()
  kept = {line[1:] for line in ignored if line.startswith("!")}
  assert ignored[0] == "*"
  assert all((ROOT / name).exists() for name in kept)
  for kind, rest in steps:
    if kind == "COPY":
      assert {*rest.split()[:-1]} <= kept | {"."}
  assert dict(steps)["ENTRYPOINT"] == str(list(PROJECT["project"]["scripts"])).replace("'", '"')


def built_from(tree, root):
  """Builds both distributions of a copy, so that nothing of a build stays in the checkout."""
  names = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=root, text=True,
    capture_output=True, check=True,
  ).stdout.split("\n")[:-1]
  for name in filter(lambda name: (root / name).is_file(), names):
    (tree / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(root / name, tree / name)
  command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", tree / "dist", tree]
  result = subprocess.run(command, capture_output=True, text=True)
  assert result.returncode == 0, result.stdout + result.stderr
  (wheel,), (source,) = ((tree / "dist").glob(p) for p in ("*.whl", "*.tar.gz"))
  return wheel, source, names


@pytest.fixture(scope="module")
def built(tmp_path_factory):
  return built_from(tmp_path_factory.mktemp("tree"), ROOT)


@pytest.mark.slow
def test_wheel_and_source_hold_what_they_should(built):
  wheel, source, names = built
  version = f"lgag_jax-{__version__}"
  assert wheel.name == f"{version}-py3-none-any.whl"
  with zipfile.ZipFile(wheel) as archive:
    held = {name for name in archive.namelist() if ".dist-info/" not in name}
    (metadata,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
    text = archive.read(metadata).decode()
  expected = set()
  for name in names:
    top, _, rest = name.partition("/")
    if top in SHIPPED and (ROOT / name).is_file():
      expected.add(f"{SHIPPED[top]}/{rest}")
  # A module or a builder's file that the wheel lacks: name its package in pyproject.toml.
  assert held == expected
  for line in ("Requires-Python: >=3.11,<3.14", "Provides-Extra: cuda", "Provides-Extra: tpu"):
    assert line in text or line.replace(">=3.11,<3.14", "<3.14,>=3.11") in text
  with tarfile.open(source) as archive:
    held = {name.removeprefix(f"{version}/") for name in archive.getnames()}
  left_out = {".dockerignore", ".gitignore"}
  wanted = {n for n in names if (ROOT / n).is_file() and not n.startswith((".ci/", ".github/"))}
  assert wanted - left_out <= held


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
  """A fresh environment with the wheel in it, which borrows this one's libraries."""
  place = tmp_path_factory.mktemp("environment")
  subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
  python = place / "bin" / "python"
  (site,) = place.glob("lib/python*/site-packages")
  (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"])
  subprocess.run(
    [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index",
     "--no-compile", built[0]], check=True,
  )
  assert {path.name for path in site.iterdir()} == {
    "borrowed.pth", "lgag_jax", f"lgag_jax-{__version__}.dist-info"
  }
  return place / "bin"


def run(installed, folder, *command, **variables):
  environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | variables
  return subprocess.run(
    [installed / command[0], *command[1:]], cwd=folder, env=environment, capture_output=True, text=True
  )


@pytest.mark.slow
def test_the_installed_command_works_in_an_empty_folder(installed, tmp_path):
  result = run(installed, tmp_path, "lgag", "--helpshort")
  assert result.returncode == 0
  assert "  lgag --mode=predict" in result.stdout
  result = run(installed, tmp_path, "python", "-c", _EACH)
  assert result.stdout.split() == sorted(
    f"configs/{path.name}" for path in (ROOT / "configs").glob("*.py")
  ), result.stderr
  # Draws the set: the builder, and what it needs, are found.
  result = run(
    installed, tmp_path, "lgag", "--mode=doctor", "--config=configs/synthetic_landslides.py",
    "--config.data.builder=data/synthetic_landslides:tiny", "--workdir=runs/demo",
  )
  assert result.returncode in (0, 2), result.stderr
  assert "lgag_jax/configs/synthetic_landslides.py, which comes with lgag_jax" in result.stderr
  assert (tmp_path / "runs" / "demo" / "doctor" / "report.html").exists()
  assert {path.name for path in tmp_path.iterdir()} == {"runs"}


_EACH = """
import runpy
from lgag_jax import config
from lgag_jax.inputs import tfds_source
from lgag_jax.runtime import packaged
for name in packaged.config_files():
  each = config.from_mapping(runpy.run_path(packaged.resolve(name))["get_config"]())
  if each.data.source == "tfds":
    tfds_source.refuse_foreign_builder(each.data)  # As an evaluation does.
  print(name)
"""
