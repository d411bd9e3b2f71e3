"""Processes that lgag starts import nothing from the current folder, which a stranger may fill."""

import os
import subprocess
import sys

import pytest

from lgag_jax.runtime import packaged
from lgag_jax.runtime.python_command import NO_MODULES, lgag_is_here, python_command

RUN = ("-m", "lgag_jax.main", "--version")


def run(command, folder):
  environment = os.environ | {"PYTHONPATH": str(packaged.PACKAGE.parent)}
  return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("name", ["ml_collections.py", "absl/__init__.py"])
def test_a_module_in_the_current_folder_does_not_run(tmp_path, monkeypatch, name):
  path = tmp_path / name
  path.parent.mkdir(exist_ok=True)
  path.write_text(f"open({str(tmp_path / 'mark')!r}, 'w').close(); raise SystemExit(3)")
  monkeypatch.chdir(tmp_path)
  assert not lgag_is_here()
  result = run(python_command(*RUN), tmp_path)
  assert result.returncode == 0 and not (tmp_path / "mark").exists(), result.stderr
  assert run([sys.executable, *RUN], tmp_path).returncode == 3  # It would run.
  assert (tmp_path / "mark").exists()


def test_a_checkout_that_is_not_installed_finds_lgag(monkeypatch):
  monkeypatch.chdir(packaged.PACKAGE.parent)
  assert lgag_is_here() and python_command("-m", "x") == [sys.executable, "-m", "x"]


def test_the_folder_without_modules_holds_none():
  assert list(NO_MODULES.iterdir())
  assert not [path for path in NO_MODULES.iterdir() if path.is_dir() or path.suffix in (".py", ".so")]
