"""Makes images of an area, and static STAC catalogues of them, for the tests of --mode=map."""

import datetime
import json

import numpy as np
import pystac
import rasterio
import rasterio.shutil
import shapely
from affine import Affine
from rasterio.warp import transform_geom

from data.synthetic_landslides import drawing
from tests.untrained import GSD

EPSG = 32645  # Nepal.
WEST, NORTH = 640_000, 3_080_000  # Of the ground.
SIDE = 160  # Of an image, in pixels.
NAMES = ("red", "green", "blue")


def ground(rows, cols):
  """Returns drawn ground u8[rows, cols, 3], the same each time."""
  draw = lambda seed: drawing.draw_patch(seed, size=128, landslide=True)[0]
  tiles = [
    [draw(7 + 10 * row + col) for col in range(-(-cols // 128))] for row in range(-(-rows // 128))
  ]
  whole = np.concatenate([np.concatenate(row, axis=1) for row in tiles])
  return whole[:rows, :cols]


def write_cog(path, values, *, epsg=EPSG, west=WEST, north=NORTH, gsd=GSD, nodata=None, **options):
  """Writes an array [h, w] or [h, w, bands] as a COG; returns the path."""
  values = values[..., None] if values.ndim == 2 else values
  path.parent.mkdir(parents=True, exist_ok=True)
  draft = path.with_suffix(".draft.tif")
  with rasterio.open(
    draft, "w", driver="GTiff", height=values.shape[0], width=values.shape[1], count=values.shape[2],
    dtype=values.dtype, crs=f"EPSG:{epsg}", nodata=nodata,
    transform=Affine(gsd, 0, west, 0, -gsd, north),
  ) as raster:
    raster.write(np.moveaxis(values, -1, 0))
    if "scale" in options:
      raster.scales, raster.offsets = ([options[k]] * raster.count for k in ("scale", "offset"))
  rasterio.shutil.copy(draft, path, driver="COG", blocksize=128, compress="DEFLATE")
  draft.unlink()
  return path


def item(name, paths, folder, *, day=1, cloud=0.0, epsg=EPSG, collection="ground", bands=None):
  """Returns a STAC item of COGs, {asset: path}, with addresses relative to `folder`."""
  with rasterio.open(next(iter(paths.values()))) as raster:
    outline = shapely.geometry.mapping(shapely.box(*raster.bounds))
  geometry = transform_geom(f"EPSG:{epsg}", "EPSG:4326", outline)
  made = pystac.Item(
    name, geometry, list(shapely.geometry.shape(geometry).bounds),
    datetime.datetime(2015, 5, day, 12, tzinfo=datetime.UTC), {"eo:cloud_cover": cloud},
    collection=collection,
  )
  for key, path in paths.items():
    href = f"./{path.relative_to(folder)}"
    asset = pystac.Asset(href, media_type=pystac.MediaType.COG, roles=["data"])
    if bands:
      asset.extra_fields["bands"] = bands.get(key, [])
    made.add_asset(key, asset)
  return made


def write_catalogue(folder, items):
  """Writes items and a catalogue of them; returns the catalogue's path."""
  links = []
  for one in items:
    content = one.to_dict(include_self_link=False, transform_hrefs=False)
    (folder / f"{one.id}.json").write_text(json.dumps(content))
    links.append({"rel": "item", "href": f"./{one.id}.json"})
  path = folder / "catalog.json"
  path.write_text(json.dumps({
    "type": "Catalog", "stac_version": "1.1.0", "id": "area", "description": "Test.", "links": links,
  }))
  return path


def tiles(folder, rows=2, cols=2, *, nodata=None, hole=None):
  """Writes images side by side, a COG per band, and their catalogue; returns its path.

  `hole`, (row, column, side), is a square of `nodata` in the whole ground.
  """
  values = ground(rows * SIDE, cols * SIDE).copy()
  if hole:
    row, col, side = hole
    values[row : row + side, col : col + side] = nodata
  items = []
  for row in range(rows):
    for col in range(cols):
      part = values[row * SIDE : (row + 1) * SIDE, col * SIDE : (col + 1) * SIDE]
      place = {"west": WEST + col * SIDE * GSD, "north": NORTH - row * SIDE * GSD}
      name = f"tile_{row}_{col}"
      paths = {
        key: write_cog(folder / name / f"{key}.tif", part[..., band], nodata=nodata, **place)
        for band, key in enumerate(NAMES)
      }
      items.append(item(name, paths, folder, day=1 + row * cols + col))
  return write_catalogue(folder, items)
