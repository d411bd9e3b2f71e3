"""The page of a prediction: what was mapped in each scene, its area, and pictures."""

import itertools
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from lgag_jax.evaluation import figures
from lgag_jax.mapping import qgis_style, scene_tables
from lgag_jax.mapping.scene_tables import MAX_ROWS, area
from lgag_jax.pages import pictures, rendering
from lgag_jax.pages.pictures import Picture
from lgag_jax.pages.rendering import Table
from lgag_jax.runtime import files

_MAX_PICTURES = 12
_PICTURE_SIDE = 1080  # Pixels.


def write(
  results: Sequence[dict], output: pathlib.Path, *, description: str, skipped: dict[str, str],
  evaluation: dict | None = None,
) -> pathlib.Path:
  """Writes report.html for the numbers of all maps; `description` says how they were drawn.

  `skipped` gives the reason for each image that could not be mapped. `evaluation` is what
  `judge.evaluate` returns.
  """
  names = list(results[0]["classes"])
  largest = sorted(results, key=_mapped_pixels, reverse=True)[:_MAX_PICTURES]
  page = rendering.html(
    "scene_report.html",
    title="1 scene" if len(results) == 1 else f"{len(results):,} scenes", description=description,
    cards=_cards(results), skipped=_skipped_table(skipped), skipped_count=len(skipped),
    evaluation=_evaluation(evaluation, output) if evaluation else None,
    histograms=_histograms(results, names), scenes=_scene_table(results, names),
    more_scenes=len(results) - min(len(results), MAX_ROWS),
    legend_classes=list(zip(names, itertools.cycle(qgis_style.COLOURS), strict=False)),
    all_pictures=len(largest) == len(results),
    pictures=[_picture(result, output / "overlay", "mapped") for result in largest],
  )
  path = output / "report.html"
  files.write_text(path, page)
  return path


def _mapped_pixels(result: dict) -> int:
  return sum(values["pixels"] for values in result["classes"].values())


def _landslide_pixels(scene: dict) -> float:
  return sum(values["label_free"]["landslide_pixels"] for values in scene["classes"].values())


def _areas(results: Sequence[dict], name: str) -> list[float]:
  return [area for result in results for area in result["classes"][name]["areas_m2"] or ()]


def _cards(results: Sequence[dict]) -> list[tuple[str, str]]:
  valid = sum(result["valid_pixels"] for result in results)
  total = sum(result["height"] * result["width"] for result in results)
  cards = []
  for name in results[0]["classes"]:
    classes = [result["classes"][name] for result in results]
    counts = [values["landslides"] for values in classes if values["landslides"] is not None]
    if counts:
      cards.append((f"polygons: {name}", f"{sum(counts):,}"))
    if areas := _areas(results, name):
      cards += [
        (f"total area: {name}", area(sum(areas))),
        (f"median polygon: {name}", area(float(np.median(areas)))),
      ]
    share = sum(values["pixels"] for values in classes) / max(valid, 1)
    cards.append((f"share of valid pixels: {name}", f"{100 * share:.2f} %"))
  return [*cards, ("nodata", f"{100 * (1 - valid / max(total, 1)):.1f} %")]


def _skipped_table(skipped: dict[str, str]) -> Table:
  rows = []
  for path in sorted(skipped)[:MAX_ROWS]:
    name = pathlib.PurePath(path).name
    rows.append((name, skipped[path].replace(path, name)))
  return Table(("image", "reason"), rows, text_columns=2)


def _evaluation(evaluation: dict, output: pathlib.Path) -> dict:
  """Returns the notes and tables, with pictures of the scenes that have most landslides."""
  largest = sorted(evaluation["scenes"], key=_landslide_pixels, reverse=True)[:_MAX_PICTURES]
  return {
    "notes": scene_tables.notes(evaluation), "tables": scene_tables.tables(evaluation),
    "pictures": [_picture(scene, output / "eval", "evaluated") for scene in largest],
  }


def _histograms(results: Sequence[dict], names: list[str]) -> list[tuple[str, Picture]]:
  areas = {name: _areas(results, name) for name in names}
  return [
    (name, pictures.from_figure(figures.sizes(values), f"Areas of {name} polygons"))
    for name, values in areas.items() if values
  ]


def _scene_table(results: Sequence[dict], names: list[str]) -> Table:
  columns = ["scene", "pixels", "resolution", "CRS", "nodata"]
  for name in names:
    columns += [f"{name}: image score", "polygons", "area", "share"]
  rows = []
  for result in results[:MAX_ROWS]:
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
  return Table(columns, rows)


def _crs(result: dict) -> str:
  if result["crs"] is None:
    return "none"
  return result["crs"] if len(result["crs"]) < 24 else "custom"


def _picture(result: dict, folder: pathlib.Path, state: str) -> tuple[str, Picture | str]:
  """Returns a scene's name and its picture, or the path of a picture that is missing."""
  name, path = result["file"], folder / f"{result['stem']}.png"
  if not path.exists():
    return name, str(path)
  with Image.open(path) as image:
    rgb = image.convert("RGB")
  return name, pictures.from_image(rgb, _PICTURE_SIDE, f"{name}, {state}", kind="jpeg")
