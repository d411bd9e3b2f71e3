"""Addresses of catalogues and images: local paths, http(s):// and s3://; which of them may be read.

A local file never makes lgag reach out, unless the user allows it (`--remote`), and a remote catalogue
never names a local file.
"""

import os
import pathlib
import re
import urllib.parse

from urllib3.util import parse_url

from lgag_jax.imagery import listing

SCHEMES = ("http", "https", "s3")
_MAX_LENGTH = 8192
_HOST = re.compile(r"(\[[^@\]]*\]|[^:@]*)(:\d*)?")  # With a port, but no name and no password.


class AddressError(ValueError):
  """An address that must not be read; the message names the file that holds it, and the remedy."""


def is_remote(address: str) -> bool:
  """Returns whether an address is at a server that lgag can read."""
  return urllib.parse.urlsplit(address).scheme.lower() in SCHEMES


def resolve(address: str, base: str, *, allow_remote: bool) -> str:
  """Returns the absolute address of what the file `base` names; a local one is a path as on the disk.

  Raises AddressError for an address that only GDAL knows (/vsi...), for one at a server unless
  `allow_remote`, for one with a password, and for a local path in a remote file.
  """
  if not address or len(address) > _MAX_LENGTH or not address.isprintable():
    raise AddressError(f"{base} names {address[:100]!r}, which is no address. Restore it.")
  if is_remote(base) and not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", address):
    address = _join(base, address)
  scheme = urllib.parse.urlsplit(address).scheme.lower()
  if scheme in SCHEMES:
    if not allow_remote:
      raise AddressError(
        f"{base} names {address[:200]}, which is at a server, and a local file may not make lgag reach "
        "out. Allow it with --remote, or copy the images to this disk."
      )
    require_no_password(address)
    return address
  if is_remote(base):
    raise AddressError(f"{base} names {address[:200]!r}: a remote catalogue may not name local files.")
  if scheme == "file":
    address = urllib.parse.unquote(urllib.parse.urlsplit(address).path).replace("\0", "%00")
  elif "://" in address:
    raise AddressError(
      f"{base} names {address[:200]}: lgag reads local files and the schemes {', '.join(SCHEMES)}."
    )
  paths = [
    (pathlib.Path(base).parent / name).absolute() for name in (address, urllib.parse.unquote(address))]
  if any(re.match("/+vsi", name) for name in (address, *map(str, paths))):
    raise AddressError(f"{base} names {address[:200]!r}, which is not a plain file. Name its path.")
  path, unquoted = map(listing.as_stored, paths)  # A blank may be written as %20, as in a URL.
  return str(unquoted if unquoted.exists() and not path.exists() else path)


def identity(address: str) -> str:
  """Returns what all spellings of an absolute address have in common."""
  if not is_remote(address):
    return os.path.realpath(address)
  return parse_url(address)._replace(fragment=None).url  # As requests asks for it.


def require_no_password(address: str) -> None:
  """Raises AddressError for an address with a name or password: files and messages would show it."""
  parts = urllib.parse.urlsplit(address)
  # A key of S3 may hold a slash, which ends the host too early.
  if not _HOST.fullmatch(parts.netloc) or (parts.scheme.lower() == "s3" and ":" in parts.netloc):
    raise AddressError(
      f"{parts.scheme}://...: an address must not hold a name or a password. Remove it. For S3, set "
      "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
    )


def gdal_name(address: str) -> str:
  """Returns GDAL's name of an address at a server."""
  parts = urllib.parse.urlsplit(address)
  if parts.scheme.lower() == "s3":
    return f"/vsis3/{parts.netloc}{parts.path}"
  return f"/vsicurl/{address}"


def _join(base: str, address: str) -> str:
  """Joins a relative address to a remote one; urllib does not know s3."""
  if not base.lower().startswith("s3:"):
    return urllib.parse.urljoin(base, address)
  return f"s3{urllib.parse.urljoin(f'http{base[2:]}', address)[4:]}"
