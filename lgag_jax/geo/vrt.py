"""Opens the file of a scene: an image, or an untrusted mosaic (VRT) of images.

A VRT says which files GDAL opens and what it does with them, so only plain mosaics are supported. This
module parses the XML, copies the elements that are known to be harmless, and opens and checks as an
image every file that it names. In the copy, which GDAL gets, only one driver may open each file.
GDAL's own VRT reader opens any file or URL, and defusedxml only guards the parser.
"""

import functools
import math
import pathlib
import re
import xml.etree.ElementTree as ET
from typing import NoReturn

import rasterio

from lgag_jax.imagery import listing, opening, orientation, plain_crs
from lgag_jax.imagery.opening import ImageError, open_raster, read_signature
from lgag_jax.imagery.orientation import Raster
from lgag_jax.imagery.side_files import beside

# The whole process shares the cache, which by default takes a fraction of the machine's memory. GDAL
# does not run Python code in a VRT by default, but the environment may enable it.
SCENE_OPTIONS = {**opening.OPTIONS, "GDAL_CACHEMAX": 128 << 20, "GDAL_VRT_ENABLE_PYTHON": "NO"}
_MAX_XML_BYTES = 8 << 20  # About 5000 tiles of three bands. Parsed, they take thirty times the memory.
_MAX_PART_BLOCK_BYTES = 1 << 25  # GDAL keeps up to 100 files of a mosaic open, with a block each.
# To resample a file, GDAL reads all pixels of it that become part of what is read, at 4 bytes each.
_MAX_RESAMPLED = 1 << 29
_ROWS_AT_ONCE = 512  # Of a mosaic, about those of a row of windows.
_FEW_IN_ONE = 4  # Pixels of a file in one of the mosaic's. Bands of half the resolution are common.
_RECT = ("xOff", "yOff", "xSize", "ySize")
_SOURCE = ("SourceFilename", "SourceBand", "SrcRect", "DstRect")
# Elements that are copied: (their attributes, their child elements).
_COPIED = {
  "VRTDataset": (("rasterXSize", "rasterYSize"), ("SRS", "GeoTransform", "VRTRasterBand", "MaskBand")),
  "SRS": (("dataAxisToSRSAxisMapping", "coordinateEpoch"), ()),
  "GeoTransform": ((), ()),
  "MaskBand": ((), ("VRTRasterBand",)),
  "VRTRasterBand": (("dataType", "band"), (
    "Offset", "Scale", "ColorInterp", "NoDataValue", "HideNoDataValue", "ColorTable", "SimpleSource",
    "ComplexSource")),
  "Offset": ((), ()), "Scale": ((), ()),
  "ColorInterp": ((), ()), "NoDataValue": ((), ()), "HideNoDataValue": ((), ()),
  "ColorTable": ((), ("Entry",)), "Entry": (("c1", "c2", "c3", "c4"), ()),
  "SimpleSource": (("resampling",), _SOURCE),
  "ComplexSource": (("resampling",), (
    *_SOURCE, "NODATA", "UseMaskBand", "ScaleOffset", "ScaleRatio", "ColorTableComponent")),
  "SourceFilename": (("relativeToVRT",), ()), "SourceBand": ((), ()),
  "SrcRect": (_RECT, ()), "DstRect": (_RECT, ()),
  "NODATA": ((), ()), "UseMaskBand": ((), ()), "ScaleOffset": ((), ()), "ScaleRatio": ((), ()),
  "ColorTableComponent": ((), ()),
}
# Elements that are skipped, since pixels do not depend on them. Metadata could name sources and masks.
_SKIPPED = {
  "Metadata", "Description", "UnitType", "CategoryNames", "Histograms", "GCPList",
  "GDALRasterAttributeTable", "OverviewList", "BlockXSize", "BlockYSize", "SourceProperties",
}
_BAND = re.compile(r"(mask,)?([1-9]\d{0,4})")
_REMEDY = "Build the mosaic again with gdalbuildvrt, or convert it with gdal_translate -of COG"


