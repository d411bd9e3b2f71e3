"""Splits regions at narrow necks, by which landslides that lie side by side are joined in a map.

Amalgamation makes few large polygons of many landslides, and biases their sizes: Marc, O. and Hovius,
N. (2015), Amalgamation in landslide maps, NHESS 15, 723-733. Regions are split by the marker-controlled
watershed of their distance transform (Vincent, L. and Soille, P. 1991, IEEE PAMI 13, 583-598). The
markers are what is left after an erosion by half the width of a neck, so each cut lies where a neck is
narrowest.
"""

import logging
from collections.abc import Iterable, Iterator

import numpy as np
import rasterio.features
import scipy.ndimage
import shapely
import skimage.segmentation
from affine import Affine

from lgag_jax.geo.grid import Grid
from lgag_jax.mapping import ground_measures, regions
from lgag_jax.mapping.rasters import MapRaster
from lgag_jax.mapping.regions import Regions

_LOG = logging.getLogger(__name__)

_MOST_PIXELS = 1 << 23  # Of the box around a region: the watershed takes some 35 bytes for each.
_EXACT = 1e-6  # Relative, of a width: distances are rounded.


def split(
  groups: Iterable[Regions], mask: MapRaster, probability: MapRaster, width: float, least: float
) -> Iterator[Regions]:
  """Yields regions, of which those with necks narrower than `width` metres are split.

  No part is smaller than `least` square metres. Both are in pixels if the scene has no place on the
  Earth; else the size of a pixel is that at the scene's centre. Together, the parts are the region.
  Regions in a box of more than 8 million pixels are not split; their number is logged.
  """
  grid, too_large = mask.grid, 0
  size = grid.pixel_size() or (1.0, 1.0)
  for group in groups:
    ground = group.pixels * size[0] * size[1]
    found: dict[int, Regions] = {}
    # Parts have room for a circle of the width of a neck, so that smaller regions cannot be split.
    for i in np.flatnonzero(ground >= max(width**2, least)).tolist():
      left, top, right, bottom = map(int, group.outlines[i].bounds)
      if (bottom - top) * (right - left) > _MOST_PIXELS:
        too_large += 1
        continue
      labels = _part_numbers(group.outlines[i], grid, size, width, least)
      if labels is not None:
        c = int(group.class_index[i])
        found[i] = regions.parts_of(labels, c, mask, probability, (top, left))
    yield _with_parts(group, found) if found else group
  if too_large:
    _LOG.warning(
      "%s: %d regions are too large to be split at necks (more than %d pixels around them), and stay "
      "whole. Split them by hand where it matters.", mask.path, too_large, _MOST_PIXELS,
    )


def _part_numbers(
  outline: shapely.Polygon, grid: Grid, size: tuple[float, float], width: float, least: float
) -> np.ndarray | None:
  """Returns the number of the part 1..N, N > 1, of each pixel in the box around an outline, i32[h, w].

  Returns None if the region stays whole. `size` is that of a pixel, along rows and along columns.
  """
  left, top, right, bottom = map(int, outline.bounds)
  inside = rasterio.features.geometry_mask(
    [shapely.geometry.mapping(outline)], (bottom - top, right - left), Affine.translation(left, top),
    invert=True,
  )
  distance = scipy.ndimage.distance_transform_edt(np.pad(inside, 1), sampling=size[::-1])
  distance = np.asarray(distance, np.float32)[1:-1, 1:-1]
  markers = np.zeros(inside.shape, np.int32)
  scipy.ndimage.label(distance >= width / 2 * (1 - _EXACT), np.ones((3, 3)), output=markers)
  count = int(markers.max())
  while count > 1:
    labels = skimage.segmentation.watershed(-distance, markers, mask=inside).astype(np.int32)
    large = ~(_areas(labels, grid, (top, left)) < least)
    if large.all():
      return labels
    count = int(np.count_nonzero(large))
    markers = np.concatenate([[0], np.cumsum(large) * large]).astype(np.int32)[markers]
  return None


def _areas(labels: np.ndarray, grid: Grid, corner: tuple[int, int]) -> np.ndarray:
  """Returns the areas of parts as `polygons.describe` has them; in pixels without a place."""
  if grid.to_wgs84() is None:
    return np.bincount(labels.ravel())[1:]
  outlines = np.array([one for (one,) in regions.outlines_of(labels, labels.max(), corner)], object)
  return ground_measures.areas_and_perimeters(outlines, grid)[0]


def _with_parts(group: Regions, found: dict[int, Regions]) -> Regions:
  """Returns a group in which the parts of some regions, by their number, are in place of these."""
  whole = np.setdiff1d(np.arange(len(group.pixels)), list(found))
  order = np.argsort(
    np.concatenate([whole, *(np.full(len(parts.pixels), i) for i, parts in found.items())]),
    kind="stable",
  )
  wholes = np.full(len(order), None, object)
  at = len(whole)
  for i, parts in found.items():
    wholes[at : at + len(parts.pixels)] = group.outlines[i]
    at += len(parts.pixels)
  joined = lambda name: np.concatenate(
    [getattr(group, name)[whole], *(getattr(parts, name) for parts in found.values())]
  )[order]
  names = ("class_index", "pixels", "known", "mean", "maximum", "touches_missing", "outlines")
  return Regions(**{name: joined(name) for name in names}, wholes=wholes[order])
