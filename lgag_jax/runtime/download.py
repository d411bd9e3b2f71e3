"""Downloads files over HTTP: resumes, checks the digest, limits the size, and writes atomically.

TensorFlow Datasets' download manager and pooch neither resume a partial file nor limit its size.
"""

import hashlib
import http.client
import json
import logging
import os
import pathlib
import re
import time
import urllib.error
import urllib.parse
import urllib.request

from lgag_jax.runtime import files, lock, preemption, progress

_LOG = logging.getLogger(__name__)

ZENODO = "https://zenodo.org/api/records"
_CHUNK = 1 << 20
_TIMEOUT = 60.0  # Seconds that a server may be silent.
_WAIT = 2.0  # Seconds before the first retry; each further retry waits twice as long.
_TRIES = 6  # Successive attempts without a new byte.
_BUSY = (408, 429, 500, 502, 503, 504)  # HTTP status codes worth a retry.
_MAX_RECORD = 1 << 24  # Bytes of a Zenodo record's description.
_HEX_DIGITS = {"sha256": 64, "md5": 32}
_REMEDY = "Download it by hand, and name its folder with --config.data.original=FOLDER."


class DownloadError(OSError):
  """A failed download; the message names the URL, what the server sent, and the remedy."""


def fetch(url: str, target: pathlib.Path, *, checksum: str = "", max_bytes: int) -> pathlib.Path:
  """Downloads `url` into the file `target` and returns it; only checks `target` if it exists.

  `checksum` is "sha256:<hex>", or "md5:<hex>" for a server that publishes no other. With a checksum,
  resumes a partial file from an earlier call. Without one, starts again, since it could not detect that
  the file on the server has changed since. Raises ValueError for an invalid URL or checksum, and
  DownloadError if the server sends an error, more than `max_bytes`, or a file with another checksum.
  """
  if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
    raise ValueError(f"{url} is not a download address: it must begin with https:// or http://.")
  _check_checksum_format(url, checksum)
  lock_path = target.with_name(f"{target.name}.lock")
  with lock.wait_for(lock_path, f"fetching {target}"):
    try:
      if not target.exists():  # Another process may have fetched it in the meantime.
        _fetch(url, target, checksum, max_bytes)
      elif checksum and (digest := _digest(target, checksum)) != checksum:
        raise DownloadError(f"{target} has {digest}, not {checksum}: remove it to download it again.")
    finally:
      lock_path.unlink(missing_ok=True)
  return target


def fetch_record(
  record: int, folder: pathlib.Path, *, suffixes: tuple[str, ...], max_bytes: int
) -> None:
  """Downloads the files of a Zenodo record that end in one of `suffixes` into `folder`.

  Checks each against the MD5 digest that Zenodo publishes. `max_bytes` limits their sum. Raises as
  `fetch` does, and DownloadError if the record's description is not as expected.
  """
  url = f"{ZENODO}/{record}"
  description = folder / f"zenodo_{record}.json"
  fetch(url, description, max_bytes=_MAX_RECORD)
  try:
    entries = [
      (str(entry["key"]), int(entry["size"]), str(entry["checksum"]), str(entry["links"]["self"]))
      for entry in json.loads(description.read_bytes())["files"]
    ]
  except (ValueError, KeyError, TypeError, RecursionError) as error:
    description.unlink()  # The next call asks again.
    raise DownloadError(f"{url} has an unexpected description ({error!r}). {_REMEDY}") from error
  entries = [entry for entry in entries if entry[0].lower().endswith(suffixes)]
  if not entries:
    raise DownloadError(f"{url} has no file that ends in {', '.join(suffixes)}. {_REMEDY}")
  remaining = max_bytes
  for name, size, checksum, address in entries:
    if pathlib.PurePath(name).name != name or name[0] == "." or "\\" in name:
      raise DownloadError(f"{url} has an unsafe file name, {name!r}. {_REMEDY}")
    if size > remaining:
      raise DownloadError(f"{url} holds more than the {max_bytes} bytes expected. {_REMEDY}")
    remaining -= size
    fetch(address, folder / name, checksum=checksum, max_bytes=size)


def _check_checksum_format(url: str, checksum: str) -> None:
  kind, _, digits = checksum.partition(":")
  if checksum and not re.fullmatch(f"[0-9a-f]{{{_HEX_DIGITS.get(kind, 0)}}}", digits):
    raise ValueError(
      f"{url}: {checksum!r} is not a checksum. Give one such as sha256: and 64 digits of 0-9a-f."
    )


def _digest(path: pathlib.Path, checksum: str) -> str:
  kind = checksum.partition(":")[0] or "sha256"
  with path.open("rb") as file:
    return f"{kind}:{hashlib.file_digest(file, kind).hexdigest()}"


