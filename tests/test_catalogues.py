"""Catalogues and lists give the right images, and their pixels come right onto a block's grid."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from PIL import Image

from lgag_jax.catalogues import addresses, areas, composites, search, stac
from lgag_jax.geo.grid import Grid
from lgag_jax.imagery.opening import ImageError
from lgag_jax.options.area import Imagery
from tests import area_data, faulty_server
from tests.area_data import EPSG, NAMES, NORTH, WEST
from tests.test_clouds import QA_PIXEL, SCL
from tests.untrained import GSD

RGB = Imagery(assets=NAMES)
HERE = Grid(40, 50, rasterio.crs.CRS.from_epsg(EPSG), Affine(GSD, 0, WEST, 0, -GSD, NORTH))


def values(seed, bands=3, dtype=np.uint8):
  return np.random.default_rng(seed).integers(1, 200, (40, 50, bands)).astype(dtype)


def one_file(folder, name, array, **options):
  """Writes an item of one COG, with the image's place and `options` of the item."""
  made = {key: options.pop(key) for key in ("day", "cloud", "collection", "bands") if key in options}
  path = area_data.write_cog(folder / f"{name}.tif", array, **options)
  return area_data.item(name, {"image": path}, folder, **made)


def composite(folder, items, settings=Imagery(), grid=HERE):
  source = area_data.write_catalogue(folder, items)
  images = search.find_images(str(source), None, 3, settings)
  return composites.read_composite(images, grid, 3, settings)


def test_a_catalogue_of_bands_reads_as_the_ground(tmp_path):
  source = area_data.tiles(tmp_path)
  images = search.find_images(str(source), None, 3, RGB)
  assert [image.name for image in images] == ["tile_0_0", "tile_0_1", "tile_1_0", "tile_1_1"]
  side = 2 * area_data.SIDE
  grid = Grid(side, side, HERE.crs, HERE.transform)
  pixels, valid = composites.read_composite(images, grid, 3, RGB)
  assert valid.all()
  np.testing.assert_array_equal(pixels, area_data.ground(side, side))
  bgr = Imagery(assets=NAMES[::-1])
  turned = search.find_images(str(source), None, 3, bgr)
  np.testing.assert_array_equal(
    composites.read_composite(turned, grid, 3, bgr)[0], area_data.ground(side, side)[..., ::-1]
  )


@pytest.mark.parametrize(("names", "order"), [
  ((), [0, 1, 2]), (("nir", "red", "g1"), [3, 0, 1]), (("4", "1", "2"), [3, 0, 1]),
])
def test_bands_by_name_common_name_and_number(tmp_path, names, order):
  array = values(0, bands=4)
  bands = [
    {"name": "b1", "eo:common_name": "red"}, {"name": "g1"}, {"name": "b3"}, {"common_name": "nir"},
  ]
  items = [one_file(tmp_path, "a", array, bands={"image": bands})]
  pixels, valid = composite(tmp_path, items, Imagery(assets=names))
  assert valid.all()
  np.testing.assert_array_equal(pixels, array[..., order])


def test_unknown_bands_name_those_that_there_are(tmp_path):
  source = str(area_data.write_catalogue(tmp_path, [one_file(tmp_path, "a", values(0))]))
  with pytest.raises(ValueError, match=r"item a has no asset or band 'nir'.*image.*--collections"):
    search.find_images(source, None, 3, Imagery(assets=("nir", "image", "image")))
  with pytest.raises(ValueError, match="needs 3 bands"):
    search.find_images(source, None, 3, Imagery(assets=("red",)))


