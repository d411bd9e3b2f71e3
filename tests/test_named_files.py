"""Files that other files name are not opened: overviews, grids of CRSs, pictures that are programs."""

import ast
import pathlib

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from PIL import EpsImagePlugin, Image
from pyproj._network import is_network_enabled
from rasterio.crs import CRS
from rasterio.windows import Window

from lgag_jax.geo.scene import open_scene
from lgag_jax.imagery import plain_crs, reading
from lgag_jax.imagery.reading import ImageError
from lgag_jax.mapping import scene_page
from tests.opened_files import make_pipe, opens
from tests.test_hostile_images import server  # noqa: F401
from tests.test_reading import pixels, write_png, write_tiff
from tests.test_scene import NORTH_UP, H, W, vrt_of

ROOT = pathlib.Path(__file__).parent.parent
AVERAGED = """
import sys, rasterio
from rasterio.enums import Resampling
with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"), rasterio.open(sys.argv[1]) as raster:
  print(raster.read(1, out_shape=(4, 4), resampling=Resampling.average).max())
"""
TRANSFORM = """
import sys, pyproj
pyproj.Transformer.from_crs(sys.argv[1], "EPSG:4326").transform(5e5, 3e6)
"""


def with_overviews(path, name, **options):
  write_tiff(path, np.full((H, W, 3), 9, np.uint8), **options)
  with rasterio.open(path, "r+") as raster:
    raster.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=str(name))
  return path


