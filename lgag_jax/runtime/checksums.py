"""Checksums of a folder's files, to detect later damage.

bagit was considered: it moves the files into a subfolder, where Orbax would not find them.
"""

import hashlib
import os
import pathlib
import stat

from lgag_jax.runtime import files

# In the format of sha256sum, so that `sha256sum -c` reads it; the last line is the others' digest.
FILE_NAME = "SHA256SUMS"


def write_checksums(folder: pathlib.Path) -> None:
  """Writes the digests of all files of a folder into it and syncs them to disk; call it last."""
  files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != FILE_NAME)
  lines = "".join(f"{_digest(path)}  {path.relative_to(folder).as_posix()}\n" for path in files)
  lines += f"# {hashlib.sha256(lines.encode()).hexdigest()}\n"
  partial = folder / f"{FILE_NAME}.partial"
  with partial.open("w") as file:
    file.write(lines)
    file.flush()
    os.fsync(file.fileno())
  partial.rename(folder / FILE_NAME)


def has_checksums(folder: pathlib.Path) -> bool:
  """Returns whether `write_checksums` has finished for this folder."""
  return (folder / FILE_NAME).exists()


def find_damage(folder: pathlib.Path) -> str | None:
  """Returns a description of the first damaged file of a folder with checksums, or None."""
  try:
    text = files.read_text(folder / FILE_NAME)
  except FileNotFoundError:
    return f"it has no {FILE_NAME}: it is unfinished or incomplete"
  except (OSError, ValueError) as error:
    return f"its {FILE_NAME} cannot be read ({error})"
  lines, _, own_digest = text.rpartition("# ")
  if own_digest != hashlib.sha256(lines.encode()).hexdigest() + "\n":
    return f"its {FILE_NAME} is damaged"
  for line in lines.splitlines():
    digest, _, name = line.partition("  ")
    path = pathlib.PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
      return f"its {FILE_NAME} names {name!r}, which is outside the folder"
    if (folder / name).exists() and not stat.S_ISREG((folder / name).lstat().st_mode):
      return f"its {name} is not a regular file"
    try:
      if _digest(folder / name) != digest:
        return f"its {name} is damaged"
    except OSError as error:
      return f"its {name} cannot be read ({error.strerror})"
  return None


def _digest(path: pathlib.Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()
