"""The attributes of polygons: their names, types and values in vector files. See docs/events.md."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from lgag_jax import __version__
from lgag_jax.mapping.polygons import Landslide


@dataclasses.dataclass(frozen=True)
class Provenance:
  """What made a map, of which imagery: attributes that all of its polygons share."""

  gsd: float | None = None  # Metres per pixel of the imagery.
  method: str = ""
  thresholds: tuple[float, ...] = ()  # The score that a pixel of each class must reach.
  event: str = ""
  image_date: str = ""  # YYYY-MM-DD
  dem: str = ""  # File name.


@dataclasses.dataclass(frozen=True)
class Field:
  """An attribute of polygons; None is written as null."""

  name: str
  dtype: str  # NumPy's; "object" is text.
  value: Callable[[Landslide, Provenance], Any]

  def column(self, landslides: list[Landslide], provenance: Provenance) -> np.ndarray:
    """Returns the values of polygons as an array to write."""
    values = [self.value(landslide, provenance) for landslide in landslides]
    if self.dtype == "object":
      values = [None if value in (None, "") else _text(value) for value in values]
    return np.array(values, self.dtype)


def _text(name: str) -> str:
  """Escapes the bytes of a file name that are not valid text."""
  return name.encode(errors="backslashreplace").decode()


PLAIN = (
  Field("id", "int64", lambda one, _: one.id),
  Field("class", "object", lambda one, _: one.class_name),
  Field("area_m2", "float64", lambda one, _: one.area_m2),
  Field("perimeter_m", "float64", lambda one, _: one.perimeter_m),
  Field("mean_probability", "float64", lambda one, _: one.mean_probability),
  Field("max_probability", "float64", lambda one, _: one.max_probability),
  Field("pixels", "int64", lambda one, _: one.pixels),
  Field("source", "object", lambda one, _: one.source),
  Field("stable_id", "object", lambda one, _: one.stable_id),
  Field("confidence", "object", lambda one, _: one.confidence),
  Field("length_m", "float64", lambda one, _: one.length_m),
  Field("width_m", "float64", lambda one, _: one.width_m),
  Field("bearing_deg", "float64", lambda one, _: one.bearing_deg),
  Field("touches_nodata", "bool", lambda one, _: one.touches_missing),
  Field("touches_border", "bool", lambda one, _: one.touches_border),
  Field("slope_mean_deg", "float64", lambda one, _: one.terrain.slope_mean),
  Field("slope_max_deg", "float64", lambda one, _: one.terrain.slope_max),
  Field("aspect_deg", "float64", lambda one, _: one.terrain.aspect),
  Field("elevation_min_m", "float64", lambda one, _: one.terrain.lowest),
  Field("elevation_max_m", "float64", lambda one, _: one.terrain.highest),
  Field("height_range_m", "float64", lambda one, _: one.terrain.height_range),
  Field("dem_share", "float64", lambda one, shared: one.terrain.share if shared.dem else None),
  Field("dem", "object", lambda _, shared: shared.dem),
  Field("gsd_m", "float64", lambda _, shared: shared.gsd),
  Field("method", "object", lambda _, shared: shared.method),
  Field("version", "object", lambda *_: f"lgag_jax {__version__}"),
  Field("event", "object", lambda _, shared: shared.event),
  Field("image_date", "datetime64[D]", lambda _, shared: shared.image_date or None),
  Field("review_status", "object", lambda *_: "not reviewed"),
)