@pytest.mark.parametrize("kind", ["file", "url", "pipe", "jp2", "part", "mask"])
def test_overviews_in_another_file_are_not_opened(tmp_path, server, kind):  # noqa: F811
  url, requests = server
  other = write_tiff(tmp_path / "other.tif", np.full((H // 4, W // 4, 3), 77, np.uint8))
  name = {"url": f"/vsicurl/{url}/a.png", "pipe": make_pipe(tmp_path)}.get(kind, other)
  path = with_overviews(tmp_path / "a.tif", name)
  opened, text = opens(name if kind == "pipe" else make_pipe(tmp_path), AVERAGED, path)
  assert {"pipe": opened, "url": bool(requests)}.get(kind, "77" in text)  # The attack is real.
  requests.clear()
  refused, named = path, "a.tif"
  if kind == "jp2":
    with rasterio.open(path) as raster:
      rasterio.shutil.copy(raster, tmp_path / "a.jp2", driver="JP2OpenJPEG", WRITE_METADATA="YES")
    refused, named = tmp_path / "a.jp2", "a.jp2"
  elif kind == "part":
    refused = vrt_of(tmp_path / "a.vrt", [("a.tif", 0, 0, H, W)], H, W)
  elif kind == "mask":
    path.rename(tmp_path / "b.png.msk")
    refused, named = write_png(tmp_path / "b.png", pixels(H, W)), "b.png.msk"
  with (
    pytest.raises(ImageError, match=rf"{named} says that its overviews lie in another file \(\['"),
    open_scene(refused, 3) as scene,
  ):
    scene.read(Window(0, 0, W, H), (4, 4))
  assert not requests


GEOGRAPHIC = (
  'GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563]],PRIMEM["Greenwich",0],'
  'UNIT["degree",0.0174532925199433]]'
)
PROJECTED = (
  f'PROJCS["x",{GEOGRAPHIC},PROJECTION["Bonne"],PARAMETER["standard_parallel_1",30],'
  'PARAMETER["central_meridian",15],PARAMETER["false_easting",0],PARAMETER["false_northing",0],'
  'UNIT["metre",1],EXTENSION["PROJ4","{}"]]'
)
BOUND = (
  'BOUNDCRS[SOURCECRS[GEOGCRS["x",DATUM["y",ELLIPSOID["z",6377397,299.15]],CS[ellipsoidal,2],'
  'AXIS["lat",north],AXIS["lon",east],ANGLEUNIT["degree",0.0174532925199433]]],'
  'TARGETCRS[GEOGCRS["WGS 84",'
  'DATUM["World Geodetic System 1984",ELLIPSOID["WGS 84",6378137,298.257223563]],CS[ellipsoidal,2],'
  'AXIS["lat",north],AXIS["lon",east],ANGLEUNIT["degree",0.0174532925199433]]],'
  'ABRIDGEDTRANSFORMATION["t",METHOD["NTv2",ID["EPSG",9615]],'
  'PARAMETERFILE["Latitude and longitude difference file","{}"]]]'
)


def definition(kind, pipe):
  """Returns the WKT of a CRS that names a file."""
  texts = {
    "nadgrids": PROJECTED.format(f"+proj=bonne +lat_1=30 +ellps=bessel +nadgrids={pipe} +wktext"),
    "geoidgrids": PROJECTED.format(f"+proj=bonne +lat_1=30 +ellps=bessel +geoidgrids={pipe} +wktext"),
    "init": PROJECTED.format(f"proj=bonne lat_1=30 ellps=bessel init={pipe}:x"),
    "bound": BOUND.format(pipe),
    "list": PROJECTED.format(f"+proj=bonne +lat_1=30 +ellps=bessel +nadgrids=@null,{pipe} +wktext"),
  }
  return texts[kind]


@pytest.mark.parametrize("kind", ["nadgrids", "geoidgrids", "init", "bound", "list"])
def test_files_that_a_crs_names_are_not_opened(tmp_path, kind):
  pipe = make_pipe(tmp_path)
  text = definition(kind, pipe)
  assert opens(pipe, TRANSFORM, text)[0]  # The attack is real.
  path = write_tiff(tmp_path / "a.tif", pixels(H, W), transform=NORTH_UP)
  (tmp_path / "a.prj").write_text(text)
  with pytest.raises(ImageError, match=r"a\.prj is invalid: its CRS names other files"):
    open_scene(path, 3)
  (tmp_path / "a.prj").unlink()
  notes = tmp_path / "a.tif.aux.xml"
  notes.write_text(f"<PAMDataset><SRS>{text.replace('&', '&amp;')}</SRS></PAMDataset>")
  with pytest.raises(ImageError, match=r"a\.tif\.aux\.xml is invalid: its CRS names other files"):
    open_scene(path, 3)
  notes.unlink()
  vrt = vrt_of(tmp_path / "a.vrt", [("a.tif", 0, 0, H, W)], H, W)
  vrt.write_text(vrt.read_text().replace('41">', f'41"><SRS>{text}</SRS>', 1))
  with pytest.raises(ImageError, match=r"a\.vrt holds the CRS .* names other files"):
    open_scene(vrt, 3)


@pytest.mark.parametrize("driver", ["GTiff", "JP2OpenJPEG"])
@pytest.mark.parametrize("kind", ["nadgrids", "geoidgrids"])
def test_files_that_the_crs_in_an_image_names_are_not_opened(tmp_path, kind, driver):
  pipe = make_pipe(tmp_path)
  crs = CRS.from_wkt(definition(kind, pipe))
  path = tmp_path / ("a.tif" if driver == "GTiff" else "a.jp2")
  write_tiff(path, pixels(H, W), transform=NORTH_UP, crs=crs, driver=driver)
  with rasterio.open(path) as raster:
    assert opens(pipe, TRANSFORM, raster.crs.to_wkt())[0]  # The attack is real.
  with pytest.raises(ImageError, match=r"a\.\w+ cannot be placed: its CRS names other files.*-a_srs"):
    open_scene(path, 3)
  assert reading.read_image(path, 3).shape == (H, W, 3)  # Pixels have no need of a place.


def test_heights_that_name_files_are_left_out_of_a_crs(tmp_path):
  plain = CRS.from_epsg(32644)
  grids = f'EXTENSION["PROJ4_GRIDS","{make_pipe(tmp_path)}"]'
  vertical = f'VERT_CS["h",VERT_DATUM["d",2005,{grids}],UNIT["metre",1]]'
  text = f'COMPD_CS["c",{plain.to_wkt()},{vertical}]'
  assert plain_crs.parse(text) == plain
  write_tiff(tmp_path / "a.tif", pixels(H, W), transform=NORTH_UP)
  vrt = vrt_of(tmp_path / "a.vrt", [("a.tif", 0, 0, H, W)], H, W)
  place = ", ".join(map(str, NORTH_UP.to_gdal()))
  located = f'41"><SRS>{text}</SRS><GeoTransform>{place}</GeoTransform>'
  vrt.write_text(vrt.read_text().replace('41">', located, 1))
  with open_scene(vrt, 3) as scene:
    assert scene.grid.crs == plain


@pytest.mark.parametrize("code", [3857, 32644, 4326, 27700, 5514, 6349, 2056, 2193])
def test_crss_of_registers_are_plain(code):
  crs = CRS.from_epsg(code)
  assert plain_crs.parse(crs.to_wkt()) == plain_crs.parse(f"EPSG:{code}") == crs


@pytest.mark.parametrize("end", [",{}", " ,{}", '"",{}', "\xa0+x,{}", "\x1c+x,{}", ";,{}", " +,{}"])
def test_a_list_of_grids_does_not_hide_behind_none(end):
  text = PROJECTED.format("+proj=tmerc +ellps=bessel +nadgrids=@null{} +no_defs")
  with pytest.raises(ValueError, match="its CRS names other files"):
    plain_crs.parse(text.format(end.format("/tmp/x")))


@pytest.mark.parametrize("end", [" +wktext  +no_defs", " +no_defs", "", " no_defs"])
def test_a_crs_without_grids_may_say_so(end):
  text = PROJECTED.format(f"+proj=merc +a=6378137 +b=6378137 +units=m +nadgrids=@null{end}")
  assert not plain_crs.names_files(text)
  assert plain_crs.plain(plain_crs.parse(text)) == CRS.from_wkt(text)


def test_proj_downloads_nothing():
  assert not is_network_enabled()
  assert opens(ROOT / "none", "import os\nos.environ['PROJ_NETWORK'] = 'ON'\n"
    "from lgag_jax.geo import grid\nimport pyproj.network\n"
    "print(pyproj.network.is_network_enabled(), os.environ['PROJ_NETWORK'])")[1] == "False OFF\n"


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("kind", ["eps", "gif", "pipe", "large", "cut"])
def test_a_picture_in_an_output_is_only_read_as_a_png(tmp_path, monkeypatch, kind):
  path, started = tmp_path / "scene.png", []
  if kind == "pipe":
    make_pipe(tmp_path).rename(path)
  elif kind == "large":
    Image.new("L", (2049, 3)).save(path)
  else:
    Image.new("L", (400, 400)).save(path, "gif" if kind == "gif" else "png")
  if kind == "cut":
    path.write_bytes(path.read_bytes()[:-60])
  ghostscript = lambda *_: started.append(1) or Image.new("RGB", (9, 9)).im
  monkeypatch.setattr(EpsImagePlugin, "Ghostscript", ghostscript)
  if kind == "eps":
    path.write_bytes(EPS)
    with Image.open(path) as image:
      image.load()
    assert started  # The attack is real: Ghostscript is a program of its own.
    started.clear()
  result = {"stem": "scene", "name": "scene.tif"}
  words = r"scene\.png is not a (picture.*Delete it|regular file\. Remove)|scene\.png cannot be opened"
  with pytest.raises(ValueError, match=words):
    scene_page._map_pictures(result, {"scene": "scene.tif"}, tmp_path, "mapped")
  assert not started


def test_every_file_is_opened_with_the_formats_that_it_may_have():
  """Without a named format, Pillow and GDAL choose one by the content."""
  for folder in ("lgag_jax", "data"):
    for path in (ROOT / folder).rglob("*.py"):
      nodes = ast.walk(ast.parse(path.read_text()))
      for call in (node for node in nodes if isinstance(node, ast.Call)):
        name, keywords = ast.unparse(call.func), {keyword.arg for keyword in call.keywords}
        if name == "Image.open":
          assert "formats" in keywords, f"{path}:{call.lineno}"
        elif name == "rasterio.open" and len(call.args) == 1:  # For reading.
          assert "driver" in keywords, f"{path}:{call.lineno}"
