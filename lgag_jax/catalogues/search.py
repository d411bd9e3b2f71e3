"""Finds the images to map: reads a catalogue or a list, and filters it."""

import dataclasses
import datetime
import logging
import math
import pathlib
from collections.abc import Sequence

import pystac
from shapely.geometry.base import BaseGeometry

from lgag_jax.catalogues import addresses, areas, asset_bands, image_lists, stac
from lgag_jax.catalogues.images import Image, in_order
from lgag_jax.options.area import Imagery
from lgag_jax.runtime import printable

_LOG = logging.getLogger(__name__)

_CATALOGUE_SUFFIXES = (".json", ".geojson")
_IMAGE_SUFFIXES = (".tif", ".tiff", ".txt")
_CATALOGUE_NAMES = ("catalog.json", "collection.json")


def find_images(
  source: str, area: BaseGeometry | None, channels: int, settings: Imagery
) -> list[Image]:
  """Returns the images of `source` on `area` that pass the filters, in the order of the composite.

  With --before_dates, the images before the event follow those after it.
  `source` is a STAC catalogue, collection, item or API, an image, a list (.txt), a folder or a glob.
  Raises ValueError if none passes, and AddressError if a local file names one at a server.
  """
  if settings.assets and len(settings.assets) != channels:
    raise ValueError(f"--assets={','.join(settings.assets)}: the model needs {channels} bands.")
  images = _find(source, area, channels, settings, "dates")
  if not settings.before_dates:
    return images
  earlier = dataclasses.replace(settings, dates=settings.before_dates, before_dates="")
  before = _find(source, area, channels, earlier, "before_dates")
  return [*images, *(dataclasses.replace(image, before=True) for image in before)]


def _find(
  source: str, area: BaseGeometry | None, channels: int, settings: Imagery, dates: str
) -> list[Image]:
  """Returns the images of one date; `dates` is the name of the flag that says which."""
  path = pathlib.Path(source)
  if addresses.is_remote(source):
    addresses.require_no_password(source)
  elif path.is_dir():
    inside = [path / name for name in _CATALOGUE_NAMES if (path / name).is_file()]
    source = str(inside[0]) if inside else source
  if _is_catalogue(source):
    images, total = _from_stac(source, area, channels, settings)
    if not total:
      raise ValueError(f"--input={source} holds no item, or its search gives none: name another one.")
  else:
    _refuse_filters(settings)
    found = image_lists.listed_addresses(source, settings)
    images, total = image_lists.read_images(found, channels, settings), len(found)
  images = [image for image in images if area is None or image.footprint.intersects(area)]
  if not images:
    raise ValueError(
      f"--input={source}: none of {total} images passes --area, --{dates}, --max_cloud and "
      "--collections."
    )
  return in_order(images, settings.composite)


def area_of(path: str) -> BaseGeometry | None:
  """Returns the area that --area names; None if it is empty."""
  return areas.read_area(pathlib.Path(path)) if path else None


def _is_catalogue(source: str) -> bool:
  if addresses.is_remote(source):
    return not source.partition("?")[0].lower().endswith(_IMAGE_SUFFIXES)
  return source.lower().endswith(_CATALOGUE_SUFFIXES)


def _refuse_filters(settings: Imagery) -> None:
  default = Imagery()
  for name in ("dates", "collections", "max_cloud", "cloud_mask", "cloud_classes"):
    if getattr(settings, name) not in (getattr(default, name), ()):
      raise ValueError(f"--{name} needs a STAC catalogue as --input: files do not state it.")
  if settings.composite == "least_cloud":
    raise ValueError(
      "--composite=least_cloud needs a STAC catalogue as --input: files do not state their clouds."
    )


def _from_stac(
  source: str, area: BaseGeometry | None, channels: int, settings: Imagery
) -> tuple[list[Image], int]:
  """Returns the images of the items that pass the filters, and the number of items read."""
  absolute = source if addresses.is_remote(source) else str(pathlib.Path(source).absolute())
  allow_remote = addresses.is_remote(source) or settings.remote
  images, seen, count, unplaced = [], set(), 0, []
  for item, base in stac.read_items(absolute, area, settings):
    count += 1
    try:
      if not _passes(item, settings, base):
        continue
      if item.geometry is None:
        unplaced.append(item.id)
        continue
      if area is not None and not _footprint(item, base).intersects(area):
        continue
      resolve = lambda href, base=base: addresses.resolve(href, base, allow_remote=allow_remote)
      image = _image(item, channels, settings, resolve, base)
      # Without a collection nothing keeps two items from having one id, so their files count, too.
      identity = (item.collection_id, item.id, _files(image))
      if identity not in seen:
        images.append(image)
      seen.add(identity)
    except (TypeError, AttributeError, LookupError) as error:  # Of values of types that STAC has not.
      raise ValueError(
        f"{base}: the item {str(item.id)[:80]!r} is not STAC: {error!r:.200}. Restore it."
      ) from error
  _warn_of_clouds(images, settings)
  if unplaced:
    _LOG.warning(
      "%d items state no outline (geometry is null) and are skipped, such as %s. Add their outlines to "
      "the catalogue, or give --input a list of their images.", len(unplaced), unplaced[0],
    )
  return images, count


