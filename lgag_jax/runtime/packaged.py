"""Paths of the config files and data set builders that come with the package.

They lie beside the package in a checkout and inside it once installed. A name such as
configs/image_folder.py works for both, from any working directory. importlib.resources was considered:
it does not look beside the package.
"""

import pathlib
import runpy
from typing import Any

PACKAGE = pathlib.Path(__file__).resolve().parent.parent
_FOLDERS = ("configs", "data")


def folder(name: str) -> pathlib.Path:
  """Returns the package's folder `name`, "configs" or "data"."""
  return PACKAGE / name if (PACKAGE / name).is_dir() else PACKAGE.parent / name


def resolve(path: str) -> str:
  """Returns the packaged file or folder of this name, or `path` if the user has one or none exists."""
  parts = pathlib.PurePath(path).parts
  if pathlib.Path(path).exists() or not parts or parts[0] not in _FOLDERS or ".." in parts:
    return path
  packaged_path = folder(parts[0]).joinpath(*parts[1:])
  return str(packaged_path) if packaged_path.exists() else path


def config_files() -> list[str]:
  """Lists the packaged config files by the names that --config takes."""
  return sorted(f"configs/{path.name}" for path in folder("configs").glob("[!_]*.py"))


def load_config(name: str, method: str) -> Any:
  """Returns a packaged config for a method; config files use it to build on another one."""
  return runpy.run_path(str(folder("configs") / f"{name}.py"))["get_config"](method)
