"""Opens data.original, a published data set that a TFDS builder reads, and tells whether it changed."""

import pathlib
import urllib.parse

from lgag_jax.runtime import archive_records, archives, download


def folder_of(name: str, downloads: pathlib.Path) -> pathlib.Path:
  """Returns the folder of a published data set; `name` is the folder, its archive, or a URL of that."""
  path = pathlib.Path(name).absolute()
  if "://" in name:
    url, _, checksum = name.partition("#")
    file_name = pathlib.PurePosixPath(urllib.parse.unquote(urllib.parse.urlsplit(url).path)).name
    path = downloads / file_name
    if not path.name.lower().endswith(archives.SUFFIXES):
      raise ValueError(f"data.original={name}: the URL must end in {', '.join(archives.SUFFIXES)}.")
    checksum = checksum.replace("=", ":", 1)
    download.fetch(url, path, checksum=checksum, max_bytes=archives.MAX_BYTES)
  if archives.is_archive(path):
    archives.unpack_once(path)
    return path.with_name(f"{path.name}.unpacked")  # It may contain a single folder with the data.
  if not path.is_dir() or not any(path.iterdir()):
    raise FileNotFoundError(f"data.original={name}: no such archive, and no such folder with files.")
  return path


def record(name: str, prepared: pathlib.Path) -> None:
  """Records from which archive a set in the folder `prepared` was built; no folder and no URL."""
  if (path := _archive(name)) is not None:
    archive_records.write(path, prepared)


def has_changed(name: str, prepared: pathlib.Path) -> bool:
  """Returns whether an archive is another one than a set was built from; False without a record.

  Earlier releases wrote none.
  """
  path = _archive(name)
  if path is None or not archive_records.has_record(prepared):
    return False
  return not archive_records.is_same(path, prepared, lambda: False)


def _archive(name: str) -> pathlib.Path | None:
  path = pathlib.Path(name).absolute()
  return path if "://" not in name and archives.is_archive(path) else None