def test_filters(tmp_path):
  items = [
    one_file(tmp_path, name, values(0), day=day, cloud=cloud, collection=collection)
    for name, day, cloud, collection in (
      ("a", 1, 10, "s2"), ("b", 2, 50, "s2"), ("c", 3, 5, "drone"), ("d", 4, 0, "s2"),
    )
  ]
  items.append(one_file(tmp_path, "far", values(0), west=WEST + 5000, day=9))
  source = str(area_data.write_catalogue(tmp_path, items))
  found = lambda area=None, **settings: "".join(
    image.name[0] for image in search.find_images(source, area, 3, Imagery(**settings))
  )
  assert found() == "abcdf"
  assert found(dates="2015-05-02/2015-05-03") == "bc"
  assert found(max_cloud=10) == "acdf"
  assert found(collections=("s2",)) == "abd"
  assert found(composite="least_cloud") == "dfcab"
  near = shapely.Point(*pyproj.Transformer.from_crs(EPSG, 4326, always_xy=True).transform(
    WEST + 50, NORTH - 40)).buffer(1e-5)
  assert found(near) == "abcd"
  with pytest.raises(ValueError, match="none of 5 images passes"):
    found(dates="2016-01-01/2016-01-02")


@pytest.mark.parametrize(("first", "last", "dates"), [
  ("2015-04-01", "2015-04-20", "before"), ("2015-04-01", "2015-04-30", ""),
  ("2015-04-20", "2015-05-10", ""), ("2015-04-26", "2015-05-10", "after"),
])
@pytest.mark.parametrize("nominal", [None, "2015-04-28T00:00:00Z"])
def test_a_mosaic_counts_if_all_its_days_do(tmp_path, first, last, dates, nominal):
  """One of days before and after an event shows neither date."""
  path = area_data.write_catalogue(tmp_path, [one_file(tmp_path, "mosaic", values(0))])
  content = json.loads((tmp_path / "mosaic.json").read_text())
  content["properties"] |= {
    "datetime": nominal, "start_datetime": f"{first}T00:00:00Z", "end_datetime": f"{last}T23:59:59Z"
  }
  (tmp_path / "mosaic.json").write_text(json.dumps(content))
  for name, days in (("before", "2015-03-01/2015-04-20"), ("after", "2015-04-26/2015-05-10")):
    find = lambda days=days: search.find_images(str(path), None, 3, Imagery(dates=days))
    if name == dates:
      assert len(find()) == 1
    else:
      with pytest.raises(ValueError, match="none of 1 images"):
        find()


def test_a_catalogue_without_items_is_said_to_have_none(tmp_path):
  source = area_data.write_catalogue(tmp_path, [])
  with pytest.raises(ValueError, match=r"catalog\.json holds no item"):
    search.find_images(str(source), None, 3, Imagery())


def test_what_an_item_does_not_state_is_no_reason_to_lose_it_in_silence(tmp_path, caplog):
  items = [one_file(tmp_path, name, values(0)) for name in ("a", "b")]
  source = str(area_data.write_catalogue(tmp_path, items))
  content = json.loads((tmp_path / "b.json").read_text())
  write = lambda **changes: (tmp_path / "b.json").write_text(json.dumps(content | changes))
  found = lambda **settings: [
    image.name for image in search.find_images(source, None, 3, Imagery(**settings))
  ]
  del content["bbox"]
  write(geometry=None)
  assert found() == ["a"] and "1 items state no outline" in caplog.text and "such as b" in caplog.text
  caplog.clear()
  assert found(dates="2015-05-01") == ["a"] and "no outline" in caplog.text
  content["properties"]["eo:cloud_cover"] = float("nan")
  write()
  assert found(max_cloud=50) == ["a"]
  content["properties"] |= {"datetime": None, "start_datetime": "May", "end_datetime": "June"}
  write()
  with pytest.raises(ValueError, match=r"b\.json: the item 'b' has a time that cannot be read"):
    found(dates="2015-05-01")


