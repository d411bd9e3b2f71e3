"""The page of a prediction: what was found in which scene, how large, and a look at it."""

import base64
import html
import io
import itertools
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from lgag_jax.evaluation import figures
from lgag_jax.evaluation.report import STYLE, card_row, picture
from lgag_jax.mapping import qgis_style, scene_tables
from lgag_jax.mapping.scene_tables import area
from lgag_jax.runtime import files

_MOST_PICTURES = 12
_WIDE = (  # The page itself does not scroll sideways.
  "table{display:block;overflow-x:auto}table.words td{text-align:left;overflow-wrap:anywhere}"
  "table.words th{text-align:left}"
)
_SIDE = 1080  # Of a picture, in pixels.
_MOST_ROWS = 500


def write(
  results: Sequence[dict], output: pathlib.Path, *, maker: str, left_out: dict[str, str],
  judged: dict | None = None,
) -> pathlib.Path:
  """Writes report.html of maps, by their numbers; `maker` says in words what drew them.

  `left_out` are images that could not be mapped, and why; `judged` is what `judge_scenes.evaluate`
  found of the others.
  """
  path = output / "report.html"
  files.write_text(path, _page(results, output, maker, left_out, judged))
  return path


def _page(
  results: list[dict], output: pathlib.Path, maker: str, left_out: dict[str, str], judged: dict | None
) -> str:
  names = list(results[0]["classes"])
  scenes = "1 scene" if len(results) == 1 else f"{len(results):,} scenes"
  parts = [
    f"<h1>Landslides in {scenes}</h1><p class=lead>{html.escape(maker)}</p>", _cards(results),
  ]
  if left_out:
    named = [(path, pathlib.PurePath(path).name) for path in sorted(left_out)]
    rows = [(name, left_out[path].replace(path, name)) for path, name in named]
    parts += ["<h2>Not mapped</h2>", _rows(("image", "why"), rows[:_MOST_ROWS], "words")]
    parts.append(f"<p>{len(rows):,} in all.</p>" if len(rows) > _MOST_ROWS else "")
  if judged:
    parts += _judged(judged, output)
  for name in names:
    areas = _areas(results, name)
    heading = f"<h2>{html.escape(name)}</h2>" if len(names) > 1 else ""
    if areas:
      parts += [heading, picture(figures.sizes(areas), f"Sizes of {name} polygons")]
  shades = zip(names, itertools.cycle(qgis_style.COLOURS), strict=False)
  legend = ", ".join(f"<b style='color:{shade}'>{html.escape(name)}</b>" for name, shade in shades)
  parts += ["<h2>Scenes</h2>", _table(results, names), "<h2>A look</h2>"]
  parts.append(f"<p>Tinted and outlined: {legend}. White is without data.</p>")
  if len(results) > _MOST_PICTURES:
    parts.append(f"<p>The {_MOST_PICTURES} with most mapped; all are in overlay/.</p>")
  largest = sorted(results, key=lambda r: -sum(v["pixels"] for v in r["classes"].values()))
  parts += [_picture(result, output / "overlay", "mapped") for result in largest[:_MOST_PICTURES]]
  return (
    "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport "
    f"content='width=device-width'><title>lgag_jax: {scenes}</title>"
    f"<style>{STYLE}{_WIDE}</style>{''.join(parts)}</html>\n"
  )


def _areas(results: list[dict], name: str) -> list[float]:
  return [area for result in results for area in result["classes"][name]["areas_m2"] or ()]


def _cards(results: list[dict]) -> str:
  valid = sum(result["valid_pixels"] for result in results)
  whole = sum(result["height"] * result["width"] for result in results)
  cards = []
  for name in results[0]["classes"]:
    classes = [result["classes"][name] for result in results]
    label = html.escape(name)
    counts = [values["landslides"] for values in classes if values["landslides"] is not None]
    if counts:
      cards.append((f"{sum(counts):,}", f"polygons of {label}"))
    if areas := _areas(results, name):
      cards += [
        (area(sum(areas)), f"of {label} in all"), (area(float(np.median(areas))), "median polygon"),
      ]
    share = sum(values["pixels"] for values in classes) / max(valid, 1)
    cards.append((f"{100 * share:.2f} %", f"of what holds data is {label}"))
  cards.append((f"{100 * (1 - valid / max(whole, 1)):.1f} %", "without data"))
  return card_row(cards)


def _judged(judged: dict, output: pathlib.Path) -> list[str]:
  """Returns what the maps were judged to be worth, with pictures of those with most landslides."""
  parts = ["<h2>Against references</h2>"]
  parts += [f"<p>{html.escape(paragraph)}</p>" for paragraph in scene_tables.words(judged)]
  for table in scene_tables.tables(judged):
    parts += [f"<h3>{html.escape(table.title)}</h3>", _rows(table.columns, table.rows)]
  amount = lambda s: sum(v["label_free"]["landslide_pixels"] for v in s["classes"].values())
  most = sorted(judged["scenes"], key=amount, reverse=True)[:_MOST_PICTURES]
  parts.append("<p>Found pixels green, missed ones blue, falsely mapped ones red, what is not judged "
               "white. All scenes are in eval/.</p>")
  return parts + [_picture(scene, output / "eval", "judged") for scene in most]


def _table(results: list[dict], names: list[str]) -> str:
  columns = ["scene", "pixels", "resolution", "CRS", "without data"]
  for name in names:
    columns += [f"{name}: image score", "polygons", "area", "share"]
  rows = []
  for result in results[:_MOST_ROWS]:
    row = [
      result["file"], f"{result['width']:,} x {result['height']:,}",
      f"{result['gsd']:.3g} m" if result["gsd"] else "unknown", _crs(result),
      f"{100 * result['no_data_share']:.1f} %",
    ]
    for name in names:
      values = result["classes"][name]
      areas = values["areas_m2"]
      row += [
        f"{values['probability']:.2f}", "-" if values["landslides"] is None else values["landslides"],
        "-" if areas is None else area(sum(areas)), f"{100 * values['share']:.2f} %",
      ]
    rows.append(row)
  more = len(results) - len(rows)
  rest = f"<p>and {more:,} more, in predictions.csv.</p>" if more > 0 else ""
  return _rows(columns, rows) + rest


def _rows(columns: Sequence, rows: Sequence[Sequence], kind: str = "figures") -> str:
  cells = lambda tag, row: "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in row)
  body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
  return f"<table class={kind}><tr>{cells('th', columns)}</tr>{body}</table>"


def _crs(result: dict) -> str:
  if result["crs"] is None:
    return "none"
  return result["crs"] if len(result["crs"]) < 24 else "custom"


def _picture(result: dict, folder: pathlib.Path, what: str) -> str:
  name, path = html.escape(result["file"]), folder / f"{result['stem']}.png"
  if not path.exists():
    return f"<h3>{name}</h3><p>Its picture, {html.escape(str(path))}, is gone: map it again.</p>"
  with Image.open(path) as image:
    small = image.convert("RGB")
  small.thumbnail((_SIDE, _SIDE))
  buffer = io.BytesIO()
  small.save(buffer, format="JPEG", quality=85)
  data = base64.b64encode(buffer.getvalue()).decode()
  return f"<h3>{name}</h3><img alt='{name}, {what}' src='data:image/jpeg;base64,{data}'>"
