"""Opens what may be a scene: an image as `rasters` opens it, or a mosaic (VRT) of such files.

A VRT says which files GDAL opens and what it does with them. From strangers, only plain mosaics are
taken: the XML is read here, what is known to be harmless is copied, every file that it names is opened
and checked as an image is, and GDAL gets the copy, where each file has the one driver that may open it.
"""

import glob
import pathlib
import re
import xml.etree.ElementTree as ET

import rasterio

from lgag_jax.imagery.opening import OPTIONS, SUFFIXES, ImageError, open_by, open_raster, read_start

# The cache is the whole process's, and by default a share of the machine's memory. Python in a VRT is
# off in GDAL as it is; the environment may say otherwise.
SCENE_OPTIONS = {**OPTIONS, "GDAL_CACHEMAX": 128 << 20, "GDAL_VRT_ENABLE_PYTHON": "NO"}
_SCENE_SUFFIXES = (*SUFFIXES, ".vrt")
_MOST_XML_BYTES = 8 << 20  # Some 5000 tiles of three bands; parsed it takes thirty times as much.
_MOST_PART_BLOCK_BYTES = 1 << 25  # GDAL keeps up to a hundred of a mosaic's files open, a block each.
_RECT = ("xOff", "yOff", "xSize", "ySize")
_SOURCE = ("SourceFilename", "SourceBand", "SrcRect", "DstRect")
# Elements that are copied: their attributes, and the elements within.
_KNOWN = {
  "VRTDataset": (("rasterXSize", "rasterYSize"), ("SRS", "GeoTransform", "VRTRasterBand", "MaskBand")),
  "SRS": (("dataAxisToSRSAxisMapping", "coordinateEpoch"), ()),
  "GeoTransform": ((), ()),
  "MaskBand": ((), ("VRTRasterBand",)),
  "VRTRasterBand": (("dataType", "band"), (
    "ColorInterp", "NoDataValue", "HideNoDataValue", "ColorTable", "SimpleSource", "ComplexSource")),
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
# Elements that are left out, since pixels do not depend on them. Metadata could name sources and masks.
_UNUSED = {
  "Metadata", "Description", "UnitType", "Offset", "Scale", "CategoryNames", "Histograms", "GCPList",
  "GDALRasterAttributeTable", "OverviewList", "BlockXSize", "BlockYSize", "SourceProperties",
}
_CRS = re.compile(r"\s*([A-Z_]+\[|EPSG:\d+\s*$)")  # WKT or a code; else it may be a file or a URL.
_BAND = re.compile(r"(mask,)?([1-9]\d{0,4})")
_AGAIN = "Make the mosaic anew with gdalbuildvrt, or one file of it with gdal_translate -of COG"


def open_scene_raster(path: pathlib.Path) -> rasterio.DatasetReader:
  """Opens an image or a VRT; raises ImageError naming a file that is not to be trusted."""
  if not _is_xml(path):
    return open_raster(path)
  text = ET.tostring(_plain_vrt(path), encoding="unicode")
  with rasterio.Env(**SCENE_OPTIONS):
    return open_by("VRT", path, text)


def _is_xml(path: pathlib.Path) -> bool:
  return read_start(path).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"<"


def _plain_vrt(path: pathlib.Path) -> ET.Element:
  """Returns a VRT with nothing in it but what `_KNOWN` lists, its files checked, their names whole."""
  root = _parse(path)
  if root.tag != "VRTDataset":
    raise ImageError(f"{path} is XML, but no VRT: it holds <{root.tag[:40]}>. Restore it.")
  copy, parts = _copy(root, path), {}
  for element in copy.iter():
    for source in element.findall("SimpleSource") + element.findall("ComplexSource"):
      _name_whole(source, path, parts)
  return copy


def _parse(path: pathlib.Path) -> ET.Element:
  if (size := path.stat().st_size) > _MOST_XML_BYTES:
    raise ImageError(
      f"{path} has {size >> 20} MiB, a VRT at most {_MOST_XML_BYTES >> 20}: make one file of the "
      "mosaic with gdal_translate -of COG, or several smaller mosaics."
    )
  try:
    text = path.read_bytes().decode("utf-8-sig")
    # Entities, which can unpack to any size or name files, are declared in a document type alone.
    if "<!DOCTYPE" in text:
      raise ImageError(f"{path} declares a document type, which a VRT needs none of. {_AGAIN}.")
    return ET.fromstring(text)
  except (UnicodeDecodeError, ET.ParseError) as error:
    raise ImageError(f"{path} is no VRT that can be read: {error}. Restore it.") from error


def _copy(element: ET.Element, path: pathlib.Path) -> ET.Element:
  attributes, within = _KNOWN[element.tag]
  if "subClass" in element.attrib:
    _refuse(path, f'subClass="{element.get("subClass")}"')
  if element.tag == "SRS" and (element.text or "").strip() and not _CRS.match(element.text):
    _refuse(path, f"the CRS {element.text!r:.80}, neither WKT nor an EPSG code")
  copy = ET.Element(element.tag, {k: v for k, v in element.attrib.items() if k in attributes})
  copy.text = element.text
  for child in element:
    if child.tag in within:
      copy.append(_copy(child, path))
    elif child.tag not in _UNUSED:
      _refuse(path, f"<{child.tag[:40]}> in <{element.tag}>")
  return copy


def _refuse(path, what):
  raise ImageError(
    f"{path} holds {what}: only plain mosaics are read, bands of SimpleSource and ComplexSource "
    f"without functions, warps or options. {_AGAIN}."
  )


def _name_whole(source: ET.Element, path: pathlib.Path, parts: dict) -> None:
  """Puts into a source which driver opens its file, and what GDAL then need not open it to know."""
  name, band = source.find("SourceFilename"), source.findtext("SourceBand", "1").strip()
  if name is None or not (name.text or "").strip():
    raise ImageError(f"{path} has a source without a file: restore it, or {_AGAIN.lower()}.")
  part = _part_path(name.text, name.get("relativeToVRT", "0").strip() == "1", path)
  if part not in parts:
    parts[part] = _look_into(part, path)
  driver, count, properties = parts[part]
  found = _BAND.fullmatch(band)
  if not found or int(found[2]) > count:
    raise ImageError(f"{path} wants band {band!r:.40} of {part}, which has {count}. {_AGAIN}.")
  name.text, name.attrib = f"vrt://{part}?if={driver}", {"relativeToVRT": "0", "shared": "0"}
  source.insert(1, ET.Element("SourceProperties", properties))


def _part_path(text: str, relative: bool, path: pathlib.Path) -> pathlib.Path:
  try:
    part = ((path.parent / text) if relative else pathlib.Path(text)).absolute()
  except ValueError:
    part = None
  # "?" would end the name where GDAL gets it, and what begins with /vsi it does not take for a file.
  virtual = any(re.match("/+vsi", name) for name in (text, str(part)))
  if part is None or virtual or "://" in text or "?" in str(part):
    raise ImageError(
      f"{path} names {text!r:.200}, which is no plain file: copy it to this disk, under a name without "
      f"'?', and name that. {_AGAIN}."
    )
  return part


def _look_into(part: pathlib.Path, path: pathlib.Path) -> tuple[str, int, dict[str, str]]:
  """Returns a mosaic's file's driver, number of bands and properties; raises ImageError naming both."""
  try:
    if _is_xml(part):
      raise ImageError(f"{part} is a VRT or other XML itself: name its parts instead")
    with open_raster(part, _MOST_PART_BLOCK_BYTES) as raster:
      rows, cols = raster.block_shapes[0]
      return raster.driver, raster.count, {
        "RasterXSize": str(raster.width), "RasterYSize": str(raster.height),
        "DataType": {"uint8": "Byte"}.get(raster.dtypes[0], raster.dtypes[0].capitalize()),
        "BlockXSize": str(cols), "BlockYSize": str(rows),
      }
  except ImageError as error:
    raise ImageError(f"{path} refers to a file that cannot be used: {error}") from error


def scene_files(source: str | pathlib.Path) -> list[pathlib.Path]:
  """Lists the scenes that a file, a folder or a glob stands for; raises when there is none."""
  path = pathlib.Path(source)
  if path.is_file():
    return [path]
  if path.is_dir():
    paths = sorted(path.iterdir())
    paths = [p for p in paths if p.suffix.lower() in _SCENE_SUFFIXES and p.name[0] != "."]
    if not paths:
      raise FileNotFoundError(f"--input={source} holds no image ({', '.join(_SCENE_SUFFIXES)}).")
    return paths
  paths = sorted(pathlib.Path(name) for name in glob.glob(str(source), recursive=True))
  paths = [path for path in paths if path.is_file()]
  if not paths:
    raise FileNotFoundError(f"--input={source}: there is no such file or folder.")
  return paths
