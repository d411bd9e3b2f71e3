"""Chooses the bands of an image, and its cloud mask, by the keys of STAC assets, names or numbers."""

import contextlib
import math
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pystac

from lgag_jax.catalogues.images import Band, CloudMask
from lgag_jax.imagery import cloud_kinds
from lgag_jax.options.area import Imagery

_HIDDEN_ROLES = {"thumbnail", "overview", "metadata"}
_DEFAULT_KEY = "visual"
_BITS = "qa_pixel"
# Properties by which Earth Search says that its GeoTIFFs of Sentinel-2 already have the offset that it
# still states for them.
_HAS_OFFSET = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")


def choose(
  item: pystac.Item, names: Sequence[str], channels: int, resolve: Callable[[str], str]
) -> tuple[Band, ...]:
  """Returns the bands of an item in the model's order; raises ValueError naming an item without them.

  `resolve` makes an asset's address absolute. Without names, the first `channels` bands of the only
  image are used, or of the asset "visual". Numbers are those of bands in that file.
  """
  if not names or all(name.isdigit() for name in names):
    asset = _only_image(item)
    numbers = [int(name) for name in names] or list(range(1, channels + 1))
    entries = _entries(asset)
    return tuple(
      _band(asset, number, entries[number - 1] if number <= len(entries) else {}, resolve)
      for number in numbers
    )
  return tuple(_named(item, name, resolve) for name in names)


def cloud_mask_of(
  item: pystac.Item, settings: Imagery, resolve: Callable[[str], str]
) -> CloudMask | None:
  """Returns the first cloud mask that an item has, by the keys of assets in small letters or capitals.

  Raises ValueError naming one whose values mean nothing that is known.
  """
  assets = {str(key).lower(): (key, asset) for key, asset in item.assets.items()}
  for name in settings.cloud_mask:
    if name.lower() not in assets:
      continue
    key, asset = assets[name.lower()]
    file = pathlib.PurePosixPath(asset.href.partition("?")[0]).name
    kinds = cloud_kinds.named(key) or cloud_kinds.named(file)
    if settings.cloud_classes and kinds == [_BITS]:
      raise ValueError(
        f"item {item.id}: {key} holds bits, not the values of --cloud_classes: leave this flag out."
      )
    if not settings.cloud_classes and len(kinds) != 1:
      raise ValueError(
        f"item {item.id}: {key} is neither SCL of Sentinel-2 nor QA_PIXEL of Landsat by its name. Say "
        "which of its values count as nodata, such as --cloud_classes=2,4."
      )
    return CloudMask(resolve(asset.href), kinds[0] if len(kinds) == 1 else "")
  return None


def _only_image(item: pystac.Item) -> pystac.Asset:
  images = {
    key: asset for key, asset in item.assets.items()
    if _is_tiff(asset) and not _HIDDEN_ROLES.intersection(asset.roles or ())
  }
  key = _DEFAULT_KEY if _DEFAULT_KEY in images else next(iter(images), "")
  if not images or (len(images) > 1 and key != _DEFAULT_KEY):
    raise ValueError(
      f"item {item.id} has {len(images)} GeoTIFFs among its assets "
      f"({', '.join(map(str, item.assets)) or 'none'}). "
      "Name the model's bands, such as --assets=red,green,blue."
    )
  return images[key]


def _is_tiff(asset: pystac.Asset) -> bool:
  if (asset.media_type or "").lower().startswith("image/tiff"):
    return True
  paths = asset.href.lower(), asset.href.partition("?")[0].lower()  # A name may hold a "?", too.
  return any(path.endswith((".tif", ".tiff")) for path in paths)


def _named(item: pystac.Item, name: str, resolve: Callable[[str], str]) -> Band:
  if name in item.assets:
    asset = item.assets[name]
    entries = _entries(asset)
    if len(entries) > 1:
      known = [entry.get("name") or entry.get("common_name") or "?" for entry in entries]
      raise ValueError(
        f"item {item.id}: the asset {name} has {len(entries)} bands: {', '.join(map(str, known))}. "
        "Name one of them with --assets."
      )
    return _band(asset, 1, next(iter(entries), {}), resolve)
  matches = list(_bands_called(item, name))
  if not matches:
    known = [*item.assets, *dict.fromkeys(label for *_, labels in _all_bands(item) for label in labels)]
    raise ValueError(
      f"item {item.id} has no asset or band {name!r}: it has {', '.join(dict.fromkeys(known))}. Choose "
      "others with --assets, or leave such items out with --collections."
    )
  # Of a picture and a file of the one band, the file.
  asset, number, entry = min(matches, key=lambda match: len(_entries(match[0])))
  return _band(asset, number, entry, resolve)


def _bands_called(item: pystac.Item, name: str) -> Iterator[tuple[pystac.Asset, int, dict]]:
  for asset, number, entry, labels in _all_bands(item):
    if name in labels and _is_tiff(asset):
      yield asset, number, entry


def _all_bands(item: pystac.Item) -> Iterator[tuple[pystac.Asset, int, dict, list[str]]]:
  for asset in item.assets.values():
    for number, entry in enumerate(_entries(asset), 1):
      labels = [entry.get(key) for key in ("name", "common_name", "eo:common_name")]
      yield asset, number, entry, [label for label in labels if isinstance(label, str)]


def _entries(asset: pystac.Asset) -> list[dict[str, Any]]:
  """Returns what an item says of each band: STAC 1.1 in one list, 1.0 in one per extension."""
  lists = [asset.extra_fields.get(key) for key in ("bands", "eo:bands", "raster:bands")]
  lists = [
    [entry for entry in entries if isinstance(entry, dict)] for entries in lists
    if isinstance(entries, list)
  ]
  count = max(map(len, lists), default=0)
  merged: list[dict[str, Any]] = [{} for _ in range(count)]
  for entries in lists:
    for target, entry in zip(merged, entries, strict=False):
      target.update(entry)
  return merged


def _band(asset: pystac.Asset, number: int, entry: dict, resolve: Callable[[str], str]) -> Band:
  item = asset.owner.properties if isinstance(asset.owner, pystac.Item) else {}
  numbers = {}
  for field, keys in (
    ("scale", ("scale", "raster:scale")), ("offset", ("offset", "raster:offset")),
    ("nodata", ("nodata",)),
  ):
    sources = (entry, asset.extra_fields, item)
    values = [source[key] for source in sources for key in keys if source.get(key) is not None]
    numbers[field] = _number(values[0], field, asset) if values else None
  if _is_tiff(asset) and any(item.get(name) is True for name in _HAS_OFFSET):
    numbers["offset"] = 0.0
  return Band(resolve(asset.href), number, **numbers)


def _number(value: Any, field: str, asset: pystac.Asset) -> float | None:
  """Returns a number of a catalogue, in which nodata may be the text "nan" or "none".

  Raises ValueError naming the asset: without the number its values would be wrong.
  """
  if field == "nodata" and str(value).strip().lower() in ("", "none", "null"):
    return None
  number = None
  if isinstance(value, int | float | str) and not isinstance(value, bool):
    with contextlib.suppress(ValueError, OverflowError):
      number = float(value)
  if number is None or (field != "nodata" and not math.isfinite(number)) or (
    field == "scale" and number == 0
  ):
    name = asset.owner.id if isinstance(asset.owner, pystac.Item) else ""
    raise ValueError(
      f"item {name}: {asset.href[:200]!r} has the {field} {str(value)[:80]!r}, which is none. Correct "
      "it in the catalogue."
    )
  return number
