"""The results of an area: polygons, a STAC collection, a manifest and a page, from its whole blocks."""

import dataclasses
import datetime
import itertools
import json
import logging
import os
import pathlib
import platform
import re
import shutil
import uuid
from collections.abc import Mapping, Sequence

import numpy as np
from shapely.geometry.base import BaseGeometry

from lgag_jax import __version__
from lgag_jax.blocks import area_page, inventory, map_block, part_lock, stac_items
from lgag_jax.blocks.inventory import Tracing
from lgag_jax.blocks.map_block import AreaJob
from lgag_jax.blocks.plan import Block, block_grid
from lgag_jax.mapping import output_folder, vectors
from lgag_jax.runtime import files

_LOG = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_COLLECTION = "collection.json"
_POLYGONS = "polygons"
_PARQUET = f"{_POLYGONS}/{inventory.NAME}.parquet"
_OF_ZONE = re.compile(rf"{_POLYGONS}/{inventory.NAME}_\d+\.gpkg", re.ASCII)
_OWN = {"lock", part_lock.PARTS, map_block.UNFINISHED}
_FOLDERS = (map_block.UNFINISHED, part_lock.PARTS, _POLYGONS, *map_block.FOLDERS)
_PAGES = (area_page.PAGE, area_page.PICTURE)
_TYPES = {".parquet": "application/vnd.apache.parquet", ".gpkg": "application/geopackage+sqlite3"}


@dataclasses.dataclass(frozen=True)
class AreaResult:
  """What was mapped of an area."""

  blocks: int
  failed: dict[str, str]  # Why blocks could not be mapped, by name.
  landslides: int | None  # None for a part of the blocks.


def require_own(output: pathlib.Path) -> None:
  """Raises ValueError if a folder holds files that --mode=map has not written.

  Also for folders in it that are symbolic links: what they hold would be replaced and removed.
  """
  try:
    names = {entry.name for entry in os.scandir(output)} - _OWN
  except FileNotFoundError:
    return
  except OSError as error:
    raise OSError(f"--output={output} cannot be written to: {error.strerror}.") from error
  if names and not _own_manifest(output):
    raise ValueError(
      f"--output={output} holds {min(names)}, which --mode=map has not written: use a new folder."
    )
  output_folder.require_plain_folders(output, _FOLDERS)
  parts = [f"{part_lock.PARTS}/{path.name}" for path in (output / part_lock.PARTS).glob("*")]
  output_folder.require_plain_folders(output, parts)
  for name in names.intersection(_PAGES) - set(_recorded_files(output)):
    raise ValueError(
      f"{output / name} would be replaced, but lgag has not written it there. Move it, or use another "
      "--output."
    )


def _own_manifest(output: pathlib.Path) -> dict:
  try:
    content = files.read_json(output / MANIFEST)
  except (OSError, ValueError):
    return {}
  return content if isinstance(content, dict) and content.get("made_by") == "lgag_jax" else {}


def _recorded_files(output: pathlib.Path) -> list[str]:
  """Returns the files that a manifest lists and `join` writes; a stranger's may list any file."""
  names, others = _own_manifest(output).get("files"), (_COLLECTION, _PARQUET, *_PAGES)
  names = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
  return [name for name in names if name in others or _OF_ZONE.fullmatch(name)]


def begin(job: AreaJob, blocks: Sequence[Block], tracing: Tracing) -> None:
  """Writes a manifest that says that the output is not whole; jobs of an array may do so at once."""
  names = _recorded_files(job.output)
  _write_manifest(job, blocks, tracing, {}, names, whole=False)


