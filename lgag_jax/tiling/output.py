"""The output of --mode=tile: tiles, their manifest, their outlines for a GIS, and a summary."""

import collections
import csv
import dataclasses
import errno
import os
import pathlib
import shlex
import warnings
from collections.abc import Sequence

import numpy as np
import pyogrio
import pyogrio.errors
import pyogrio.raw
import rasterio
import shapely
from affine import Affine
from rasterio.crs import CRS

from lgag_jax.geo import vector_paths
from lgag_jax.imagery import band_notes, tables
from lgag_jax.imagery.band_notes import BandNotes
from lgag_jax.inputs.splits import TILE_COLUMNS
from lgag_jax.options.tiling import NO_DATA, UNKNOWN_LABEL, Settings
from lgag_jax.runtime import files
from lgag_jax.tiling import labels, tile_labels

_SPLITS = ("train", "validation")
_FOOTPRINT_FIELDS = ("label", "split", "image", "scene", "row", "col")
_CONFIG = "configs/image_folder.py"
_NAMED_TILES = 20


@dataclasses.dataclass(frozen=True)
class Row:
  """A tile, written or skipped."""

  scene: str
  row: int
  col: int
  label: str  # A class, the background, UNKNOWN_LABEL or NO_DATA.
  split: str  # "train", "validation", or "" for a tile on the border between them or in the buffer.
  image: str  # File name, "" for a skipped tile.
  mask: str  # File name, "" without a mask.
  corners: np.ndarray | None  # f64[4, 2] in the scene's coordinates, None if it has none.
  crs: CRS | None
  landslide_fraction: float | None = None  # Of the known pixels; None without a mask, or if few are.


def write_raster(
  folder: pathlib.Path, name: str, pixels: np.ndarray, transform: Affine | None, crs: CRS | None,
  notes: Sequence[BandNotes] = (),
) -> str:
  """Writes pixels [h, w, c] and returns the file's name below `folder`."""
  height, width, count = pixels.shape
  profile = {"height": height, "width": width, "count": count, "dtype": pixels.dtype}
  if transform is None and pixels.dtype == np.uint8 and count in (1, 3):
    name, profile = f"{name}.png", {**profile, "driver": "PNG"}
  else:
    # Without MINISBLACK, GDAL takes a fourth band for alpha.
    colours = "RGB" if count == 3 and pixels.dtype == np.uint8 else "MINISBLACK"
    georeference = {} if transform is None else {"transform": transform, "crs": crs}
    profile |= {"driver": "GTiff", "compress": "deflate", "photometric": colours, **georeference}
    name = f"{name}.tif"
  (folder / name).parent.mkdir(exist_ok=True)
  # Written in memory first, since GDAL may not report a full disk.
  with rasterio.MemoryFile() as memory:
    with memory.open(**profile) as raster:
      raster.write(np.moveaxis(pixels, -1, 0))
      band_notes.write_added(raster, notes)
    (folder / name).write_bytes(memory.read())
  return name


def write_manifest(rows: list[Row], path: pathlib.Path) -> None:
  """Writes the manifest of the written tiles, which `inputs.splits` reads."""
  with path.open("w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file)
    writer.writerow(TILE_COLUMNS)
    writer.writerows(
      [tables.cell(getattr(row, name)) for name in TILE_COLUMNS] for row in rows if row.image
    )


def write_footprints(rows: list[Row], path: pathlib.Path) -> None:
  """Writes the outlines of all tiles, also skipped ones; one layer per coordinate reference system."""
  groups: dict[str, list[Row]] = collections.defaultdict(list)
  for row in rows:
    if row.corners is not None:
      groups[row.crs.to_wkt() if row.crs else ""].append(row)
  for number, (crs, members) in enumerate(groups.items(), 1):
    layer = "tiles" if number == 1 else f"tiles_{number}"
    corners = np.array([row.corners for row in members])
    columns = {name: [getattr(row, name) for row in members] for name in _FOOTPRINT_FIELDS}
    write_outlines(path, layer, crs, corners, columns)


def write_outlines(
  path: pathlib.Path, layer: str, crs: str, corners: np.ndarray, columns: dict[str, list]
) -> None:
  """Adds a layer of outlines to a GeoPackage: corners f64[n, 4, 2], and fields of text or integers.

  `crs` is WKT, or "" for none. Raises OSError naming the file if it cannot be written.
  """
  try:
    with vector_paths.plain_folder(path.parent) as folder:
      _write_layer(folder / path.name, layer, crs, corners, columns)
      info = pyogrio.read_info(folder / path.name, layer=layer, force_feature_count=True)
    if info["features"] != len(corners):  # GDAL does not report that the disk is full.
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
  except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
    raise files.write_error(path, error) from error


def _write_layer(
  path: pathlib.Path, layer: str, crs: str, corners: np.ndarray, columns: dict[str, list]
) -> None:
  data = [
    np.array(values, np.int32 if isinstance(values[0], int) else object) for values in columns.values()
  ]
  with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="'crs' was not provided")
    pyogrio.raw.write(
      path, shapely.to_wkb(shapely.polygons(corners)), data, list(columns), crs=crs or None,
      driver="GPKG", geometry_type="Polygon", layer=layer,
    )


