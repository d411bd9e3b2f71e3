"""Refuses rasters of lgag's own maps where masks are asked for: only a map's mask is one.

Any other value than zero would count as a landslide, a probability of one percent, too.
"""

import pathlib
import shlex

import numpy as np

from lgag_jax.imagery import map_products
from lgag_jax.imagery.opening import ImageError, error_context
from lgag_jax.imagery.orientation import Raster

_MASK = "mask"
_PERCENT_NODATA = 255  # In a probability of whole percent.
_DENSITY = ("mapped_share", "landslides_per_km2")  # The bands of `mapping.density`.


def refuse_other_than_masks(path: pathlib.Path, raster: Raster) -> None:
  """Raises ImageError if a file is a product of mapping other than a mask, or a copy of one."""
  (product, names), remedy = _texts(path, raster), ""
  if product in map_products.PRODUCT_FOLDERS:
    remedy = f" If you have made a mask of it: gdal_edit.py -unsetmd {shlex.quote(str(path))}"
  elif map_products.is_product(path):
    product = path.absolute().parent.name
  else:
    product = "density" if names == _DENSITY else ""
  if product not in ("", _MASK):
    raise _error(path, product, remedy)


def refuse_probabilities(path: pathlib.Path, raster: Raster, classes: tuple[str, ...]) -> None:
  """Raises ImageError for a copy of a map's probability by an earlier release, which has no tag.

  Its bands have the names of the classes, and it holds percent or fractions.
  """
  if _texts(path, raster) != ("", classes):
    return
  nodata, is_float = raster.nodata, np.issubdtype(raster.dtypes[0], np.floating)
  if not is_float and (raster.dtypes[0] != "uint8" or nodata != _PERCENT_NODATA):
    return
  for _, window in raster.block_windows(1):
    with error_context(path):
      values = raster.read(1, window=window)
    with np.errstate(invalid="ignore"):
      between = (values > 0) & (values < 1) if is_float else (values > 1) & (values <= 100)
    if between.any():
      raise _error(path, "probability")


def _texts(path: pathlib.Path, raster: Raster) -> tuple[str, tuple[str | None, ...]]:
  """Returns which product of a map a raster says that it is, "" for none, and its bands' names."""
  with error_context(path):
    return raster.tags().get(map_products.TAG, ""), tuple(raster.descriptions)


def _error(path: pathlib.Path, product: str, remedy: str = "") -> ImageError:
  return ImageError(
    f"{path} is no mask: it comes from the folder {product} of a map by lgag, and every value above 0 "
    f"would count as a landslide. Give the raster of its name from the folder mask, or the polygons."
    + remedy
  )