def join(
  job: AreaJob, blocks: Sequence[Block], tracing: Tracing, area: BaseGeometry | None,
  failed: dict[str, str],
) -> AreaResult:
  """Joins the polygons of an area's blocks, and writes its collection, manifest and page.

  The page is last: if it cannot be written, the map is whole.
  """
  _warn_of_other_blocks(job.output, blocks)
  records, _ = map_block.whole_blocks(job, blocks)
  mapped = {
    block: not map_block.is_empty(records[block.name]) for block in blocks if block.name in records
  }
  if mapped and not any(mapped.values()):
    _LOG.warning(
      "No block has data, so the map is empty: every pixel is nodata, under clouds or beside the "
      "images. Check their nodata values and their cloud masks."
    )
  earlier = _recorded_files(job.output)
  found = inventory.write(
    job.output / _POLYGONS, job.output, mapped, job.size.core, job.resolution, area, tracing
  )
  names = [f"{_POLYGONS}/{name}" for name in found.files]
  for name in set(earlier) - set(names):  # Of a zone that is no longer part of the area.
    if _OF_ZONE.fullmatch(name):
      vectors.remove(job.output / name)
  assets = {
    pathlib.PurePath(name).stem + pathlib.PurePath(name).suffix.replace(".", "_"): {
      "href": f"./{name}", "type": _TYPES[pathlib.PurePath(name).suffix], "roles": ["data"],
    } for name in names
  }
  content = stac_items.collection(
    [records[block.name] for block in mapped], _bounds(job, list(mapped)), job.images, assets
  )
  files.write_json(job.output / _COLLECTION, content)
  names += [_COLLECTION, *_PAGES]
  manifest = _write_manifest(job, blocks, tracing, failed, names, whole=not failed)
  shutil.rmtree(job.output / map_block.UNFINISHED, ignore_errors=True)  # Of workers that were killed.
  area_page.write(job, blocks, records, found, tracing.provenance, manifest, area)
  return AreaResult(len(blocks), failed, found.count)


def _warn_of_other_blocks(output: pathlib.Path, blocks: Sequence[Block]) -> None:
  """Warns of masks of blocks that an earlier map of the same output had, and this one has not."""
  masks = {path.stem for path in (output / "mask").glob("*.tif")}
  if others := masks - {block.name for block in blocks}:
    _LOG.warning(
      "%s holds %d blocks of an earlier map that are not part of this one, such as mask/%s.tif. They "
      "stay, but collection.json and the polygons omit them. Remove them, or use a new --output.",
      output, len(others), min(others),
    )


def _bounds(job: AreaJob, blocks: Sequence[Block]) -> list[list[float]]:
  """Returns the bounds of all blocks, then those of each zone, as STAC has them."""
  zones = {}
  for epsg in sorted({block.epsg for block in blocks}):
    own = [block for block in blocks if block.epsg == epsg]
    rows, cols = ([getattr(block, name) for block in own] for name in ("row", "col"))
    ends = itertools.product((min(rows), max(rows)), (min(cols), max(cols)))
    corners = [Block(epsg, row, col) for row, col in ends]
    points = [stac_items.degrees_of(block_grid(block, job.resolution, job.size)) for block in corners]
    longitudes, latitudes = (np.concatenate(values) for values in zip(*points, strict=True))
    zones[epsg] = [longitudes.min(), latitudes.min(), longitudes.max(), latitudes.max()]
  boxes = [[round(float(value), 7) for value in box] for box in zones.values()]
  west, south, east, north = zip(*boxes, strict=True)
  whole = [min(west), min(south), max(east), max(north)]
  return [whole, *(boxes if len(boxes) > 1 else [])]


def _write_manifest(
  job: AreaJob, blocks: Sequence[Block], tracing: Tracing, failed: Mapping[str, str],
  names: Sequence[str], *, whole: bool,
) -> dict:
  """Writes what made the maps, and returns it."""
  made_by = {
    "made_by": "lgag_jax", "version": __version__, "python": platform.python_version(),
    "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "whole": whole,
    "method": tracing.provenance.method, "maker": job.maker, "classes": list(job.classes),
    "resolution": job.resolution, "block_pixels": job.size.core, "halo_pixels": job.size.lead,
    "imagery": dataclasses.asdict(job.imagery), "blocks": len(blocks),
    "zones": sorted({block.epsg for block in blocks}), "failed": dict(failed), "files": list(names),
    "min_area_m2": tracing.min_area, "simplify_m": tracing.simplify,
    "images": [
      {"name": image.name, "source": image.source, "key": image.key, "before": image.before}
      for image in job.images
    ],
  }
  # Under a name of its own, since several jobs of an array may write it.
  staged = job.output / map_block.UNFINISHED / f"{uuid.uuid4().hex}.json"
  staged.parent.mkdir(parents=True, exist_ok=True)
  staged.write_text(json.dumps(made_by, indent=2) + "\n")
  os.replace(staged, job.output / MANIFEST)
  return made_by
