"""Config files and builders that come with the package: beside it in a checkout, in it once installed.

The same name, such as configs/image_folder.py, thus serves in both, in whichever folder one works.
"""

import pathlib
import runpy

import ml_collections

PACKAGE = pathlib.Path(__file__).resolve().parent.parent
_FOLDERS = ("configs", "data")


def folder(name: str) -> pathlib.Path:
  """Returns where the package keeps `name`, "configs" or "data"."""
  return PACKAGE / name if (PACKAGE / name).is_dir() else PACKAGE.parent / name


def find(path: str) -> str:
  """Returns the shipped file or folder of this name where nothing of the user's is; else `path`."""
  parts = pathlib.PurePath(path).parts
  if pathlib.Path(path).exists() or not parts or parts[0] not in _FOLDERS or ".." in parts:
    return path
  found = folder(parts[0]).joinpath(*parts[1:])
  return str(found) if found.exists() else path


def config_files() -> list[str]:
  """Lists the shipped config files by the names that --config takes."""
  return sorted(f"configs/{path.name}" for path in folder("configs").glob("[!_]*.py"))


def config(name: str, method: str) -> ml_collections.ConfigDict:
  """Returns what a shipped config file makes of a method, for config files that build on another."""
  return runpy.run_path(str(folder("configs") / f"{name}.py"))["get_config"](method)
