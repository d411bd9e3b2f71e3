"""The page of an area: a picture of all blocks, figures, the largest landslides, what made the maps."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from shapely.geometry.base import BaseGeometry

from lgag_jax.blocks import map_block, mapped_ground, quick_look
from lgag_jax.blocks.inventory import Inventory
from lgag_jax.blocks.map_block import AreaJob
from lgag_jax.blocks.plan import Block
from lgag_jax.blocks.quick_look import Frame
from lgag_jax.catalogues.images import Image
from lgag_jax.mapping import size_sections
from lgag_jax.mapping.scene_tables import MAX_ROWS
from lgag_jax.mapping.scene_tables import area as area_text
from lgag_jax.mapping.schemas import Provenance
from lgag_jax.pages import pictures, rendering
from lgag_jax.pages.rendering import Table
from lgag_jax.runtime import files

PAGE, PICTURE = "report.html", "quick_look.png"
# Of `Imagery`: those that the maps depend on.
_OPTIONS = (
  "area", "dates", "before_dates", "max_cloud", "collections", "assets", "composite", "cloud_mask",
  "cloud_classes", "values",
)


def write(
  job: AreaJob, blocks: Sequence[Block], records: Mapping[str, str], inventory: Inventory,
  provenance: Provenance, manifest: Mapping[str, Any], area: BaseGeometry | None,
) -> None:
  """Writes quick_look.png and report.html into the output of a job.

  `records` are the items of the blocks that are mapped, by block, and `manifest` the content of
  manifest.json. Memory does not grow with the pixels of the area. Raises OSError naming a file that
  cannot be written, ValueError naming an item or a mask that cannot be read.
  """
  mapped = {
    block: not map_block.is_empty(records[block.name]) for block in blocks if block.name in records
  }
  missing = [block for block in blocks if block not in mapped]
  ground = mapped_ground.square_metres(job, {block: records[block.name] for block in mapped}, area)
  look = quick_look.draw(job, mapped, missing, area)
  look.write(job.output / PICTURE)
  failed = manifest["failed"]
  reasons = [(name, failed[name]) for name in sorted(failed)[:MAX_ROWS]]
  place = pathlib.PurePath(job.imagery.area).name or provenance.source
  page = rendering.html(
    "area_report.html", place=place, description=f"Method {provenance.method}.",
    event=provenance.event, cards=[
      *_landslide_cards(inventory, ground), ("ground with data", area_text(ground)),
      ("blocks with data", f"{sum(mapped.values()):,} of {len(blocks):,}"),
      ("blocks without data", f"{len(mapped) - sum(mapped.values()):,}"),
      ("blocks not mapped", f"{len(missing):,}"),
    ],
    failed=Table(("block", "reason"), reasons, text_columns=2), failed_count=len(failed),
    legend_classes=look.legend(job.classes), bounds=_bounds(look.frame),
    pixel=f"{look.frame.metres:,.3g}", step=look.reduction,
    quick_look=pictures.from_image(look.image(), quick_look.SIDE, f"Landslides in {place}"),
    largest=_largest(inventory), histograms=size_sections.figures(inventory.areas),
    origin=_origin(job, provenance, manifest),
  )
  files.write_text(job.output / PAGE, page)


def _landslide_cards(inventory: Inventory, ground: float) -> list[tuple[str, str]]:
  """Returns the figures of each class; `ground` is the ground with data in square metres."""
  cards = []
  for name, areas in inventory.areas.items():
    cards.append((f"polygons: {name}", f"{len(areas):,}"))
    cards += size_sections.cards(name, areas)
    if ground:
      cards += [
        (f"polygons per km²: {name}", _rate(len(areas) / (ground / 1e6))),
        (f"share of the ground: {name}", f"{100 * sum(areas) / ground:.2f} %"),
      ]
  return cards


def _rate(value: float) -> str:
  return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _largest(inventory: Inventory) -> Table:
  rows = [
    (one.id, one.class_name, area_text(one.area_m2 or 0.0), _degrees(one.longitude, "E", "W"),
     _degrees(one.latitude, "N", "S")) for one in inventory.largest
  ]
  return Table(("id", "class", "area", "longitude", "latitude"), rows, text_columns=2)


def _degrees(value: float | None, positive: str, negative: str) -> str:
  if value is None:
    return "-"
  return f"{abs(value):.5f}° {positive if value >= 0 else negative}"


def _bounds(frame: Frame) -> dict[str, str]:
  """Returns the sides of a picture in words."""
  east = frame.west + frame.width * frame.width_step
  south = frame.north - frame.height * frame.height_step
  longitudes = {"west": frame.west, "east": (east + 180) % 360 - 180}
  latitudes = {"south": south, "north": frame.north}
  return {
    **{name: _degrees(value, "E", "W") for name, value in longitudes.items()},
    **{name: _degrees(value, "N", "S") for name, value in latitudes.items()},
  }


def _origin(job: AreaJob, provenance: Provenance, manifest: Mapping[str, Any]) -> Table:
  """Returns what made the maps."""
  levels = zip(job.classes, provenance.thresholds, strict=False)
  zones = ", ".join(f"EPSG:{epsg}" for epsg in manifest["zones"])
  dated = {before: [one for one in job.images if one.before == before] for before in (False, True)}
  rows = [
    ("network", manifest["method"]),
    ("threshold", ", ".join(f"{name}: {level:.3f}" for name, level in levels)),
    ("images", _images(dated[False])),
    *([("images before the event", _images(dated[True]))] if dated[True] else []),
    ("options", _options(manifest["imagery"])),
    ("ground resolution", f"{manifest['resolution']:g} m per pixel"),
    ("blocks", f"{manifest['blocks']:,}, each {job.size.core:,} x {job.size.core:,} pixels, {zones}"),
    ("smallest polygon", area_text(manifest["min_area_m2"])),
    ("simplification", f"{manifest['simplify_m']:g} m"),
    ("made by", f"lgag_jax {manifest['version']}, {manifest['time']}"),
  ]
  return Table(("what", "value"), rows, text_columns=2)


def _images(images: Sequence[Image]) -> str:
  """Returns the number of images and their first and last day."""
  days = sorted(image.time.date().isoformat() for image in images if image.time)
  parts = [f"{len(images):,}"]
  if days:
    parts.append(days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}")
  if undated := len(images) - len(days):
    parts.append("without dates" if not days else f"{undated:,} without a date")
  return ", ".join(parts)


def _options(imagery: Mapping[str, Any]) -> str:
  """Returns the options of the imagery as flags; of the area's file, the name only."""
  flags = []
  for name in _OPTIONS:
    value = imagery[name]
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    text = f"{value:g}" if isinstance(value, float) else text
    if text:
      flags.append(f"--{name}={pathlib.PurePath(text).name if name == 'area' else text}")
  return " ".join(flags)
