"""The page of a prediction: what was mapped in each scene, its area, and pictures."""

import collections
import itertools
import pathlib
from collections.abc import Sequence

from PIL import Image

from lgag_jax.imagery import opening
from lgag_jax.imagery.opening import ImageError
from lgag_jax.mapping import (
  density,
  density_figure,
  overlay,
  qgis_style,
  rasters,
  scene_tables,
  size_sections,
)
from lgag_jax.mapping.scene_tables import MAX_ROWS, area
from lgag_jax.pages import pictures, rendering
from lgag_jax.pages.pictures import Picture
from lgag_jax.runtime import files

_MAX_PICTURES = 12
_CAPTIONS = {"image_before": "Before", "image": "After"}  # By the folder of the picture.
Pictures = list[tuple[str, Picture]]  # Each with its caption, the map's last.


def write(
  results: Sequence[dict], output: pathlib.Path, *, description: str, skipped: dict[str, str],
  maps_digest: str, evaluation: dict | None = None,
  findings: Sequence[tuple[str, str, str]] = (),
) -> None:
  """Writes report.html for the numbers of all maps; `description` says how they were drawn.

  `maps_digest` tells later runs what the page shows. `skipped` gives the reason for each image that
  could not be mapped. `evaluation` is what `judge.evaluate` returns. `findings`, of a level, a text and
  a remedy each, say whether the maps can be trusted.
  """
  names = list(results[0]["classes"])
  mapped_pixels = lambda result: sum(values["pixels"] for values in result["classes"].values())
  largest = sorted(results, key=mapped_pixels, reverse=True)[:_MAX_PICTURES]
  labels, short = scene_tables.names_of(results), _short_names(sorted(skipped)[:MAX_ROWS])
  reasons = [(name, skipped[path].replace(path, name)) for path, name in short.items()]
  shown = _pictures(largest, labels, output)
  page = rendering.html(
    "scene_report.html", title="1 scene" if len(results) == 1 else f"{len(results):,} scenes",
    description=description, events=_events(results), maps_digest=maps_digest,
    cards=_cards(results), findings=findings,
    skipped=rendering.Table(("image", "reason"), reasons, text_columns=2), skipped_count=len(skipped),
    warnings=_warnings(results, labels),
    evaluation=_evaluation(evaluation, output) if evaluation else None,
    histograms=size_sections.figures({name: _areas(results, name) for name in names}),
    names=names, scenes=results[:MAX_ROWS], area=area,
    labels=labels, flat_counts=any(
      values.get("flat") is not None for result in results for values in result["classes"].values()
    ),
    cloud_counts=any(result.get("clouds") for result in results),
    more_scenes=len(results) - min(len(results), MAX_ROWS),
    legend_classes=list(zip(names, itertools.cycle(qgis_style.COLOURS), strict=False)),
    densities=_densities(largest, labels, output),
    all_pictures=len(largest) == len(results), pictures=shown,
    comparisons=sum(len(content) > 1 for _, content in shown if isinstance(content, list)),
  )
  files.write_text(output / "report.html", page)


def _warnings(results: Sequence[dict], labels: dict[str, str]) -> rendering.Table:
  """Returns the table of what to check in the scenes; maps of earlier versions hold no warnings."""
  rows = [
    (labels[result["stem"]], text) for result in results for text in result.get("warnings", ())
  ]
  return rendering.Table(("image", "warning"), rows[:MAX_ROWS], text_columns=2)


def _events(results: Sequence[dict]) -> list[str]:
  """Returns a sentence for each event and dates of imagery; earlier releases recorded none."""
  names = {
    "event": "Event", "image_date": "Date of the imagery", "before_date": "Date of the imagery before"}
  found = dict.fromkeys(tuple(result.get(name, "") for name in names) for result in results)
  parts = [
    [f"{name}: {value}." for name, value in zip(names.values(), values, strict=True) if value]
    for values in found
  ]
  return [" ".join(texts) for texts in parts if texts][:MAX_ROWS]


def _short_names(paths: Sequence[str]) -> dict[str, str]:
  """Returns the file name of each path, or the path itself if several have this file name."""
  counts = collections.Counter(pathlib.PurePath(path).name for path in paths)
  return {
    path: name if counts[name := pathlib.PurePath(path).name] == 1 else path for path in paths
  }


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
    cards += size_sections.cards(name, _areas(results, name))
    share = sum(values["pixels"] for values in classes) / max(valid, 1)
    cards.append((f"share of valid pixels: {name}", f"{100 * share:.2f} %"))
  return [*cards, ("nodata", f"{100 * (1 - valid / max(total, 1)):.1f} %")]