def test_composites(tmp_path):
  random = np.random.default_rng(3)
  arrays = [values(seed, dtype=np.uint16) for seed in range(3)]
  for array in arrays:
    array[random.random((40, 50)) < 0.3] = 0
  clouds = (30.0, 5.0, 90.0)
  items = [
    one_file(tmp_path, f"i{n}", array, nodata=0, day=n + 1, cloud=clouds[n])
    for n, array in enumerate(arrays)
  ]
  inside = np.stack([(array > 0).all(axis=-1) for array in arrays])
  for rule, order in (("first", (0, 1, 2)), ("least_cloud", (1, 0, 2))):
    pixels, valid = composite(tmp_path, items, Imagery(composite=rule))
    expected = np.zeros((40, 50, 3), np.uint16)
    for n in reversed(order):
      expected[inside[n]] = arrays[n][inside[n]]
    np.testing.assert_array_equal(valid, inside.any(axis=0))
    np.testing.assert_array_equal(pixels[valid], expected[valid])
  pixels, valid = composite(tmp_path, items, Imagery(composite="median"))
  for row, col in ((0, 0), (7, 9), (39, 49), (20, 31)):
    layers = [array[row, col] for n, array in enumerate(arrays) if inside[n, row, col]]
    assert valid[row, col] == bool(layers)
    if layers:
      np.testing.assert_array_equal(pixels[row, col], np.round(np.median(layers, axis=0)))


def with_clouds(folder, key, hidden, *, file="mask", nodata=None, cloud=40.0):
  """Writes an item of an image and a mask, whose key in the catalogue is `key`."""
  image = area_data.write_cog(folder / "image.tif", values(0))
  mask = area_data.write_cog(folder / f"{file}.tif", hidden, nodata=nodata)
  made = area_data.item("a", {"image": image, key: mask}, folder, cloud=cloud)
  made.assets[key].roles = ["metadata"]
  return made


@pytest.mark.parametrize(("key", "file", "nodata"), [
  ("scl", "m", None), ("SCL", "m", 0), ("qa_pixel", "m", 1), ("QA", "LC08_QA_PIXEL", None),
])
def test_clouds_of_both_products_are_no_data(tmp_path, key, file, nodata):
  expected = SCL if "scl" in key.lower() else QA_PIXEL
  dtype = np.uint8 if expected is SCL else np.uint16
  classes = np.resize(np.array(list(expected), dtype), (40, 50))
  made = with_clouds(tmp_path, key, classes, file=file, nodata=nodata)
  names = (key.lower(),) if key == "QA" else Imagery().cloud_mask
  _, valid = composite(tmp_path, [made], Imagery(cloud_mask=names))
  np.testing.assert_array_equal(valid, ~np.vectorize(expected.get)(classes))
  assert composite(tmp_path, [made], Imagery(cloud_mask=()))[1].all()


def test_ground_that_a_cloud_mask_does_not_cover_is_no_data(tmp_path):
  made = with_clouds(tmp_path, "qa_pixel", np.full((20, 50), 21824, np.uint16))
  _, valid = composite(tmp_path, [made])
  assert valid[:20].all() and not valid[20:].any()


def test_classes_of_other_masks_are_named(tmp_path):
  classes = np.resize(np.arange(5, dtype=np.uint8), (40, 50))
  made = with_clouds(tmp_path, "fmask", classes)
  _, valid = composite(tmp_path, [made], Imagery(cloud_mask=("fmask",), cloud_classes=(2, 4)))
  np.testing.assert_array_equal(valid, ~np.isin(classes, (2, 4)))
  with pytest.raises(ValueError, match=r"item a: fmask is neither SCL .*--cloud_classes=2,4"):
    composite(tmp_path, [made], Imagery(cloud_mask=("fmask",)))
  made = with_clouds(tmp_path, "scl", classes)
  _, valid = composite(tmp_path, [made], Imagery(cloud_classes=(3,)))
  np.testing.assert_array_equal(valid, classes != 3)
  made = with_clouds(tmp_path, "qa_pixel", classes)
  with pytest.raises(ValueError, match="item a: qa_pixel holds bits, not the values of"):
    composite(tmp_path, [made], Imagery(cloud_classes=(2, 4)))