def _fetch(url: str, target: pathlib.Path, checksum: str, max_bytes: int) -> None:
  partial = target.with_name(f"{target.name}.part")
  target.parent.mkdir(parents=True, exist_ok=True)
  if not checksum:
    partial.unlink(missing_ok=True)
  resumed = partial.exists()
  _receive(url, partial, max_bytes)
  digest = _digest(partial, checksum)
  if resumed and digest != checksum:  # The partial file may be of another version.
    _LOG.warning("%s has %s, not %s: downloading all of it again.", partial, digest, checksum)
    partial.unlink()
    _receive(url, partial, max_bytes)
    digest = _digest(partial, checksum)
  if checksum and digest != checksum:
    size = partial.stat().st_size
    partial.unlink()
    raise DownloadError(
      f"{url} sent {size} bytes with {digest}, not {checksum}: the file has changed, or something "
      f"on the way changes it. {_REMEDY}"
    )
  if not checksum:
    _LOG.warning("%s has %s. No checksum is known to check it against.", url, digest)
  with partial.open("rb") as file:
    os.fsync(file.fileno())
  partial.rename(target)


def _receive(url: str, partial: pathlib.Path, max_bytes: int) -> None:
  """Appends to `partial` until it is complete, over as many connections as that takes."""
  tries, wait = 0, _WAIT
  while True:
    previous_size = _size(partial)
    problem = _connect(url, partial, max_bytes)
    if not problem:
      return
    size = _size(partial)
    tries, wait = (0, _WAIT) if size > previous_size else (tries + 1, 2 * wait)
    if tries >= _TRIES:
      raise DownloadError(
        f"{url} broke off after {size} bytes ({problem}). Run the same command again: it "
        "resumes if the checksum is known."
      )
    _LOG.warning("%s broke off after %d bytes (%s): trying again.", url, size, problem)
    time.sleep(wait)


def _size(path: pathlib.Path) -> int:
  return path.stat().st_size if path.exists() else 0


def _connect(url: str, partial: pathlib.Path, max_bytes: int) -> str:
  """Requests the rest of `partial` once; returns why it is incomplete, or "" if it is complete.

  Raises DownloadError if a retry would not help.
  """
  offset = _size(partial)
  headers = {"User-Agent": "lgag_jax", "Accept-Encoding": "identity"}
  if offset:
    headers["Range"] = f"bytes={offset}-"
  try:
    with urllib.request.urlopen(
      urllib.request.Request(url, headers=headers), timeout=_TIMEOUT
    ) as response:
      return _save(response, url, partial, offset, max_bytes)
  except urllib.error.HTTPError as error:
    if error.code == 416 and offset:  # The partial file is complete, or too long.
      total = error.headers.get("Content-Range", "").rpartition("/")[2]
      if total != str(offset):
        partial.unlink()
      return "" if total == str(offset) else f"{offset} bytes of {total or 'an unknown number'}"
    if error.code in _BUSY:
      return f"it answered {error.code} {error.reason}"
    raise DownloadError(
      f"{url} answered {error.code} {error.reason}, not the file. {_REMEDY}"
    ) from error
  except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
    return f"{getattr(error, 'reason', '') or error!r}"


def _save(response, url: str, partial: pathlib.Path, offset: int, max_bytes: int) -> str:
  resumes = response.status == 206 and re.match(
    rf"bytes {offset}-", response.headers.get("Content-Range", "")
  )
  if response.status == 206 and not resumes:
    partial.unlink(missing_ok=True)
    return "it sent another range than requested"
  size = start = offset if resumes else 0  # A server without support for ranges sends the whole file.
  length = response.headers.get("Content-Length", "")
  total = start + int(length) if length.isdigit() else None
  if total is not None and total > max_bytes:
    raise DownloadError(f"{url} is {total} bytes, more than the {max_bytes} expected. {_REMEDY}")
  if total is not None:
    files.require_free_space(partial.parent, total - start, str(partial))
  line = progress.Progress(partial.stem, (total or max_bytes) / 2**20, done=start / 2**20, unit="MiB")
  with partial.open("ab" if start else "wb") as output:
    while size != total and (chunk := response.read1(_CHUNK)):
      preemption.check_if_single_process()
      size += len(chunk)
      if size > max_bytes:
        output.close()
        partial.unlink()
        raise DownloadError(f"{url} sends more than the {max_bytes} bytes expected. {_REMEDY}")
      try:
        output.write(chunk)
      except OSError as error:
        raise DownloadError(error.errno, f"{error.strerror}, not written", str(partial)) from error
      line.advance(len(chunk) / 2**20)
  return "" if total in (None, size) else f"{size} bytes of {total}"
