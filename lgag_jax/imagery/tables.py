"""Reads tables (CSV) as spreadsheets write them, and writes cells that spreadsheets do not calculate.

A text that a spreadsheet would take for a formula is written with an apostrophe before it, which the
readers here remove.
"""

import codecs
import collections
import csv
import io
import pathlib
import re
from typing import Any

# What a spreadsheet may calculate, also after spaces, and the same with apostrophes before it.
_FORMULA = re.compile(r"['\s]*[=+\-@\uff1d\uff0b\uff0d\uff20]|'*[\t\r\n]")
_MAX_BYTES = 1 << 28
_MAX_COLUMNS = 1000
_MAX_CELLS = 6_000_000
_ROW_CELLS = 4  # A row takes the memory of so many cells beside its own.
_MAX_QUOTED = 200  # Characters of a row in a message.
_DELIMITERS = (",", ";", "\t")
# Names of the image column, in lower case; the first is the one that rows are read with.
IMAGE_NAMES = ("image", "filename", "path")

Line = tuple[int, dict[str, str]]  # The line in the file, for messages, and its cells by column.


def read_table(path: pathlib.Path, required: tuple[str, ...]) -> list[Line]:
  """Reads a table with a header: commas, semicolons or tabs, in UTF-8 or marked UTF-16.

  Names of columns are in lower case, cells without spaces around them and as `cell` took them. Empty
  rows are skipped. Raises ValueError naming the file, and the row or the columns, if it cannot be read
  as a whole.
  """
  try:
    rows = _rows(path, read_text(path))
  except (csv.Error, UnicodeDecodeError) as error:
    raise ValueError(
      f"{path} is not a comma-separated table in UTF-8: {error}. Save it as one."
    ) from error
  header = rows[0][1] if rows else []
  columns = _quoted(header)
  while header and not header[-1]:
    header.pop()
  names = [_canonical(name, header) for name in header]
  if repeated := [name for name, times in collections.Counter(names).items() if times > 1]:
    raise ValueError(
      f"{path} has the column {_quoted(repeated[:1])} twice ({columns}): remove one of them."
    )
  missing = [name for name in required if name not in names]
  if missing:
    raise ValueError(
      f"{path} lacks the column {missing[0]}: add it to the header. Its columns are: {columns}."
    )
  return [(number, _cells(path, number, names, cells)) for number, cells in rows[1:]]


def cell(value: Any) -> Any:
  """Returns a value as a table's cell: escapes text that would be a formula; numbers stay numbers."""
  return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def _content(cell: str) -> str:
  """Returns the text that `cell` was made of."""
  return cell[1:] if cell[:1] == "'" and _FORMULA.match(cell[1:]) else cell


def read_text(path: pathlib.Path) -> str:
  """Returns a text in UTF-8 or marked UTF-16; raises ValueError for another one or a large one."""
  if path.exists() and not path.is_file():  # A pipe would block.
    raise ValueError(f"{path} is not a regular file. Remove or restore it.")
  if (size := path.stat().st_size) > _MAX_BYTES:
    raise ValueError(
      f"{path} has {size >> 20} MiB, more than the {_MAX_BYTES >> 20} MiB allowed for a table: "
      "split it."
    )
  content = path.read_bytes()
  marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
  text = content.decode("utf-16" if marked else "utf-8-sig")
  if "\0" in text:
    raise csv.Error("it holds zero bytes")
  return text


def _rows(path: pathlib.Path, text: str) -> list[tuple[int, list[str]]]:
  """Returns the rows that are not empty, with their lines; the header's delimiter divides all."""
  first, _, rest = text.partition("\n")
  skipped = 0
  if first.strip().lower() in [f"sep={mark}".strip() for mark in _DELIMITERS]:  # Excel's own line.
    text, skipped = rest, 1
  header = next((line for line in text.splitlines() if line.strip(" ,;\t")), "")
  delimiter = max(_DELIMITERS, key=lambda mark: len(next(csv.reader([header], delimiter=mark), [])))
  reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
  rows, marks, held = [], header.count(delimiter), 0
  for row in reader:
    cells = [_content(cell.strip()) for cell in row]
    if any(_holds_rows(cell, delimiter, marks) for cell in cells):
      raise csv.Error(
        f"a cell that ends in line {reader.line_num + skipped} holds what look like rows; is a "
        "quotation mark before it not closed?"
      )
    if any(cells[_MAX_COLUMNS:]):
      raise ValueError(
        f"{path}, row {reader.line_num + skipped} has {len(cells)} cells ({_quoted(cells)}), more than "
        f"the {_MAX_COLUMNS} columns allowed: save a table with only the columns that lgag reads."
      )
    held += _ROW_CELLS + sum(map(bool, cells))
    if held > _MAX_CELLS:
      raise ValueError(
        f"{path} has too many cells, of which only {len(rows)} rows were read: split it, or save a "
        "table with only the columns that lgag reads."
      )
    if any(cells):
      rows.append((reader.line_num + skipped, cells[:_MAX_COLUMNS]))
  if rows:
    rows[0] = rows[0][0], [name.lower() for name in rows[0][1]]
  return rows


def _holds_rows(cell: str, delimiter: str, marks: int) -> bool:
  """Whether a line of a cell, from the second on, has as many separators as the header."""
  return marks > 0 and any(line.count(delimiter) >= marks for line in cell.splitlines()[1:])


def _quoted(names: list[str]) -> str:
  text = ", ".join(names)
  return text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}..."


def _canonical(name: str, header: list[str]) -> str:
  return IMAGE_NAMES[0] if name in IMAGE_NAMES and IMAGE_NAMES[0] not in header else name


def _cells(path: pathlib.Path, number: int, names: list[str], cells: list[str]) -> dict[str, str]:
  extra = [cell for cell in cells[len(names) :] if cell]
  if extra or len(cells) < len(names):
    raise ValueError(
      f"{path}, row {number} has {len(cells)} cells, but the header has {len(names)} columns "
      f"({_quoted(names)}): write every cell, also an empty one, with the header's separator."
    )
  return dict(zip(names, cells, strict=False))
