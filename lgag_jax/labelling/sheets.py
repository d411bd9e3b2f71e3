"""Writes contact sheets to look at without a browser, and a table and outlines to fill in: --sheets."""

import dataclasses
import pathlib
import shlex
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lgag_jax.labelling.session import Session
from lgag_jax.options.labelling import TABLE
from lgag_jax.runtime import files
from lgag_jax.runtime.progress import Progress

_COLUMNS, _ROWS = 8, 6  # Pictures of a sheet.
_SIDE = 192  # Of a tile on a sheet, in pixels.
_GAP, _CAPTION, _HEAD, _FONT_SIZE = 8, 22, 34, 16
_OVERVIEW_SIDE = 1600
_MARGIN = 40  # For the numbers of rows and columns beside an overview.
_INK, _PAPER, _LINE = "#1d2930", "#ffffff", "#ffd400"


def write(session: Session) -> list[pathlib.Path]:
  """Writes the sheets of all tiles, an overview of each scene, and a row per tile in the table.

  Tiles that have an answer keep it. Returns the paths of the pictures.
  """
  index, folder = session.view.index, session.output / "sheets"
  pages = list(_pages(session))
  session.own_files.claim(f"sheets/{name}" for name, *_ in pages)
  if not session.answers.latest:  # Rows to fill in, perhaps of tiles of another size.
    session.answers.clear()
  known = session.answers.keys()
  missing = [(key, "") for key in map(index.key, range(len(index.tiles))) if key not in known]
  if missing:
    session.answers.give(missing, index.tile_size)
  progress = Progress("sheets", len(index.tiles), unit="tiles")
  for name, scene, members, title in pages:
    picture = _sheet(session, members, title) if title else _overview(session, scene)
    with files.atomic_path(folder / name) as partial:
      picture.save(partial)
    progress.advance(len(members))
  progress.close()
  return [folder / name for name, *_ in pages]


def _pages(session: Session) -> Iterator[tuple[str, int, list[int], str]]:
  """Yields each picture's file name, scene, tiles and title; an overview has no tiles and title."""
  index, tiles = session.view.index, _columns(session) * _ROWS
  dates = ", left before and right after the event" if session.view.before else ""
  for scene, path in enumerate(index.paths):
    stem = files.fitting_name(path.stem, 200, path.stem)
    numbers = [n for n, (other, _) in enumerate(index.tiles) if other == scene]
    if numbers:
      yield f"{stem}_overview.png", scene, [], ""
    for page, first in enumerate(range(0, len(numbers), tiles), 1):
      members = numbers[first : first + tiles]
      yield f"{stem}_{page:03d}.png", scene, members, f"{path.name}, sheet {page}{dates}"


def _columns(session: Session) -> int:
  """Returns the number of tiles beside each other, each with a picture of every date."""
  return _COLUMNS // 2 if session.view.before else _COLUMNS


def text(session: Session, paths: list[pathlib.Path], layer: pathlib.Path | None) -> str:
  """Returns what to do with the sheets, and with the layer of outlines if there is one."""
  settings, table = session.settings, session.output / TABLE
  cut = session.settings.tiling(session.view.index.tile_size)
  flags = {
    "input": settings.input, "labels": str(layer or table), "tile_size": str(cut.tile_size),
    "output": cut.output, "max_nodata": f"{cut.max_nodata:g}", "background": cut.background,
    "before": cut.before, "max_shift": f"{cut.max_shift:g}", "clouds": cut.clouds,
    "cloud_kind": cut.cloud_kind,
    **{name: ",".join(map(str, getattr(cut, name))) for name in ("bands", "classes")},
  }
  defaults = {field.name: field.default for field in dataclasses.fields(cut)}
  words = [
    f"--{name}={value}" for name, value in flags.items()
    if getattr(cut, name) != defaults[name] or name in ("tile_size", "labels")
  ]
  labels = ", ".join((*settings.classes, settings.background))
  column = f"the column label of {table}, in the row with the tile's row and col"
  lines = [
    f"{len(paths)} pictures of {len(session.view.index.tiles)} tiles are in {paths[0].parent}.",
    f"For each tile that you judge, write a label: {labels}, or unknown. Leave the others empty.",
    f"Write it into the field label of {layer}, for example with QGIS, or into\n{column}." if layer
    else f"Write it into {column}.",
    f"Then run\n\n    {shlex.join(['lgag', '--mode=tile', *words])}\n",
  ]
  if layer:
    lines.append(f"If you filled in the table, use --labels={shlex.quote(str(table))} instead.")
  return "\n".join(lines)


def _sheet(session: Session, numbers: list[int], title: str) -> Image.Image:
  columns, view = _columns(session), session.view
  rows = -(-len(numbers) // columns)
  width = _COLUMNS * (_SIDE + _GAP) + _GAP
  sheet = Image.new("RGB", (width, _HEAD + rows * (_SIDE + _CAPTION + _GAP) + _GAP), _PAPER)
  draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_SIZE)
  draw.text((_GAP, _GAP), title, _INK, font)
  for position, number in enumerate(numbers):
    row, col = divmod(position, columns)
    left = _GAP + col * _COLUMNS // columns * (_SIDE + _GAP)
    top = _HEAD + row * (_SIDE + _CAPTION + _GAP)
    for date, pictures in enumerate(filter(None, (view.before, view.pictures))):
      picture = Image.fromarray(pictures.array(number, _SIDE))
      place = left + date * (_SIDE + 1), top
      sheet.paste(picture.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR), place)
    tile = view.index.tiles[number][1]
    draw.text((left, top + _SIDE + 1), f"row {tile.row}, col {tile.col}", _INK, font)
  return sheet


def _overview(session: Session, scene: int) -> Image.Image:
  """Returns a scene with the outlines of its tiles, and the numbers of their rows and columns."""
  index, pictures = session.view.index, session.view.pictures
  shown = Image.fromarray(pictures.whole(scene, _OVERVIEW_SIDE))
  scale = max(shown.size) / max(index.grids[scene].height, index.grids[scene].width)
  canvas = Image.new("RGB", (shown.width + _MARGIN, shown.height + _MARGIN), _PAPER)
  canvas.paste(shown, (_MARGIN, _MARGIN))
  draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(_FONT_SIZE)
  side = index.tile_size * scale
  tiles = [tile for other, tile in index.tiles if other == scene]
  for tile in tiles:
    left, top = _MARGIN + tile.col * side, _MARGIN + tile.row * side
    draw.rectangle((left, top, left + side, top + side), outline=_LINE)
  step = max(1, round(2 * _FONT_SIZE / side))  # Numbers must not overlap.
  for row in np.unique([tile.row for tile in tiles])[::step].tolist():
    draw.text((4, _MARGIN + (row + 0.5) * side), str(row), _INK, font, anchor="lm")
  for col in np.unique([tile.col for tile in tiles])[::step].tolist():
    draw.text((_MARGIN + (col + 0.5) * side, 4), str(col), _INK, font, anchor="mt")
  return canvas

