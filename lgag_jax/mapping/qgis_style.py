"""Styles (QML) that tell QGIS 3 how to draw a map's files. QGIS finds them beside the files."""

import re
from collections.abc import Iterable
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

COLOURS = ("#e63c28", "#fabe28", "#a03cc8", "#288cfa")  # Of the classes in turn.
# Probability, colour and opacity 0..255: unlikely pixels are transparent, so that the image shows.
_RAMP = ((0.0, "#ffffb2", 0), (0.25, "#fecc5c", 90), (0.5, "#fd8d3c", 170), (0.75, "#f03b20", 220),
         (1.0, "#bd0026", 255))
_FILL_OPACITY = 70
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def mask_style(classes: Iterable[str]) -> str:
  """Returns a style that draws each class of a mask in its own colour, and no background."""
  root, renderer = _raster("paletted")
  palette = SubElement(renderer, "colorPalette")
  SubElement(palette, "paletteEntry", value="0", color="#000000", alpha="0", label="background")
  for c, name in enumerate(classes, 1):
    SubElement(palette, "paletteEntry", value=str(c), color=_colour(c), alpha="255", label=_text(name))
  return _document(root)


def probability_style(percent: bool) -> str:
  """Returns a style that draws the first class's probability from transparent to dark red.

  Probabilities are 0..100 if `percent`, else 0..1.
  """
  top = 100 if percent else 1
  root, renderer = _raster("singlebandpseudocolor")
  renderer.attrib.update(classificationMin="0", classificationMax=str(top))
  ramp = SubElement(
    SubElement(renderer, "rastershader"), "colorrampshader", colorRampType="INTERPOLATED",
    classificationMode="1", clip="0", minimumValue="0", maximumValue=str(top),
  )
  for probability, colour, alpha in _RAMP:
    SubElement(
      ramp, "item", value=f"{probability * top:g}", color=colour, alpha=str(alpha),
      label=f"{probability:.0%}",
    )
  return _document(root)


def polygon_style(classes: Iterable[str]) -> str:
  """Returns a style that draws polygons outlined and translucent, one colour per class, unlabelled."""
  names = [_text(name) for name in classes]
  root = Element(
    "qgis", version="3.0.0", styleCategories="Symbology|Labeling", labelsEnabled="0"
  )
  renderer = SubElement(root, "renderer-v2", symbollevels="0", enableorderby="0", forceraster="0")
  renderer.set("type", "singleSymbol" if len(names) == 1 else "categorizedSymbol")
  if len(names) > 1:
    renderer.set("attr", "class")
    categories = SubElement(renderer, "categories")
    for i, name in enumerate(names):
      SubElement(categories, "category", value=name, label=name, symbol=str(i), render="true")
  symbols = SubElement(renderer, "symbols")
  for i in range(len(names)):
    _fill(symbols, i)
  SubElement(root, "layerGeometryType").text = "2"
  return _document(root)


def _fill(symbols: Element, number: int) -> None:
  symbol = SubElement(
    symbols, "symbol", type="fill", name=str(number), alpha="1", clip_to_extent="1", force_rhr="0"
  )
  layer = SubElement(
    symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"}
  )
  colour = ",".join(str(int(_colour(number + 1)[i : i + 2], 16)) for i in (1, 3, 5))
  properties = {
    "color": f"{colour},{_FILL_OPACITY}", "style": "solid", "joinstyle": "bevel",
    "outline_color": f"{colour},255", "outline_style": "solid", "outline_width": "0.5",
    "outline_width_unit": "MM",
  }
  options = SubElement(layer, "Option", type="Map")
  for key, value in properties.items():
    SubElement(options, "Option", name=key, type="QString", value=value)
  for key, value in properties.items():  # Older versions read these instead.
    SubElement(layer, "prop", k=key, v=value)


def _raster(kind: str) -> tuple[Element, Element]:
  """Returns the root of a raster's style and the renderer of its first band."""
  root = Element("qgis", version="3.0.0", styleCategories="Symbology")
  pipe = SubElement(root, "pipe")
  renderer = SubElement(
    pipe, "rasterrenderer", type=kind, band="1", opacity="1", alphaBand="-1", nodataColor=""
  )
  SubElement(renderer, "rasterTransparency")
  SubElement(pipe, "brightnesscontrast", brightness="0", contrast="0", gamma="1")
  SubElement(pipe, "huesaturation", saturation="0", grayscaleMode="0", colorizeOn="0")
  SubElement(pipe, "rasterresampler", maxOversampling="2")
  return root, renderer


def _colour(number: int) -> str:
  return COLOURS[(number - 1) % len(COLOURS)]


def _text(name: str) -> str:
  """Replaces characters that XML cannot hold, such as control characters."""
  return _NOT_XML.sub("\ufffd", name)


def _document(root: Element) -> str:
  ElementTree.indent(root)
  text = ElementTree.tostring(root, encoding="unicode")
  return f"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n{text}\n"