def test_clouds_without_a_mask_are_warned_of(tmp_path, caplog):
  composite(tmp_path, [with_clouds(tmp_path, "scl", np.full((40, 50), 4, np.uint8))])
  composite(tmp_path, [with_clouds(tmp_path, "other", np.full((40, 50), 4, np.uint8), cloud=0.0)])
  made = with_clouds(tmp_path, "other", np.full((40, 50), 4, np.uint8))
  composite(tmp_path, [made], Imagery(cloud_mask=()))
  assert not caplog.text
  composite(tmp_path, [made])
  assert "1 of 1 images have clouds (eo:cloud_cover), but no asset scl or qa_pixel" in caplog.text


def test_scale_and_offset_of_files_and_catalogues(tmp_path):
  array = values(1, dtype=np.uint16)
  scaled = array * 1e-4 - 0.1
  own = one_file(tmp_path, "own", array, scale=1e-4, offset=-0.1)
  other = one_file(tmp_path, "other", array, bands={"image": [
    {"raster:scale": 1e-4, "raster:offset": -0.1, "nodata": 7}] * 3})
  for made, valid in ((own, np.ones((40, 50), bool)), (other, (array != 7).all(axis=-1))):
    pixels, inside = composite(tmp_path, [made])
    np.testing.assert_array_equal(inside, valid)
    np.testing.assert_allclose(pixels[valid], scaled[valid], rtol=1e-6)
    raw, _ = composite(tmp_path, [made], Imagery(values="raw"))
    np.testing.assert_array_equal(raw[valid], array[valid])


def test_another_zone_and_resolution_lie_where_they_belong(tmp_path):
  rows, cols = np.mgrid[:400, :500].astype(np.float32)
  transformer = pyproj.Transformer.from_crs(EPSG, 32644, always_xy=True)
  west, north = transformer.transform(WEST, NORTH)
  # A plane of eastings and northings in the other zone, at a quarter of the resolution.
  plane = np.stack([cols, rows, cols + rows], axis=-1)
  made = one_file(
    tmp_path, "a", plane, epsg=32644, west=west - 100, north=north + 100, gsd=GSD / 4
  )
  with rasterio.open(tmp_path / "a.tif") as raster:
    items = [made]
    items[0].geometry = shapely.geometry.mapping(shapely.box(80, 20, 95, 35))
    grid = Grid(8, 8, HERE.crs, HERE.transform)
    pixels, valid = composite(tmp_path, items, grid=grid)
    for row, col in ((0, 0), (3, 6), (7, 7)):
      centre = transformer.transform(*(HERE.transform @ (col + 0.5, row + 0.5)))
      col_there, row_there = ~raster.transform @ centre
      assert valid[row, col]
      np.testing.assert_allclose(pixels[row, col, :2], [col_there - 0.5, row_there - 0.5], atol=0.7)


def test_lists_folders_and_globs(tmp_path):
  for name in "ab":
    area_data.write_cog(tmp_path / f"{name}.tif", values(ord(name)))
  (tmp_path / "list.txt").write_text("# Two images\nb.tif\n\na.tif\n")
  names = lambda source: [i.name for i in search.find_images(str(source), None, 3, Imagery())]
  assert names(tmp_path / "list.txt") == ["b.tif", "a.tif"]
  assert names(tmp_path) == names(tmp_path / "*.tif") == ["a.tif", "b.tif"]
  with pytest.raises(ValueError, match="--dates needs a STAC catalogue"):
    search.find_images(str(tmp_path), None, 3, Imagery(dates="2015-01-01/2015-01-02"))
  Image.fromarray(values(0)).save(tmp_path / "c.tif")
  with pytest.raises(ImageError, match=r"c\.tif has no place on the Earth"):
    names(tmp_path)


def test_a_mask_beside_an_image_is_not_ignored(tmp_path):
  source = str(area_data.write_catalogue(tmp_path, [one_file(tmp_path, "a", values(0))]))
  images = search.find_images(source, None, 3, Imagery())
  (tmp_path / "a.tif.msk").write_bytes(b"II*")
  with pytest.raises(ImageError, match=r"a\.tif\.msk changes its image"):
    composites.read_composite(images, HERE, 3, Imagery())