def open_scene_raster(path: pathlib.Path) -> Raster:
  """Opens an image or a VRT; raises ImageError naming an invalid, unsupported or unsafe file."""
  if not _is_xml(path):
    return open_raster(path)
  text = ET.tostring(_plain_vrt(path), encoding="unicode")
  with rasterio.Env(**SCENE_OPTIONS):
    return opening.open_with_driver("VRT", path, text)


def part_files(path: pathlib.Path) -> list[pathlib.Path]:
  """Returns the files that a VRT names, none for an image; raises ImageError as opening it does."""
  if not _is_xml(path):
    return []
  names = [name for name in _copy(_parse(path), path).iter("SourceFilename") if name.text]
  return sorted({_named_part(name, path) for name in names})


def _is_xml(path: pathlib.Path) -> bool:
  return read_signature(path).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"<"


def _plain_vrt(path: pathlib.Path) -> ET.Element:
  """Returns a copy of a VRT with the elements in `_COPIED`, its files checked, their paths absolute."""
  root = _parse(path)
  if root.tag != "VRTDataset":
    raise ImageError(f"{path} is XML but not a VRT: its root is <{root.tag[:40]}>. Restore it.")
  copy, parts = _copy(root, path), {}
  for element in copy.iter():
    for source in element.findall("SimpleSource") + element.findall("ComplexSource"):
      _resolve_source(source, path, parts)
      _check_shrinking(source, root, path)
  return copy


def _parse(path: pathlib.Path) -> ET.Element:
  if (size := path.stat().st_size) > _MAX_XML_BYTES:
    raise ImageError(
      f"{path} has {size >> 20} MiB, more than the {_MAX_XML_BYTES >> 20} MiB allowed for a VRT: "
      "convert it with gdal_translate -of COG, or build several smaller mosaics."
    )
  try:
    text = path.read_bytes().decode("utf-8-sig")
    # Entities can expand to any size or name files. Only a document type can declare them.
    if "<!DOCTYPE" in text:
      raise ImageError(f"{path} declares a document type, which is unsupported in a VRT. {_REMEDY}.")
    return ET.fromstring(text)
  except (UnicodeDecodeError, ET.ParseError) as error:
    raise ImageError(f"{path} is not a valid VRT: {error}. Restore it.") from error


def _copy(element: ET.Element, path: pathlib.Path) -> ET.Element:
  attributes, children = _COPIED[element.tag]
  if "subClass" in element.attrib:
    _refuse(path, f'subClass="{element.get("subClass")}"')
  text = element.text or ""
  copy = ET.Element(element.tag, {k: v for k, v in element.attrib.items() if k in attributes})
  copy.text = _plain_srs(text, path) if element.tag == "SRS" and text.strip() else element.text
  for child in element:
    if child.tag in children:
      copy.append(_copy(child, path))
    elif child.tag not in _SKIPPED:
      _refuse(path, f"<{child.tag[:40]}> in <{element.tag}>")
  return copy


def _plain_srs(text: str, path: pathlib.Path) -> str:
  """Returns a CRS as it is written, or without heights that name files."""
  try:
    plain = plain_crs.parse(text)
  except ValueError as error:
    _refuse(path, f"the CRS {text!r:.80}: {error}")
  return plain.to_wkt() if plain_crs.names_files(text) else text


def _refuse(path, element) -> NoReturn:
  raise ImageError(
    f"{path} holds {element}: only plain mosaics are supported, with bands of SimpleSource and "
    f"ComplexSource and without functions, warps or options. {_REMEDY}."
  )


def _resolve_source(source: ET.Element, path: pathlib.Path, parts: dict) -> None:
  """Writes into a source its file's driver, and the properties that GDAL would open the file for."""
  name, band = source.find("SourceFilename"), source.findtext("SourceBand", "1").strip()
  if name is None or not (name.text and name.text.strip()):
    raise ImageError(f"{path} has a source without a file. Restore it. {_REMEDY}.")
  part = _named_part(name, path)
  if part not in parts:
    parts[part] = _inspect_part(part, path)
  driver, count, properties = parts[part]
  match = _BAND.fullmatch(band)
  if not match or int(match[2]) > count:
    raise ImageError(f"{path} refers to band {band!r:.40} of {part}, which has {count}. {_REMEDY}.")
  name.text, name.attrib = f"vrt://{part}?if={driver}", {"relativeToVRT": "0", "shared": "0"}
  source.insert(1, ET.Element("SourceProperties", properties))


