"""The attributes of polygons in vector files: names, types and values, in profiles of agencies.

docs/events.md explains them and names their sources; docs/schemas/ holds a JSON schema of each.
"""

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
  source: str = ""  # File name of the scene.
  before_date: str = ""  # YYYY-MM-DD, of the image before the event.


@dataclasses.dataclass(frozen=True)
class Field:
  """An attribute of polygons; None is written as null."""

  name: str
  dtype: str  # NumPy's; "object" is text.
  value: Callable[[Landslide, Provenance], Any]

  def column(self, landslides: list[Landslide], provenance: Provenance) -> np.ndarray:
    """Returns the values of polygons as an array to write; unknown integers are masked."""
    values = [self.value(landslide, provenance) for landslide in landslides]
    if self.dtype == "object":
      values = [None if value in (None, "") else _text(value) for value in values]
    if self.dtype.startswith("int"):
      unknown = [value is None for value in values]
      return np.ma.array([value or 0 for value in values], self.dtype, mask=unknown)
    return np.array(values, self.dtype)


@dataclasses.dataclass(frozen=True)
class Profile:
  """The attributes that an agency's schema asks for."""

  fields: tuple[Field, ...]
  class_field: str = ""  # The attribute that holds the class, if one does.
  # Of the GeoPackage's table "source", which has one row. They do not depend on a polygon.
  source_fields: tuple[tuple[str, str, Callable[[Provenance], Any]], ...] = ()


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
  Field("part_of", "object", lambda one, _: one.whole and one.whole.stable_id),
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
  Field("before_date", "datetime64[D]", lambda _, shared: shared.before_date or None),
  Field("review_status", "object", lambda *_: "not reviewed"),
)

# USGS, Landslide Inventories across the United States (ver. 3.0), layer us_ls_v3_poly.
_USGS_CONFIDENCE = {"low": 1, "medium": 2, "high": 3}  # 5 and 8 need a person's review.
_USGS = (
  Field("USGS_ID", "object", lambda *_: None),  # The USGS assigns it.
  Field("Date_Min", "object", lambda _, shared: shared.before_date),  # By then it had not happened.
  Field("Date_Max", "object", lambda _, shared: shared.image_date),  # By then it had happened.
  Field("Fatalities", "int32", lambda *_: None),
  Field("Confidence", "int32", lambda one, _: _USGS_CONFIDENCE.get(one.confidence or "")),
  Field("LS_Type", "object", lambda one, _: one.class_name),
  Field("Inventory", "object", lambda _, shared: shared.event),
  Field("Inv_URL", "object", lambda *_: None),
  Field("Info_Source", "object", lambda one, shared: _imagery(one.source, shared)),
  Field("Notes", "object", lambda one, shared: _notes(one, shared)),
  Field("Lat_N", "float64", lambda one, _: one.latitude),
  Field("Lon_W", "float64", lambda one, _: one.longitude),
)
# Copernicus EMS Rapid Mapping, layer observedEventA, and the table "source" of its vector package.
_SOURCE_ID = 1
_COPERNICUS_EMS = (
  Field("event_type", "object", lambda *_: "6-Mass Movement"),
  Field("obj_desc", "object", lambda *_: "Landslide"),
  Field("det_method", "object", lambda *_: "Automatic extraction"),
  Field("notation", "object", lambda one, shared: _notes(one, shared)),
  Field("dmg_src_id", "int32", lambda *_: _SOURCE_ID),
  Field("area", "float64", lambda one, _: None if one.area_m2 is None else one.area_m2 / 1e4),
)
_COPERNICUS_EMS_SOURCES = (
  ("source_nam", "object", lambda shared: _text(shared.source)),
  ("src_date", "object", lambda shared: "/".join(reversed(shared.image_date.split("-"))) or None),
  ("source_tm", "object", lambda _: None),
  ("sensor_gsd", "object", lambda shared: f"{shared.gsd:.3g} m" if shared.gsd else None),
  ("eventphase", "object", lambda _: "Post-event"),
  ("src_id", "int32", lambda _: _SOURCE_ID),
)
PROFILES = {
  "plain": Profile(PLAIN, "class"),
  "usgs": Profile(_USGS, "LS_Type"),
  "copernicus_ems": Profile(_COPERNICUS_EMS, source_fields=_COPERNICUS_EMS_SOURCES),
}


def _imagery(source: str, shared: Provenance) -> str:
  date = f", imagery of {shared.image_date}" if shared.image_date else ""
  date += f", compared with imagery of {shared.before_date}" if shared.before_date else ""
  return f"{source}{date}{f', {shared.gsd:.3g} m per pixel' if shared.gsd else ''}"


def _notes(landslide: Landslide, shared: Provenance) -> str:
  """Returns what a schema has no attribute for, in one line."""
  confidence = f"confidence {landslide.confidence}; " if landslide.confidence else ""
  event = f"{shared.event}; " if shared.event else ""
  part = f"part of {landslide.whole.stable_id}; " if landslide.whole else ""
  return (
    f"{event}{landslide.class_name}; {confidence}not reviewed; id {landslide.stable_id}; {part}"
    f"lgag_jax {__version__}"
  )