def _evaluation(evaluation: dict, output: pathlib.Path) -> dict:
  """Returns the notes and tables, with pictures of the scenes that have most landslides."""
  landslide_pixels = lambda scene: sum(
    values["label_free"]["landslide_pixels"] for values in scene["classes"].values()
  )
  largest = sorted(evaluation["scenes"], key=landslide_pixels, reverse=True)[:_MAX_PICTURES]
  labels = scene_tables.names_of(evaluation["scenes"])
  return {
    "notes": scene_tables.notes(evaluation), "tables": scene_tables.tables(evaluation),
    "pictures": [
      (labels[scene["stem"]], _map_pictures(scene, labels, output / "eval", "evaluated"))
      for scene in largest
    ],
  }


def _densities(
  results: Sequence[dict], labels: dict[str, str], output: pathlib.Path
) -> list[tuple[str, float, Picture]]:
  """Returns name, side of the cells in metres and picture of each scene that has a density."""
  parts = []
  for result in results:
    path, name = output / density.file_names(result["stem"])[0], labels[result["stem"]]
    if side := path.exists() and result.get("density_cell_m"):
      files.require_plain(path)
      figure = density_figure.density(density.read(path), side)
      parts.append((name, side, pictures.from_figure(figure, f"Density of landslides, {name}")))
  return parts


def _pictures(
  results: Sequence[dict], labels: dict[str, str], output: pathlib.Path
) -> list[tuple[str, Pictures | str]]:
  """Returns each scene's name and its pictures, or the path of a map's picture that is missing.

  The first scenes also show the image without the map, in at most as many pictures more as scenes may
  have maps here. Maps of earlier releases have no such pictures.
  """
  scenes, left = [], _MAX_PICTURES
  for result in results:
    shown = _map_pictures(result, labels, output / "overlay", "mapped")
    names = [f"{folder}/{result['stem']}.jpg" for folder in _CAPTIONS]
    dates = [name for name in names if name in result.get("files", ())]
    whole = all((output / name).exists() for name in dates)
    if whole and not isinstance(shown, str) and len(dates) <= left:
      left -= len(dates)
      shown = [*_date_pictures(dates, labels[result["stem"]], output), *shown]
    scenes.append((labels[result["stem"]], shown))
  return scenes


def _date_pictures(names: Sequence[str], label: str, output: pathlib.Path) -> Pictures:
  """Returns the pictures of a scene without the map, in the order of the dates."""
  captions = [_CAPTIONS[pathlib.PurePath(name).parts[0]] for name in names]
  if len(names) == 1:
    captions = ["Image"]
  return [
    (caption, pictures.from_image(
      _read_picture(output / name, "JPEG"), overlay.DATE_SIDE, f"{label}, {caption.lower()}",
      kind="jpeg",
    )) for caption, name in zip(captions, names, strict=True)
  ]


def _map_pictures(
  result: dict, labels: dict[str, str], folder: pathlib.Path, state: str
) -> Pictures | str:
  """Returns the picture of a map, or the path of a picture that is missing."""
  name, path = labels[result["stem"]], folder / f"{result['stem']}.png"
  if not path.exists():
    return str(path)
  image = _read_picture(path, "PNG")
  return [("Map", pictures.from_image(image, overlay.DATE_SIDE, f"{name}, {state}", kind="jpeg"))]


def _read_picture(path: pathlib.Path, kind: str) -> Image.Image:
  """Reads a picture of an earlier run; raises ImageError if it is not one of `overlay`'s.

  A link raises ValueError: the page, which may be shared, would show a picture from elsewhere.
  """
  files.require_plain(path)
  opening.read_signature(path)  # Refuses pipes.
  try:
    # By its content alone, Pillow would run other programs for some formats.
    with Image.open(path, formats=[kind]) as image:
      if max(image.size) > overlay.MAX_SIDE:
        raise ValueError(f"it is {image.size[0]} x {image.size[1]}")
      return image.convert("RGB")
  except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
    raise ImageError(f"{path} is not a picture of a map: {error}. {rasters.REMEDY}") from error