def _check_shrinking(source: ET.Element, root: ET.Element, path: pathlib.Path) -> None:
  """Raises ImageError if a mosaic shrinks so much of a file at once that it may not fit in memory."""
  properties = source.find("SourceProperties")
  if properties is None or source.get("resampling", "near").lower() in ("near", "nearest"):
    return
  lengths = []
  for side, of_file, of_mosaic in (
    ("xSize", "RasterXSize", "rasterXSize"), ("ySize", "RasterYSize", "rasterYSize")
  ):
    whole = properties.get(of_file, ""), root.get(of_mosaic, "")  # Where there is no rectangle.
    lengths += [
      default if (rect := source.find(tag)) is None else rect.get(side, "")
      for tag, default in zip(("SrcRect", "DstRect"), whole, strict=True)
    ]
  try:
    sizes = tuple(map(float, lengths))
  except ValueError:
    sizes = (math.nan,) * 4
  in_one = pixels = math.inf
  if all(0 < size < math.inf for size in sizes):
    of_width, width, of_height, height = sizes
    in_one = max(1.0, of_width / width) * max(1.0, of_height / height)
    pixels = in_one * width * min(height, _ROWS_AT_ONCE)
  if in_one > _FEW_IN_ONE and pixels > _MAX_RESAMPLED:
    raise ImageError(
      f"{path} shrinks {lengths[0]} x {lengths[2]} pixels of a file to {lengths[1]} x {lengths[3]}, "
      f"with resampling={source.get('resampling')!r:.40}, too many to read at once. {_REMEDY}."
    )


def _named_part(name: ET.Element, path: pathlib.Path) -> pathlib.Path:
  text, relative = name.text or "", name.get("relativeToVRT", "0").strip() == "1"
  try:
    part = ((path.parent / text) if relative else pathlib.Path(text)).absolute()
  except ValueError:
    part = None
  # GDAL would end the name at "?", and does not read names that begin with /vsi as files.
  virtual = any(re.match("/+vsi", name) for name in (text, str(part)))
  if part is None or virtual or "://" in text or "?" in str(part):
    raise ImageError(
      f"{path} names {text!r:.200}, which is not a plain file: copy it to this disk, under a name "
      f"without '?', and name the copy. {_REMEDY}."
    )
  return part


def _inspect_part(part: pathlib.Path, path: pathlib.Path) -> tuple[str, int, dict[str, str]]:
  """Returns the driver, band count and properties of a mosaic's file; raises ImageError naming both."""
  try:
    if mask := beside(part, ".msk"):
      raise ImageError(
        f"{mask} is not read in a mosaic. Write the mask into the file: gdal_translate --config "
        "GDAL_TIFF_INTERNAL_MASK YES in.tif out.tif"
      )
    if _is_xml(part):
      raise ImageError(f"{part} is a VRT or other XML: name its parts instead")
    return _part_properties(part, listing.file_key(part))
  except (ImageError, OSError) as error:
    raise ImageError(f"{path} refers to a file that cannot be used: {error}") from error


@functools.lru_cache(maxsize=1 << 15)
def _part_properties(part: pathlib.Path, key: str) -> tuple[str, int, dict[str, str]]:
  """Opens and checks a mosaic's file, only once although a run opens a mosaic several times."""
  del key
  with open_raster(part, _MAX_PART_BLOCK_BYTES) as raster:
    if (number := orientation.of_raster(raster)) != 1:
      raise ImageError(
        f"{part} has the orientation tag {number}, and a mosaic cannot turn it. Save the turned "
        "image without the tag: magick in.jpg -auto-orient out.png"
      )
    rows, cols = raster.block_shapes[0]
    return raster.driver, raster.count, {
      "RasterXSize": str(raster.width), "RasterYSize": str(raster.height),
      "DataType": "Byte" if raster.dtypes[0] == "uint8" else str(raster.dtypes[0]).capitalize(),
      "BlockXSize": str(cols), "BlockYSize": str(rows),
    }
