"""Reads files of S3 buckets as GDAL reads images there: by the same environment variables."""

import functools
import os
import urllib.parse

import pyarrow.fs

from lgag_jax.options.area import Imagery

_FALSE = ("NO", "FALSE", "OFF", "0")  # As GDAL takes them.


def read(address: str, most: int, settings: Imagery) -> bytes:
  """Returns the first `most` bytes of a file at an s3:// address.

  Tries once, and gives up a server that is silent for `settings.timeout` seconds. Raises OSError if the
  file cannot be read, and ValueError for an AWS_S3_ENDPOINT that GDAL cannot follow.
  """
  parts = urllib.parse.urlsplit(address)
  endpoint = os.environ.get("AWS_S3_ENDPOINT", "")
  # GDAL would take the scheme for the host. The value is not repeated: it may hold a password.
  if "://" in endpoint or "@" in endpoint:
    raise ValueError("AWS_S3_ENDPOINT must be HOST or HOST:PORT alone. For http:// set AWS_HTTPS=NO.")
  try:
    system = _system(
      parts.netloc, settings.timeout, endpoint, _is_set("AWS_HTTPS", "YES"),
      _is_set("AWS_VIRTUAL_HOSTING", "YES"), _is_set("AWS_NO_SIGN_REQUEST", "NO"),
    )
    with system.open_input_stream(f"{parts.netloc}{parts.path}") as file:
      return file.read(most)
  except FileNotFoundError as error:
    raise FileNotFoundError(f"{address}: no such file.") from error
  except OSError as error:
    raise OSError(
      f"{address} cannot be read: {error}. Check the address, AWS_REGION, and the credentials: "
      "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_NO_SIGN_REQUEST=YES for a public bucket."
    ) from error


@functools.cache
def _system(
  bucket: str, timeout: float, endpoint: str, https: bool, virtual: bool, unsigned: bool
) -> pyarrow.fs.S3FileSystem:
  """Returns what reads a bucket at Amazon, or at another endpoint (HOST:PORT)."""
  return pyarrow.fs.S3FileSystem(
    anonymous=unsigned, scheme="https" if https else "http", endpoint_override=endpoint or None,
    region=None if endpoint else pyarrow.fs.resolve_s3_region(bucket), connect_timeout=timeout,
    request_timeout=timeout, force_virtual_addressing=virtual,
    retry_strategy=pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=1),
  )


def _is_set(variable: str, default: str) -> bool:
  return os.environ.get(variable, default).upper() not in _FALSE
