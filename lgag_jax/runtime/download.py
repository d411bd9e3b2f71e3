"""Fetches files over HTTP that are whole or not there: resumed, checked against a digest, bounded.

TensorFlow Datasets' download manager begins anew after an interruption, and takes what comes, however
large.
"""

import dataclasses
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
_WAIT = 2.0  # Seconds before the first new try; each further one waits twice as long.
_TRIES = 6  # In a row that bring nothing new.
_BUSY = (408, 429, 500, 502, 503, 504)  # Answers that may be others a moment later.
_MAX_RECORD = 1 << 24  # Bytes of a record's description.
_HEX = {"sha256": 64, "md5": 32}


class DownloadError(OSError):
  """A file that was not fetched; the message names the address, what was got and the remedy."""


@dataclasses.dataclass(frozen=True)
class _End:
  """How a connection ended: whether the file is complete, and if not, why."""

  complete: bool
  reason: str = ""


def fetch(url: str, target: pathlib.Path, *, checksum: str = "", max_bytes: int) -> pathlib.Path:
  """Fetches `url` into the file `target` and returns it; what is there already is only checked.

  `checksum` is "sha256:<hex>", or "md5:<hex>" where a server tells no other. With one, a file that an
  earlier call began is gone on with; without, it is begun anew, as nothing would tell a mixture of two.
  Raises ValueError for what is no address or no checksum, DownloadError for all that goes wrong on the
  way: an answer other than the file, more than `max_bytes`, another checksum.
  """
  if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
    raise ValueError(f"{url} is no address to fetch from: it must begin with https:// or http://.")
  _check_form(url, checksum)
  path = target.with_name(f"{target.name}.lock")
  with lock.wait_for(path, f"fetching {target}"):
    try:
      if not target.exists():  # Another process may have brought it.
        _fetch(url, target, checksum, max_bytes)
      elif checksum and (found := _digest(target, checksum)) != checksum:
        raise DownloadError(f"{target} has {found}, not {checksum}: remove it to fetch it anew.")
    finally:
      path.unlink(missing_ok=True)
  return target