def test_a_key_changes_with_the_file(tmp_path):
  source = str(area_data.write_catalogue(tmp_path, [one_file(tmp_path, "a", values(0))]))
  key = lambda: search.find_images(source, None, 3, Imagery())[0].key
  first = key()
  assert key() == first
  area_data.write_cog(tmp_path / "a.tif", values(1))
  assert key() != first


@pytest.mark.parametrize(("address", "base", "message"), [
  ("https://a.org/x.tif", "/data/catalog.json", "may not make lgag reach out.*--remote"),
  ("s3://bucket/x.tif", "/data/list.txt", "--remote"),
  ("/etc/passwd", "https://a.org/catalog.json", None),
  ("file:///etc/passwd", "https://a.org/catalog.json", "may not name local files"),
  ("/vsicurl/x.tif", "/data/catalog.json", "not a plain file"),
  ("ftp://a.org/x.tif", "/data/catalog.json", "the schemes"),
  ("", "/data/catalog.json", "no address"),
])
def test_addresses(address, base, message):
  if message is None:  # On the catalogue's own server.
    assert addresses.resolve(address, base, allow_remote=True) == "https://a.org/etc/passwd"
    return
  with pytest.raises(addresses.AddressError, match=message):
    addresses.resolve(address, base, allow_remote=addresses.is_remote(base))


def test_relative_addresses():
  resolve = addresses.resolve
  assert resolve("./b/x.tif", "/a/c.json", allow_remote=False) == "/a/b/x.tif"
  assert resolve("../x.tif", "s3://k/a/c.json", allow_remote=True) == "s3://k/x.tif"
  assert resolve("x.tif", "https://h/a/c.json?t=1", allow_remote=True) == "https://h/a/x.tif"
  assert addresses.gdal_name("s3://k/a/x.tif") == "/vsis3/k/a/x.tif"


@pytest.mark.parametrize(("one", "other", "same"), [
  ("http://h/a/../b.json", "HTTP://H/b.json#x", True), ("http://h/b?n=1", "http://h/b", False),
  ("http://h//a/x.json", "http://h//b/x.json", False), ("s3://k/a/../b", "s3://k/b", False),
  ("/a/../b.json", "/b.json", True),
])
def test_spellings_of_an_address(one, other, same):
  assert (addresses.identity(one) == addresses.identity(other)) == same


def test_each_file_of_a_catalogue_is_read_once(tmp_path, monkeypatch):
  folder, read = tmp_path / "a", []
  folder.mkdir()
  (tmp_path / "link").symlink_to(folder)
  box = shapely.geometry.mapping(shapely.box(0, 0, 1, 1))
  item = {
    "type": "Feature", "stac_version": "1.0.0", "id": "i", "geometry": box, "links": [],
    "properties": {"datetime": "2020-01-01T00:00:00Z"}, "assets": {},
  }
  names = ["i.json", "./i.json", "../a/i.json", "../link/i.json"]
  links = [{"rel": "item", "href": name} for name in names]
  links += [{"rel": "child", "href": f"{'../a/' * n}c.json"} for n in range(30)]
  catalogue = {"type": "Catalog", "id": "c", "stac_version": "1.0.0", "description": "", "links": links}
  (folder / "i.json").write_text(json.dumps(item))
  (folder / "c.json").write_text(json.dumps(catalogue))
  original = stac._JsonReader._bytes
  monkeypatch.setattr(
    stac._JsonReader, "_bytes", lambda self, address: read.append(address) or original(self, address)
  )
  items = list(stac.read_items(str(folder / "c.json"), None, Imagery()))
  assert [one.id for one, _ in items] == ["i"]
  assert sorted(read) == [str(folder / "c.json"), str(folder / "i.json")]


