"""What --mode=tile writes: tiles, their manifest, their outlines for a GIS, and words about them."""

import collections
import csv
import dataclasses
import pathlib
import shlex
import warnings

import numpy as np
import pyogrio
import rasterio
import shapely
from affine import Affine
from rasterio.crs import CRS

from lgag_jax import methods
from lgag_jax.options.tiling import NO_DATA, UNKNOWN, Settings

_COLUMNS = ("image", "mask", "split", "label", "scene", "row", "col")  # Of the manifest.
_SPLITS = ("train", "validation")


@dataclasses.dataclass(frozen=True)
class Row:
  """A tile as the manifest has it; image and mask are "" for one that is left out, or has no mask."""

  scene: str
  row: int
  col: int
  label: str  # A class, the background, UNKNOWN or NO_DATA.
  split: str  # "train", "validation", or "" on a border between them or within the buffer.
  image: str
  mask: str
  corners: np.ndarray | None  # f64[4, 2] in the scene's coordinates, None where it has none.
  crs: CRS | None
  share: float | None = None  # Of its known pixels that a mask gives a class, if it has a mask.


def write_raster(
  folder: pathlib.Path, name: str, pixels: np.ndarray, transform: Affine | None, crs: CRS | None
) -> str:
  """Writes pixels [h, w, c] and returns the file's name below `folder`."""
  height, width, count = pixels.shape
  profile = {"height": height, "width": width, "count": count, "dtype": pixels.dtype}
  if transform is None and pixels.dtype == np.uint8 and count in (1, 3):
    name, profile = f"{name}.png", {**profile, "driver": "PNG"}
  else:
    # Without, GDAL takes a fourth band for alpha.
    colours = "RGB" if count == 3 and pixels.dtype == np.uint8 else "MINISBLACK"
    place = {} if transform is None else {"transform": transform, "crs": crs}
    profile |= {"driver": "GTiff", "compress": "deflate", "photometric": colours, **place}
    name = f"{name}.tif"
  (folder / name).parent.mkdir(exist_ok=True)
  # In memory first: GDAL may keep a full disk to itself.
  with rasterio.MemoryFile() as memory:
    with memory.open(**profile) as raster:
      raster.write(np.moveaxis(pixels, -1, 0))
    (folder / name).write_bytes(memory.read())
  return name


def write_manifest(rows: list[Row], path: pathlib.Path) -> None:
  """Writes the tiles that there are files of, as `splits` reads it."""
  with path.open("w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file)
    writer.writerow(_COLUMNS)
    writer.writerows([getattr(row, name) for name in _COLUMNS] for row in rows if row.image)


def write_footprints(rows: list[Row], path: pathlib.Path) -> None:
  """Writes every tile's outline; a layer for each reference system that there is."""
  groups: dict[str, list[Row]] = collections.defaultdict(list)
  for row in rows:
    if row.corners is not None:
      groups[row.crs.to_wkt() if row.crs else ""].append(row)
  for number, (crs, members) in enumerate(groups.items(), 1):
    fields = ["label", "split", "image", "scene", "row", "col"]
    with warnings.catch_warnings():
      warnings.filterwarnings("ignore", message="'crs' was not provided")
      pyogrio.raw.write(
        path, shapely.to_wkb(shapely.polygons(np.array([row.corners for row in members]))),
        [_column(members, name) for name in fields], fields,
        crs=crs or None, driver="GPKG", geometry_type="Polygon",
        layer="tiles" if number == 1 else f"tiles_{number}",
      )


def _column(rows: list[Row], name: str) -> np.ndarray:
  values = [getattr(row, name) for row in rows]
  return np.array(values, np.int32 if isinstance(values[0], int) else object)


def summary(rows: list[Row], settings: Settings) -> str:
  """Returns a table of how many tiles there are of each label and split, and what to think of it."""
  counts = collections.Counter((row.label, row.split) for row in rows)
  width = max(map(len, (*settings.classes, settings.background))) + 2
  lines = ["".join([" " * width, *(f"{head:>14}" for head in (*_SPLITS, "near a border"))])]
  for label in (*settings.classes, settings.background, UNKNOWN, NO_DATA):
    lines.append(f"{label:{width}}" + "".join(f"{counts[label, s]:14d}" for s in (*_SPLITS, "")))
  lines.append(
    f"Of {len(rows)} tiles. Written are those of a class or none in training and validation; unknown: "
    "too little landslide, too near to one, of several classes, or not labelled."
  )
  if share := _median_share(rows, settings):
    much = " The command below sets what suits that much." if share >= methods.CLOSE_UP_SHARE else ""
    lines.append(f"Landslides fill {100 * share:.3g} % of the median positive training tile.{much}")
  return "\n".join([*lines, *(f"WARNING: {text}" for text in _warnings(counts, settings))])


def _warnings(counts: collections.Counter, settings: Settings) -> list[str]:
  found = []
  if settings.validation_fraction == 0:
    found.append(
      "there is no validation part, and training needs one: add rows of the split validation to "
      "manifest.csv."
    )
  for label in (*settings.classes, settings.background):
    missing = [s for s in _SPLITS if not counts[label, s]]
    if settings.validation_fraction == 0:
      missing = [s for s in missing if s != "validation"]
    if not missing:
      continue
    if label == settings.background and not any(counts[label, s] for s in (*_SPLITS, "")):
      found.append(
        f"there are no negatives ({label}), and training needs them: smaller tiles (--tile_size), a "
        "smaller --unknown_buffer, or more scenes of the same terrain without landslides."
      )
      continue
    reason = "smaller --block_buffer or another --block_size keeps more tiles"
    if not any(counts[label, s] for s in (*_SPLITS, "")):
      reason = (
        "do the labels lie in the scene, and do they mean what they should (--mask_ignore=-1 for masks "
        "whose landslides are 255)? A smaller --min_fraction makes more tiles positive"
      )
    found.append(f"{label} is missing in {' and '.join(missing)}: {reason}.")
  return found


def _median_share(rows: list[Row], settings: Settings) -> float:
  """Returns 0 where no masks, or several classes, leave it open."""
  shares = [row.share for row in rows if row.share is not None and row.split == "train"]
  return float(np.median(shares)) if shares and len(settings.classes) == 1 else 0.0


def command(rows: list[Row], settings: Settings, channels: int) -> str:
  """Returns the command that trains on the output."""
  data = {"directory": settings.output, "mask_ignore": 255}
  if channels != 3:
    data["channels"] = channels
  if settings.classes != Settings.classes:
    data["classes"] = repr(settings.classes)
  if settings.background != Settings.background:
    data["background"] = settings.background
  changed = {f"data.{name}": value for name, value in data.items()}
  if _median_share(rows, settings) >= methods.CLOSE_UP_SHARE:
    changed |= methods.CLOSE_UP
  words = [f"--config.{name}={value}" for name, value in changed.items()]
  return shlex.join([
    "python", "-m", "lgag_jax.main", "--config=configs/image_folder.py", *words,
    f"--workdir=runs/{pathlib.Path(settings.output).name}",
  ])
