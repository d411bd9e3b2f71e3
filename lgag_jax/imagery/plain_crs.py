"""Reads CRSs from untrusted files: only plain ones, whose definition names no other file.

A definition can name grids, geoid models and other files. GDAL and PROJ open them, some as soon as they
parse the definition, and wait forever for a pipe. So its text is checked before they get it.
"""

import contextlib
import os
import re

import pyproj
import pyproj.network
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.errors import CRSError

# Some installations let PROJ download grids. rasterio and pyogrio contain a PROJ of their own.
os.environ["PROJ_NETWORK"] = "OFF"
pyproj.network.set_network_enabled(False)  # pyright: ignore[reportPrivateImportUsage]
_MAX_CHARACTERS = 1 << 16
_BEGINNING = re.compile(r"\s*([A-Za-z_]+\s*[\[(]|EPSG:\d+\s*$)")  # Other text may name a file or a URL.
_NAMES_FILES = re.compile(
  r"grids|parameterfile|\b(init|file|model|catalog)\s*=|geoidmodel\s*[\[(]\s*\"\s*PROJ\s", re.IGNORECASE
)
# In GDAL's WKT of web Mercator. The next option or the end of the text must follow: PROJ would take
# anything else, also after a space that only Python knows, for more of the list.
_NO_GRIDS = re.compile(r'\+nadgrids=@null(?=[ \t\r\n]+\+?[A-Za-z]|"[ \t\r\n]*[\])])')


def parse(text: str) -> CRS:
  """Returns a CRS from WKT or an EPSG code; raises ValueError for other text, which may name files."""
  if len(text) > _MAX_CHARACTERS or not _BEGINNING.match(text):
    raise ValueError(f"its CRS {text!r:.80} is neither plain WKT nor an EPSG code")
  try:
    return CRS.from_string((_horizontal(text) if names_files(text) else text).strip())
  except (CRSError, ProjError) as error:
    raise ValueError(f"its CRS cannot be read: {error}") from error


def plain(crs: CRS | None) -> CRS | None:
  """Returns a CRS, without its heights if these name files; raises ValueError if the rest does."""
  if crs is None:
    return None
  texts = [crs.to_wkt()]
  with contextlib.suppress(CRSError):  # A CRS that only WKT 1 can hold.
    texts.append(crs.to_wkt(version="WKT2_2019"))
  return CRS.from_wkt(_horizontal(texts[0])) if any(map(names_files, texts)) else crs


def names_files(text: str) -> bool:
  """Returns whether the definition of a CRS may name files."""
  return _NAMES_FILES.search(_NO_GRIDS.sub("", text)) is not None


def _horizontal(text: str) -> str:
  """Returns the WKT of a CRS without heights; raises ValueError if it has none or still names files."""
  parts = pyproj.CRS.from_wkt(text).sub_crs_list  # PROJ only opens files when it transforms.
  wkt = parts[0].to_wkt() if parts else ""
  if not wkt or names_files(wkt):
    raise ValueError(f"its CRS names other files, which lgag does not open: {text!r:.400}")
  return wkt
