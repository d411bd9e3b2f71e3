"""Reads arrays of untrusted .npz files: of the expected names, without pickles, of limited size."""

import pathlib
import zipfile
from collections.abc import Collection
from typing import BinaryIO

import numpy as np

from lgag_jax.runtime import files
from lgag_jax.runtime.archives import BoundedFile

_MAX_CONTENTS = 1 << 24  # Bytes of a zip file's list of entries. In memory each takes some hundred.


def entries(file: BinaryIO) -> list[zipfile.ZipInfo]:
  """Returns the entries of a zip file; raises ValueError if they may take more memory than they say."""
  with zipfile.ZipFile(BoundedFile(file, _MAX_CONTENTS)) as archive:
    found = archive.infolist()
  # Other methods reserve as much memory as a header asks for.
  if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in found):
    raise ValueError("it holds entries compressed by another method than deflate")
  return found


def read_arrays(
  path: pathlib.Path, names: Collection[str], max_bytes: int = files.MAX_READ_BYTES
) -> dict[str, np.ndarray]:
  """Reads those arrays of an .npz that `names` has; what else it holds is not read.

  Raises ValueError naming a file that is damaged, whose arrays are too large, or hold objects.
  """
  try:
    with files.open_regular(path) as file:
      named = [entry for entry in entries(file) if entry.filename.removesuffix(".npy") in names]
      if (size := sum(entry.file_size for entry in named)) > max_bytes:
        raise ValueError(f"its arrays claim {size >> 20} MiB, over the {max_bytes >> 20} MiB allowed")
      file.seek(0)
      with np.load(file, allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays.files if name in names}
    if strange := [name for name, array in found.items() if not isinstance(array, np.ndarray)]:
      raise ValueError(f"{strange[0]} is no array")
    return found
  except Exception as error:  # A header may claim any shape, and damaged ones raise nearly anything.
    reason = str(error)[:200] or type(error).__name__
    raise ValueError(f"{path} cannot be read: {reason}. Run --mode=eval again.") from error