@pytest.mark.parametrize(("collections", "ids"), [
  ((None, None), ("T45", "T45")), (("s2", "s2"), ("T45", "T45")), ((None, None), ("1", "2")),
])
def test_items_of_one_id_are_two_images_if_their_files_differ(tmp_path, collections, ids):
  places = zip(("west", "east"), (WEST, WEST + 400), collections, ids, strict=True)
  for folder, west, collection, name in places:
    path = area_data.write_cog(tmp_path / folder / "img.tif", values(0), west=west)
    made = area_data.item(name, {"image": path}, tmp_path / folder, collection=collection)
    area_data.write_catalogue(tmp_path / folder, [made])
  (tmp_path / "copy").mkdir()  # Of one item, whose file stays where it is.
  item = json.loads((tmp_path / "west" / f"{ids[0]}.json").read_text())
  item["assets"]["image"]["href"] = "../copy/../west/img.tif"
  (tmp_path / "copy" / "i.json").write_text(json.dumps(item))
  links = [{"rel": "child", "href": f"./{folder}/catalog.json"} for folder in ("west", "east")]
  links.append({"rel": "item", "href": "./copy/i.json"})
  (tmp_path / "catalog.json").write_text(json.dumps({
    "type": "Catalog", "stac_version": "1.1.0", "id": "x", "description": "t", "links": links,
  }))
  images = search.find_images(str(tmp_path / "catalog.json"), None, 3, Imagery())
  # The first of the west's two items stays.
  found = [image.bands[0].address.replace("copy/../", "") for image in images]
  assert found == [str(tmp_path / folder / "img.tif") for folder in ("west", "east")]


def test_few_files_of_a_catalogue_are_read_ahead(tmp_path, monkeypatch):
  read = []
  monkeypatch.setattr(
    stac._JsonReader, "_content", lambda self, address: read.append(address) or b"{}"
  )
  reader = stac._JsonReader(Imagery(readers=2), allow_remote=False)
  names = [str(n) for n in range(50)]
  with ThreadPoolExecutor(2) as pool:
    files = reader._read_ahead(names, pool)
    assert next(files) == ("0", {}) and len(read) <= 5
    assert [name for name, _ in files] == names[1:]


def test_a_local_catalogue_never_reaches_out(tmp_path):
  source = area_data.tiles(tmp_path, 1, 1)
  with faulty_server.serve(tmp_path) as (address, log):
    for hide in ("asset", "item"):
      path = source if hide == "item" else tmp_path / "tile_0_0.json"
      text = path.read_text()
      local = "./tile_0_0.json" if hide == "item" else "./tile_0_0/red.tif"
      path.write_text(text.replace(local, f"{address}/{local[2:]}"))
      with pytest.raises(addresses.AddressError, match="--remote"):
        search.find_images(str(source), None, 3, RGB)
      assert not log
      assert len(search.find_images(str(source), None, 3, Imagery(assets=NAMES, remote=True))) == 1
      path.write_text(text)


def test_a_self_link_does_not_move_an_item(tmp_path):
  source = area_data.tiles(tmp_path, 1, 1)
  path = tmp_path / "tile_0_0.json"
  content = json.loads(path.read_text())
  content["links"].append({"rel": "self", "href": "https://elsewhere.org/a/b.json"})
  path.write_text(json.dumps(content))
  (image,) = search.find_images(str(source), None, 3, RGB)
  assert image.bands[0].address == str(tmp_path / "tile_0_0" / "red.tif")


def test_a_server_that_fails_now_and_then_changes_nothing(tmp_path):
  source = area_data.tiles(tmp_path, 1, 1)
  grid = Grid(area_data.SIDE, area_data.SIDE, HERE.crs, HERE.transform)
  local = search.find_images(str(source), None, 3, RGB)
  expected = composites.read_composite(local, grid, 3, RGB)
  settings = Imagery(assets=NAMES, timeout=1, retries=5)
  with faulty_server.serve(tmp_path, ("", "503", "", "truncate", "", "")) as (address, log):
    images = search.find_images(f"{address}/catalog.json", None, 3, settings)
    pixels, valid = composites.read_composite(images, grid, 3, settings)
  assert {fault for fault, _ in log} == {"", "503", "truncate"}
  np.testing.assert_array_equal(pixels, expected[0])
  np.testing.assert_array_equal(valid, expected[1])


