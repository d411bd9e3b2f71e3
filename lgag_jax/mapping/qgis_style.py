"""Styles (QML) that tell QGIS 3 how to draw a map's files. QGIS finds them beside the files."""

import itertools
import re
from collections.abc import Iterable

from PIL import ImageColor

from lgag_jax.pages import rendering

COLOURS = ("#e63c28", "#fabe28", "#a03cc8", "#288cfa")  # Of the classes in turn.
# Probability, colour and opacity 0..255: unlikely pixels are transparent, so that the image shows.
_RAMP = ((0.0, "#ffffb2", 0), (0.25, "#fecc5c", 90), (0.5, "#fd8d3c", 170), (0.75, "#f03b20", 220),
         (1.0, "#bd0026", 255))
_POINT_COLOURS = ("120,20,20", "20,60,140")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def mask_style(classes: Iterable[str]) -> str:
  """Returns a style that draws each class of a mask in its own colour, and no background."""
  return rendering.html("mask.qml", classes=_with_colours(classes, COLOURS))


def probability_style(percent: bool) -> str:
  """Returns a style that draws the first class's probability, 0..100 if `percent`, else 0..1."""
  return rendering.html("probability.qml", ramp=_RAMP, top=100 if percent else 1)


def point_style(kinds: Iterable[str]) -> str:
  """Returns a style that draws two kinds of points as triangles, upwards and downwards."""
  return rendering.html("points.qml", kinds=list(zip(kinds, _POINT_COLOURS, ("0", "180"), strict=True)))


def density_style(top: float) -> str:
  """Returns a style that draws the second band of `density`, the number per km², up to `top`."""
  return rendering.html("density.qml", ramp=_RAMP, top=top)


def polygon_style(classes: Iterable[str], class_field: str = "class") -> str:
  """Returns a style that draws polygons outlined and translucent, one colour per class, unlabelled.

  `class_field` is the attribute that holds the class; if it is "", all polygons have one colour.
  """
  colours = [",".join(map(str, ImageColor.getrgb(colour))) for colour in COLOURS]
  symbols = _with_colours(classes, colours)
  return rendering.html(
    "polygons.qml", classes=symbols if class_field else symbols[:1], class_field=class_field
  )


def _with_colours(classes: Iterable[str], colours: Iterable[str]) -> list[tuple[str, str]]:
  """Returns names and colours, without characters that XML cannot hold, such as control characters."""
  names = (_NOT_XML.sub("\ufffd", name) for name in classes)
  return list(zip(names, itertools.cycle(colours), strict=False))
