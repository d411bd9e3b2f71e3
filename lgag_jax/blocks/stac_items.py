"""STAC items of blocks and their collection, as plain JSON: workers need no library for them."""

import dataclasses
import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import shapely

from lgag_jax import __version__
from lgag_jax.blocks.plan import Block
from lgag_jax.catalogues.images import Image
from lgag_jax.geo.grid import Grid

STAC_VERSION = "1.1.0"
_PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
COLLECTION = "landslides"


@dataclasses.dataclass(frozen=True)
class Figures:
  """What a block's map shows."""

  valid_pixels: int = 0
  class_pixels: tuple[int, ...] = ()  # Per class.
  image_scores: tuple[float, ...] = ()  # The highest of the windows, per class.


def block_item(
  block: Block, key: str, grid: Grid, names: Mapping[str, str], images: Sequence[Image],
  classes: Sequence[str], dtype: str, figures: Figures,
) -> dict[str, Any]:
  """Returns the STAC item of a block; `names` are its files below the output."""
  outline, bounds = _outline(grid)
  projection = {
    "proj:code": f"EPSG:{block.epsg}", "proj:shape": [grid.height, grid.width],
    "proj:transform": list(grid.transform)[:6],
  }
  assets = {}
  if "mask" in names:
    assets = {
      "mask": {
        "href": f"../{names['mask']}", "type": _COG, "roles": ["data"], "nodata": 255,
        "data_type": "uint8", "title": "0 background, " + ", ".join(
          f"{number} {name}" for number, name in enumerate(classes, 1)), **projection,
      },
      "probability": {
        "href": f"../{names['probability']}", "type": _COG, "roles": ["data"],
        "nodata": 255 if dtype == "uint8" else "nan", "data_type": dtype,
        "title": "Probability in percent" if dtype == "uint8" else "Probability",
        "bands": [{"name": name} for name in classes], **projection,
      },
    }
  links = [{"rel": rel, "href": "../collection.json", "type": "application/json"}
           for rel in ("root", "parent", "collection")]
  links += [{"rel": "derived_from", "href": image.source} for image in images if image.source]
  return {
    "type": "Feature", "stac_version": STAC_VERSION, "stac_extensions": [_PROJECTION], "id": block.name,
    "collection": COLLECTION, "geometry": outline, "bbox": bounds, "links": links, "assets": assets,
    "properties": {
      **_times(images), **projection, "created": _text(datetime.datetime.now(datetime.UTC)),
      "gsd": abs(grid.transform.a), "lgag:key": key, "lgag:version": __version__,
      "lgag:valid_pixels": figures.valid_pixels,
      "lgag:class_pixels": dict(zip(classes, figures.class_pixels, strict=False)),
      "lgag:image_scores": dict(zip(classes, figures.image_scores, strict=False)),
    },
  }


def collection(
  records: Iterable[str], bounds: Sequence[Sequence[float]], images: Sequence[Image],
  assets: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
  """Returns the STAC collection of an area's blocks; `records` are their items' file names."""
  times = _times(images)
  first = times.get("start_datetime") or times["datetime"]
  last = times.get("end_datetime") or times["datetime"]
  links = [
    {"rel": "root", "href": "./collection.json", "type": "application/json"},
    *({"rel": "item", "href": f"./items/{name}", "type": "application/geo+json"} for name in records),
  ]
  return {
    "type": "Collection", "stac_version": STAC_VERSION, "id": COLLECTION, "license": "other",
    "title": "Landslides", "description": f"Landslides mapped by lgag_jax {__version__}.",
    "extent": {
      "spatial": {"bbox": [list(box) for box in bounds]}, "temporal": {"interval": [[first, last]]},
    },
    "links": links, "assets": {name: dict(asset) for name, asset in assets.items()},
  }


def degrees_of(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
  """Returns longitudes and latitudes of a grid's corners, clockwise from the upper left."""
  transformer = grid.to_wgs84()
  assert transformer is not None
  corners = ((0, 0), (grid.width, 0), (grid.width, grid.height), (0, grid.height))
  columns, rows = zip(*(grid.transform @ corner for corner in corners), strict=True)
  longitudes, latitudes = transformer.transform(columns, rows)
  return np.array(longitudes), np.array(latitudes)


def _outline(grid: Grid) -> tuple[dict[str, Any], list[float]]:
  """Returns a grid's outline as GeoJSON and its bounds; at the 180th meridian, in two parts."""
  longitudes, latitudes = degrees_of(grid)
  crosses = np.ptp(longitudes) > 180
  if crosses:
    longitudes = longitudes % 360
  polygon = shapely.Polygon(np.stack([longitudes, latitudes], axis=1).round(7))
  west, south, east, north = polygon.bounds
  if crosses:
    east -= 360  # As GeoJSON writes it: west is larger than east.
    left = polygon.intersection(shapely.box(0, -90, 180, 90))
    right = polygon.intersection(shapely.box(180, -90, 360, 90))
    right = shapely.transform(right, lambda points: points - [360, 0])
    polygon = shapely.union(left, right)
  return shapely.geometry.mapping(shapely.orient_polygons(polygon)), [west, south, east, north]


def _times(images: Sequence[Image]) -> dict[str, Any]:
  """Returns when images were taken; without any date, an item has that of its making.

  Those before the event do not count: a map is of the ground after it.
  """
  times = sorted(image.time for image in images if image.time and not image.before)
  if not times:
    return {"datetime": _text(datetime.datetime.now(datetime.UTC))}
  if times[0] == times[-1]:
    return {"datetime": _text(times[0])}
  return {
    "datetime": None, "start_datetime": _text(times[0]), "end_datetime": _text(times[-1]),
  }


def _text(time: datetime.datetime) -> str:
  return time.astimezone(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