def test_a_server_that_always_fails_is_an_error(tmp_path):
  source = area_data.tiles(tmp_path, 1, 1)
  (image,) = search.find_images(str(source), None, 3, RGB)
  with faulty_server.serve(tmp_path, ("503",)) as (address, _):
    settings = Imagery(assets=NAMES, timeout=1, retries=0)
    band = image.bands[0].address.replace(str(tmp_path), address)
    broken = type(image)("x", (type(image.bands[0])(band),) * 3, image.footprint)
    with pytest.raises(ImageError, match=r"red\.tif"):
      composites.read_image(broken, HERE, settings)


def test_areas(tmp_path):
  path = tmp_path / "area.geojson"
  boxes = [shapely.geometry.mapping(shapely.box(x, 1, x + 1, 2)) for x in (85, 86)]
  write = lambda content: path.write_text(json.dumps(content))
  write({"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": b} for b in boxes]})
  assert areas.read_area(path).equals(shapely.box(85, 1, 87, 2))
  write(boxes[0])
  assert areas.read_area(path).equals(shapely.box(85, 1, 86, 2))
  for content, message in (
    ({"type": "Point", "coordinates": [1, 2]}, "no area"), ({"type": "Feature"}, "no GeoJSON"),
    ([], "no GeoJSON"), ({"type": "FeatureCollection", "features": []}, "it holds no feature"),
    (boxes[0] | {"crs": {"properties": {"name": "EPSG:32645"}}}, "EPSG:32645"),
    (shapely.geometry.mapping(shapely.box(5e5, 1, 6e5, 2)), "not degrees"),
  ):
    write(content)
    with pytest.raises(ValueError, match=message):
      areas.read_area(path)


def test_outlines_that_cross_themselves_often_are_refused(tmp_path):
  """Repairing them would take hours."""
  crossing, few = (
    np.random.default_rng(0).uniform(0, 10, (n, 2)).tolist() for n in (300, 40)
  )
  polygon = {"type": "Polygon", "coordinates": [[*crossing, crossing[0]]]}
  several = {"type": "MultiPolygon", "coordinates": [
    [[*crossing[n : n + 60], crossing[n]]] for n in range(0, 300, 60)]}
  across = [[x + 175 - 360 * (x > 5), y] for x, y in crossing]  # The 180th meridian.
  wide = {"type": "Polygon", "coordinates": [[*across, across[0]]]}
  beside = {"type": "MultiPolygon", "coordinates": [
    polygon["coordinates"], [[[179, 1], [179, 2], [-179, 2], [-179, 1], [179, 1]]]]}
  path = tmp_path / "area.geojson"
  collection = {"type": "GeometryCollection", "geometries": [several]}
  for content in (polygon, several, collection, wide, beside):
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"area\.geojson .* crosses itself more than 2000 times"):
      areas.read_area(path)
  path.write_text(json.dumps({"type": "Polygon", "coordinates": [[*few, few[0]]]}))
  assert areas.read_area(path).is_valid
  item = {
    "type": "Feature", "stac_version": "1.0.0", "id": "i", "geometry": polygon, "links": [],
    "properties": {"datetime": "2020-01-01T00:00:00Z"}, "assets": {"visual": {"href": "a.tif"}},
  }
  path = tmp_path / "item.json"
  path.write_text(json.dumps(item))
  with pytest.raises(ValueError, match=r"item\.json: the item 'i' .* crosses itself more than 2000"):
    search.find_images(str(path), shapely.box(0, 0, 1, 1), 3, Imagery())


