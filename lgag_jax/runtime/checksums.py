"""Digests of a folder's files: whether it still holds, bit for bit, what was put there."""

import hashlib
import os
import pathlib
import stat

# In the form of sha256sum, so that `sha256sum -c` reads it; its last line is its own digest.
NAME = "SHA256SUMS"


def seal(folder: pathlib.Path) -> None:
  """Writes the digests of all files of a folder into it, last of all, and waits for the disk."""
  files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != NAME)
  lines = "".join(f"{_digest(path)}  {path.relative_to(folder).as_posix()}\n" for path in files)
  lines += f"# {hashlib.sha256(lines.encode()).hexdigest()}\n"
  partial = folder / f"{NAME}.partial"
  with partial.open("w") as file:
    file.write(lines)
    file.flush()
    os.fsync(file.fileno())
  partial.rename(folder / NAME)


def is_sealed(folder: pathlib.Path) -> bool:
  """Whether a folder was ever finished."""
  return (folder / NAME).exists()


def flaw(folder: pathlib.Path) -> str | None:
  """Returns what is wrong with a sealed folder, in words; None when nothing is."""
  try:
    text = (folder / NAME).read_text()
  except FileNotFoundError:
    return f"it has no {NAME}: it was never finished, or is not whole"
  except (OSError, UnicodeDecodeError) as error:
    return f"its {NAME} cannot be read ({error})"
  lines, _, own = text.rpartition("# ")
  if own != hashlib.sha256(lines.encode()).hexdigest() + "\n":
    return f"its {NAME} is damaged"
  for line in lines.splitlines():
    digest, _, name = line.partition("  ")
    path = pathlib.PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
      return f"its {NAME} names {name!r}, which is none of its files"
    if (folder / name).exists() and not stat.S_ISREG((folder / name).lstat().st_mode):
      return f"its {name} is no plain file"
    try:
      if _digest(folder / name) != digest:
        return f"its {name} is damaged"
    except OSError as error:
      return f"its {name} cannot be read ({error.strerror})"
  return None


def _digest(path: pathlib.Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()