def summary(rows: list[Row], settings: Settings) -> str:
  """Returns a table with the number of tiles per label and split, and warnings about them."""
  counts = collections.Counter((row.label, row.split) for row in rows)
  width = max(map(len, (*settings.classes, settings.background))) + 2
  lines = ["".join([" " * width, *(f"{head:>14}" for head in (*_SPLITS, "near a border"))])]
  for label in (*settings.classes, settings.background, UNKNOWN_LABEL, NO_DATA):
    lines.append(f"{label:{width}}" + "".join(f"{counts[label, s]:14d}" for s in (*_SPLITS, "")))
  lines.append(
    f"{len(rows)} tiles in all. Tiles of a class or the background in train or validation are written. "
    "The label unknown means: too little landslide, too near a landslide, several classes, or no label."
  )
  if fraction := _median_fraction(rows, settings):
    lines.append(f"Landslides cover {100 * fraction:.3g} % of the median positive training tile.")
  warnings = [*_warnings(counts, settings), *_unused_labels(rows, settings)]
  return "\n".join([*lines, *(f"WARNING: {text}" for text in warnings)])


def _unused_labels(rows: list[Row], settings: Settings) -> list[str]:
  """Returns a warning that names the tiles whose own labels are not used."""
  unused = [row for row in rows if row.label not in (UNKNOWN_LABEL, NO_DATA) and not row.split]
  if not unused or not tile_labels.are_of_tiles(pathlib.Path(settings.labels), settings):
    return []
  counts = collections.Counter(row.label for row in unused)
  places = ", ".join(f"{row.scene} {row.row},{row.col}" for row in unused[:_NAMED_TILES])
  more = ", ..." if len(unused) > _NAMED_TILES else ""
  labels = " and ".join(f"{n} {label}" for label, n in counts.items())
  return [
    f"the labels of {len(unused)} tiles near a border between training and validation are not used: "
    f"{labels} (scene, row, column: {places}{more}). Use --block_buffer=0 to keep them."
  ]


def _warnings(counts: collections.Counter, settings: Settings) -> list[str]:
  warnings = []
  if settings.validation_fraction == 0:
    warnings.append(
      "there is no validation split, but training needs one: add rows with the split validation to "
      "manifest.csv."
    )
  for label in (*settings.classes, settings.background):
    missing = [s for s in _SPLITS if not counts[label, s]]
    if settings.validation_fraction == 0:
      missing = [s for s in missing if s != "validation"]
    if not missing:
      continue
    if label == settings.background and not any(counts[label, s] for s in (*_SPLITS, "")):
      warnings.append(
        f"there are no negatives ({label}), but training needs them: use smaller tiles (--tile_size), "
        "a smaller --unknown_buffer, or more scenes of the same terrain without landslides."
      )
      continue
    remedy = "use a smaller --block_buffer or another --block_size to keep more tiles"
    if not any(counts[label, s] for s in (*_SPLITS, "")):
      remedy = (
        "check that the labels lie in the scene. A smaller --min_fraction makes more tiles positive"
      )
    warnings.append(f"{label} is missing in {' and '.join(missing)}: {remedy}.")
  return warnings


def _median_fraction(rows: list[Row], settings: Settings) -> float:
  """Returns the median landslide fraction of positive tiles; 0 without masks or for several classes."""
  fractions = [
    row.landslide_fraction for row in rows
    if row.split == "train" and row.landslide_fraction is not None
  ]
  if not fractions or len(settings.classes) > 1:
    return 0.0
  return float(np.median(fractions))


def command(settings: Settings, channels: int, added: Sequence[int] = ()) -> str:
  """Returns the command that trains on the output; `added` are the bands that lgag has added."""
  workdir = f"--workdir=runs/{pathlib.Path(settings.output).name}"
  flags = training_flags(settings, channels, added)
  return shlex.join(["python", "-m", "lgag_jax.main", *flags, workdir])


def training_flags(
  settings: Settings, channels: int, added: Sequence[int] = (), config: str = _CONFIG
) -> list[str]:
  """Returns the flags that train on the output by a config file, all but --workdir."""
  data = {"directory": settings.output, "mask_ignore": 255}
  if channels != 3:
    data["channels"] = channels
  if settings.before:
    data["before"] = "before"
  if settings.classes != Settings.classes:
    data["classes"] = repr(settings.classes)
  if settings.background != Settings.background:
    data["background"] = settings.background
  fields = {f"data.{name}": value for name, value in data.items()}
  if added:
    fields["model.evidence_bands"] = ",".join(map(str, added))
  if labels.are_drawn(settings):
    fields["loss.drawn_pixel_weight"] = 1.0
  words = [f"--config.{name}={value}" for name, value in fields.items()]
  return [f"--config={config}", *words]
