"""Escapes control characters: a file name may hold those that a terminal or a browser obeys."""

import contextlib
import logging
import numbers
import re
from typing import Any

# Not tab and line feed. Those above 0xff change the direction of text, or begin a line.
_CONTROL = re.compile(
  r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"
)


# In rendered JSON: its own escapes, so that none is torn, and what it leaves as it is.
_IN_JSON = re.compile(
  r"\\(?:u00[01][0-9a-f]|.)"
  r"|[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
# Queries of addresses, also where urllib3 leaves the host out.
_QUERY = re.compile(r"((?:(?:https?|s3)://|\burl: /)[^\s?'\"]*)\?[^\s'\"]*", re.IGNORECASE)
_SHORT = {r"\b": r"\\x08", r"\f": r"\\x0c", r"\r": r"\\x0d"}


def text(value: object) -> str:
  """Returns a value as text of any number of lines, in which nothing controls a terminal."""
  valid = str(value).encode(errors="backslashreplace").decode()
  return _CONTROL.sub(lambda match: _escaped(ord(match[0])), valid)


def _escaped(code: int) -> str:
  return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def line(value: object) -> str:
  """Returns a value as text of one line, in which nothing controls a terminal."""
  return text(value).replace("\n", "\\n").replace("\t", "\\t")


def without_queries(text: str) -> str:
  """Returns a text whose addresses end before their queries, which may hold signatures."""
  return _QUERY.sub(r"\1", text)


def in_json(rendered: str) -> str:
  """Returns JSON with the same characters of its texts escaped as in `text`."""
  return _IN_JSON.sub(lambda match: _escaped_in_json(match[0]), rendered)


def _escaped_in_json(found: str) -> str:
  if found[0] != "\\":
    return f"\\{_escaped(ord(found))}"  # JSON doubles the backslash.
  if found.startswith("\\u"):
    return f"\\\\x{found[-2:]}"
  return _SHORT.get(found, found)


class Filter(logging.Filter):
  """Escapes the arguments of messages, whose formats are the program's own; removes queries."""

  def filter(self, record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
      record.args = tuple(map(_argument, record.args))
    with contextlib.suppress(TypeError, ValueError):  # Of a library whose arguments do not fit.
      if "?" in (message := record.getMessage()):
        record.msg, record.args = without_queries(message), ()
    return True


def _argument(value: Any) -> Any:
  is_number = isinstance(value, numbers.Number) or hasattr(value, "dtype")
  return value if is_number else line(value)