def _warn_of_clouds(images: Sequence[Image], settings: Imagery) -> None:
  is_asked = settings.cloud_mask != Imagery().cloud_mask  # Then unknown clouds are worth a word, too.
  clouded = sum(
    image.clouds is None and (is_asked if image.cloud_cover is None else image.cloud_cover != 0)
    for image in images
  )
  if clouded and settings.cloud_mask:
    _LOG.warning(
      "%d of %d images have clouds (eo:cloud_cover)%s, but no asset %s. Their clouds count as ground: "
      "name their cloud mask with --cloud_mask.",
      clouded, len(images), " or may have some" if is_asked else "", " or ".join(settings.cloud_mask),
    )


def _image(item: pystac.Item, channels: int, settings: Imagery, resolve, base: str) -> Image:
  try:
    bands = asset_bands.choose(item, settings.assets, channels, resolve)
    clouds = asset_bands.cloud_mask_of(item, settings, resolve)
  except addresses.AddressError:
    raise
  except ValueError as error:
    raise ValueError(f"{base}: {error}") from error
  files = dict.fromkeys(file.address for file in (*bands, *([clouds] if clouds else ())))
  version = [str(item.properties.get("updated", "")), *map(image_lists.file_version, files)]
  return Image(
    item.id, bands, _footprint(item, base), _time(item, base), _cloud_cover(item), clouds,
    printable.without_queries(base), "\n".join(version),
  )


def _files(image: Image) -> tuple[str, ...]:
  return tuple(addresses.identity(band.address) for band in image.bands)


def _footprint(item: pystac.Item, base: str) -> BaseGeometry:
  try:
    return areas.polygon_of(item.geometry)
  except areas.UNREADABLE as error:
    raise ValueError(
      f"{base}: the item {str(item.id)[:80]!r} has no outline that can be used: {error!s:.200}. "
      "Restore or remove the item."
    ) from error


def _passes(item: pystac.Item, settings: Imagery, base: str) -> bool:
  if settings.collections and item.collection_id not in settings.collections:
    return False
  if settings.days and not _lies_in(settings.days, *_times(item, base)):
    return False
  cover = _cloud_cover(item)
  return settings.max_cloud >= 100 or (cover is not None and cover <= settings.max_cloud)


def _lies_in(
  days: tuple[datetime.date, datetime.date], first: datetime.datetime | None,
  last: datetime.datetime | None,
) -> bool:
  """Returns whether all of a time lies in some days: a mosaic of both dates of a pair is neither."""
  return first is not None and last is not None and days[0] <= first.date() and last.date() <= days[1]


def _time(item: pystac.Item, base: str) -> datetime.datetime | None:
  """Returns the time of an item, or the first one of a range, in UTC; None if it states none."""
  return _in_utc(item.datetime) if item.datetime else _times(item, base)[0]


def _times(
  item: pystac.Item, base: str
) -> tuple[datetime.datetime | None, datetime.datetime | None]:
  """Returns the first and the last time that an item shows, in UTC; None if it states none."""
  try:
    common = item.common_metadata
    times = common.start_datetime or item.datetime, common.end_datetime or item.datetime
  except ValueError as error:
    raise ValueError(
      f"{base}: the item {str(item.id)[:80]!r} has a time that cannot be read: {error!s:.200}. "
      "Restore it."
    ) from error
  first, last = (time and _in_utc(time) for time in times)
  return first, last


def _in_utc(time: datetime.datetime) -> datetime.datetime:
  return time.replace(tzinfo=datetime.UTC) if time.tzinfo is None else time.astimezone(datetime.UTC)


def _cloud_cover(item: pystac.Item) -> float | None:
  """Returns the cloud cover in percent; None for an item that states no number."""
  value = item.properties.get("eo:cloud_cover")
  if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
    return None
  return float(value)
