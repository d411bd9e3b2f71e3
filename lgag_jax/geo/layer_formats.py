"""Names the formats of layers that lgag does not read, with the command that converts each."""

import pathlib
import shlex

SUFFIXES = {".gpkg": "GPKG", ".shp": "ESRI Shapefile", ".geojson": "GeoJSON", ".json": "GeoJSON"}
# By suffix; what GDAL's ogr2ogr cannot open has no place here.
_OTHERS = {
  ".kml": "KML", ".kmz": "KML", ".gml": "GML", ".gpx": "GPX", ".fgb": "FlatGeobuf", ".dxf": "DXF",
  ".dgn": "DGN", ".parquet": "GeoParquet", ".geoparquet": "GeoParquet", ".arrow": "GeoArrow",
  ".feather": "GeoArrow", ".tab": "MapInfo", ".mif": "MapInfo", ".sqlite": "SpatiaLite",
  ".gdb": "a file geodatabase", ".mdb": "a personal geodatabase", ".zip": "a zipped layer",
  ".shz": "a zipped shapefile", ".topojson": "TopoJSON", ".geojsonl": "a sequence of GeoJSON",
  ".geojsons": "a sequence of GeoJSON", ".ndjson": "a sequence of GeoJSON", ".jsonl": "JSON lines",
  ".csv": "a table", ".tsv": "a table", ".xlsx": "a spreadsheet", ".ods": "a spreadsheet",
  ".osm": "OpenStreetMap data", ".pbf": "OpenStreetMap data",
}
# Without these options GDAL finds a table's geometry only in a column named WKT.
_TABLE_OPTIONS = (
  "-oo GEOM_POSSIBLE_NAMES=wkt,geom,geometry,the_geom -oo 'X_POSSIBLE_NAMES=x,lon*' "
  "-oo 'Y_POSSIBLE_NAMES=y,lat*' -a_srs EPSG:4326"
)
_WITHOUT_CRS = {"DXF", "DGN"}  # Their coordinates are in a system that the user must name.
_SHAPEFILE_PARTS = (".dbf", ".shx", ".prj", ".cpg", ".qix", ".sbn", ".sbx")
GEOMETRY_COLUMNS = {
  "wkt", "wkb", "geom", "geometry", "the_geom", "shape", "x", "y", "lon", "lat", "longitude",
  "latitude",
}


def is_other(path: pathlib.Path) -> bool:
  """Returns whether a file's suffix is that of a known format which lgag does not read."""
  return path.suffix.lower() in (*_OTHERS, *_SHAPEFILE_PARTS)


def check(path: pathlib.Path) -> None:
  """Raises ValueError with the command that converts a layer, if its suffix is of such a format."""
  suffix = path.suffix.lower()
  if suffix in _SHAPEFILE_PARTS:
    raise ValueError(
      f"{path} is one part of a shapefile: give {path.stem}.shp, with the other parts beside it."
    )
  if suffix in _OTHERS:
    raise ValueError(f"{path} is {_OTHERS[suffix]}, which is not read as labels. {remedy(path)}")


def remedy(path: pathlib.Path) -> str:
  """Returns which formats lgag reads and how to convert a file to one of them."""
  suffix = path.suffix.lower()
  source = f"/vsizip/{path}" if suffix in (".zip", ".shz") else str(path)
  words = ["ogr2ogr", shlex.quote(f"{path.stem}.gpkg"), shlex.quote(source)]
  if suffix in (".csv", ".tsv"):
    words.append(_TABLE_OPTIONS)
  elif _OTHERS.get(suffix) in _WITHOUT_CRS:
    words.append("-a_srs EPSG:32633")
  command = " ".join(words)
  if "-a_srs" in command:
    command += ", with the CRS of its coordinates after -a_srs"
  return (
    "lgag reads GeoPackage (.gpkg), shapefiles (.shp), GeoJSON (.geojson, .json) and raster masks. "
    f"Convert the file: {command}"
  )


def refuse_layer_flags(path: pathlib.Path, what: str, **flags: str) -> None:
  """Raises ValueError if flags that choose a layer or a field are set for labels that have none."""
  for name, value in flags.items():
    if value:
      raise ValueError(
        f"--{name}={value} cannot apply: {path} is {what}, which has no {name} to choose. Omit it, or "
        "name a layer of landslides (.gpkg, .shp, .geojson)."
      )