def fetch_record(
  record: int, folder: pathlib.Path, *, suffixes: tuple[str, ...], max_bytes: int
) -> None:
  """Fetches the files of a Zenodo record that end in one of `suffixes` into `folder`.

  Each is checked against the MD5 digest that Zenodo tells, `max_bytes` bounds all together. Raises as
  `fetch` does, and DownloadError where the record does not describe its files.
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
    description.unlink()  # To be asked for again.
    raise DownloadError(
      f"{url} does not describe its files as expected ({error!r}). {_by_hand()}"
    ) from error
  wanted = [entry for entry in entries if entry[0].lower().endswith(suffixes)]
  if not wanted:
    raise DownloadError(f"{url} has no file that ends in {', '.join(suffixes)}. {_by_hand()}")
  left = max_bytes
  for name, size, checksum, address in wanted:
    if pathlib.PurePath(name).name != name or name[0] == "." or "\\" in name:
      raise DownloadError(f"{url} names a file {name!r}, which is no plain name. {_by_hand()}")
    if size > left:
      raise DownloadError(f"{url} holds more than the {max_bytes} bytes expected. {_by_hand()}")
    left -= size
    fetch(address, folder / name, checksum=checksum, max_bytes=size)


def _by_hand() -> str:
  return "Download it by hand, and name its folder with --config.data.original=FOLDER."


def _check_form(url: str, checksum: str) -> None:
  kind, _, digits = checksum.partition(":")
  if checksum and not re.fullmatch(f"[0-9a-f]{{{_HEX.get(kind, 0)}}}", digits):
    raise ValueError(f"{url}: {checksum!r} is no checksum such as sha256: and 64 digits of 0-9a-f.")


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
  found = _digest(partial, checksum)
  if resumed and found != checksum:  # The part may be of another file of that name.
    _LOG.warning("%s has %s, not %s: fetching all of it anew.", partial, found, checksum)
    partial.unlink()
    _receive(url, partial, max_bytes)
    found = _digest(partial, checksum)
  if checksum and found != checksum:
    size = partial.stat().st_size
    partial.unlink()
    raise DownloadError(
      f"{url} gave {size} bytes with {found}, not {checksum}: the file has changed, or something "
      f"between changes it. {_by_hand()}"
    )
  if not checksum:
    _LOG.warning("%s has %s, which nothing was there to check it against.", url, found)
  with partial.open("rb") as file:
    os.fsync(file.fileno())
  partial.rename(target)


def _receive(url: str, partial: pathlib.Path, max_bytes: int) -> None:
  """Appends to `partial` until it is whole, over as many connections as that takes."""
  tries, wait = 0, _WAIT
  while True:
    before = partial.stat().st_size if partial.exists() else 0
    end = _connection(url, partial, max_bytes)
    if end.complete:
      return
    size = partial.stat().st_size if partial.exists() else 0
    tries, wait = (0, _WAIT) if size > before else (tries + 1, 2 * wait)
    if tries >= _TRIES:
      raise DownloadError(
        f"{url} broke off after {size} bytes ({end.reason}). Run the same command again: where a "
        "checksum is known it goes on there."
      )
    _LOG.warning("%s broke off after %d bytes (%s): trying again.", url, size, end.reason)
    time.sleep(wait)


def _connection(url: str, partial: pathlib.Path, max_bytes: int) -> _End:
  """Asks once for what `partial` lacks; raises DownloadError for what another try would not mend."""
  have = partial.stat().st_size if partial.exists() else 0
  headers = {"User-Agent": "lgag_jax", "Accept-Encoding": "identity"}
  if have:
    headers["Range"] = f"bytes={have}-"
  try:
    with urllib.request.urlopen(
      urllib.request.Request(url, headers=headers), timeout=_TIMEOUT
    ) as response:
      return _save(response, url, partial, have, max_bytes)
  except urllib.error.HTTPError as error:
    if error.code == 416 and have:  # Nothing follows what is there, or it is too much.
      whole = _total(error.headers.get("Content-Range", ""))
      if whole != have:
        partial.unlink()
      return _End(whole == have, f"{have} bytes of {whole}")
    if error.code in _BUSY:
      return _End(False, f"it answered {error.code} {error.reason}")
    raise DownloadError(
      f"{url} answered {error.code} {error.reason}, not the file. {_by_hand()}"
    ) from error
  except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
    return _End(False, f"{getattr(error, 'reason', '') or error!r}")


def _save(response, url: str, partial: pathlib.Path, have: int, max_bytes: int) -> _End:
  going_on = response.status == 206 and re.match(
    rf"bytes {have}-", response.headers.get("Content-Range", "")
  )
  if response.status == 206 and not going_on:
    partial.unlink(missing_ok=True)
    return _End(False, "it gave another part than the one asked for")
  start = have if going_on else 0  # A server that does not know of parts gives all.
  length = response.headers.get("Content-Length", "")
  whole = start + int(length) if length.isdigit() else None
  if whole is not None and whole > max_bytes:
    raise DownloadError(f"{url} is {whole} bytes, more than the {max_bytes} expected. {_by_hand()}")
  if whole is not None:
    files.require_room(partial.parent, whole - start, str(partial))
  line = progress.Progress(partial.stem, (whole or max_bytes) / 2**20, done=start / 2**20, unit="MiB")
  size = start
  with partial.open("ab" if start else "wb") as out:
    while size != whole and (chunk := response.read1(_CHUNK)):
      preemption.check_alone()
      size += len(chunk)
      if size > max_bytes:
        out.close()
        partial.unlink()
        raise DownloadError(f"{url} gives more than the {max_bytes} bytes expected. {_by_hand()}")
      try:
        out.write(chunk)
      except OSError as error:
        raise DownloadError(error.errno, f"{error.strerror}, not written", str(partial)) from error
      line.advance(len(chunk) / 2**20)
  return _End(whole in (None, size), f"{size} bytes of {whole}")


def _total(content_range: str) -> int | None:
  total = content_range.rpartition("/")[2]
  return int(total) if total.isdigit() else None