@pytest.mark.parametrize("change", [
  {"id": ["a"]}, {"collection": ["a"]}, {"geometry": {"type": "Polygon"}},
  {"geometry": {"type": "GeometryCollection"}}, {"assets": {"a": {"href": "a.tif", "type": 7}}},
  {"assets": {"a": {"href": "a.tif", "roles": 7}}},
])
def test_an_item_with_values_of_other_types_is_named(tmp_path, change):
  outline = shapely.geometry.mapping(shapely.box(0, 0, 1, 1))
  item = {
    "type": "Feature", "stac_version": "1.0.0", "id": "i", "geometry": outline, "links": [],
    "properties": {"datetime": "2020-01-01T00:00:00Z"}, "assets": {"a": {"href": "a.tif"}},
  }
  (tmp_path / "bad.json").write_text(json.dumps(item | change))
  with pytest.raises(ValueError, match=r"bad\.json.*(is not STAC|no outline that can be used)"):
    search.find_images(str(tmp_path / "bad.json"), shapely.box(0, 0, 1, 1), 3, Imagery())


@pytest.mark.parametrize("text", ["{", "[]", '{"type": "Point"}', '{"type": "Feature", "id": 3}'])
def test_what_is_not_stac_is_named(tmp_path, text):
  (tmp_path / "bad.json").write_text(text)
  with pytest.raises(ValueError, match=r"bad\.json"):
    search.find_images(str(tmp_path / "bad.json"), None, 3, Imagery())


def ring(*points):
  return {"type": "Polygon", "coordinates": [[*map(list, points), list(points[0])]]}


FIJI = ((179.5, -18), (-179.5, -18), (-179.5, -16), (179.5, -16))
INSIDE, OUTSIDE = ((179.7, -17), (-179.7, -17)), ((0.5, -17), (179.3, -17), (-179.3, -17))


@pytest.mark.parametrize(("geometry", "inside", "outside"), [
  (ring(*FIJI), INSIDE, OUTSIDE), (ring(*FIJI[::-1]), INSIDE, OUTSIDE),
  ({"type": "MultiPolygon", "coordinates": [ring(*FIJI)["coordinates"], ring(
    (10, 1), (11, 1), (11, 2), (10, 2))["coordinates"]]}, (*INSIDE, (10.5, 1.5)), OUTSIDE),
  ({"type": "GeometryCollection", "geometries": [ring(*FIJI)]}, INSIDE, OUTSIDE),
  (ring((-180, -60), (180, -60), (180, 60), (-180, 60)), ((0, 0), (179, 1), (-179, 1)), ((0, 61),)),
  (ring((-80, -60), (90, -60), (90, 60), (-80, 60)), ((0, 0),), ((100, 0),)),
])
def test_footprints_across_the_180th_meridian_are_cut(geometry, inside, outside):
  polygon = areas.polygon_of(geometry)
  assert polygon.is_valid and polygon.bounds[0] >= -180 and polygon.bounds[2] <= 180
  for points, meets in ((inside, True), (outside, False)):
    assert [polygon.intersects(shapely.Point(p)) for p in points] == [meets] * len(points)


@pytest.mark.parametrize(("points", "inside", "warned"), [
  (FIJI, INSIDE, False), (((-170, -60), (170, -60), (170, 60), (-170, 60)), ((0, 0), (169, 0)), True),
  (((-180, -60), (180, -60), (180, 60), (-180, 60)), ((0, 0), (179, 0)), False),
])
def test_wide_areas_stay_and_areas_across_the_180th_meridian_are_cut(
  tmp_path, caplog, points, inside, warned
):
  path = tmp_path / "area.geojson"
  path.write_text(json.dumps(ring(*points)))
  area = areas.read_area(path)
  assert all(area.intersects(shapely.Point(p)) for p in inside)
  assert area.intersects(shapely.Point(0.5, -17)) == (points != FIJI)
  assert ("more than 180 degrees" in caplog.text) == warned


@pytest.mark.parametrize("west", [180.5, 200])
def test_areas_beyond_180_degrees_are_refused(tmp_path, west):
  path = tmp_path / "area.geojson"
  path.write_text(json.dumps(shapely.geometry.mapping(shapely.box(west, 1, west + 1, 2))))
  with pytest.raises(ValueError, match="not degrees of longitude"):
    areas.read_area(path)
