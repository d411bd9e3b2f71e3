"""What a catalogue says of values and clouds is applied, or refused; lists are read in full."""

import dataclasses
import json
import unicodedata

import numpy as np
import pytest
import rasterio
from affine import Affine

from lgag_jax.catalogues import addresses, areas, composites, search
from lgag_jax.imagery.opening import ImageError
from lgag_jax.options.area import Imagery
from tests import area_data
from tests.area_data import NORTH, WEST
from tests.test_catalogues import HERE, composite, one_file, values, with_clouds

ARRAY = values(0)


@pytest.mark.parametrize("nodata", [-9999, 65535, 256.5, "nan", "inf", "none", ""])
@pytest.mark.parametrize("composed", ["first", "median"])
def test_a_nodata_value_that_the_type_cannot_hold_changes_no_type(tmp_path, nodata, composed):
  """GDAL would read bytes as int16 or floats, by whose range a network divides them."""
  items = [
    one_file(tmp_path, name, ARRAY, bands={"image": [{"nodata": nodata}] * 3}) for name in "ab"]
  pixels, valid = composite(tmp_path, items, Imagery(composite=composed))
  assert pixels.dtype == np.uint8 and valid.all()
  np.testing.assert_array_equal(pixels, ARRAY)


def test_the_files_own_nodata_counts_if_the_catalogues_cannot(tmp_path):
  made = one_file(tmp_path, "a", ARRAY, nodata=7, bands={"image": [{"nodata": -9999}] * 3})
  pixels, valid = composite(tmp_path, [made])
  assert pixels.dtype == np.uint8
  np.testing.assert_array_equal(valid, (ARRAY != 7).all(axis=-1))


def test_signed_bytes_stay_signed_bytes(tmp_path):
  array = (ARRAY.astype(np.int16) - 100).clip(-100, 99).astype(np.int8)
  pixels, _ = composite(tmp_path, [one_file(tmp_path, "a", array)])
  assert pixels.dtype == np.int8
  np.testing.assert_array_equal(pixels, array)


def test_what_an_item_says_of_all_its_assets_counts(tmp_path):
  made = one_file(tmp_path, "a", ARRAY)
  made.properties |= {"nodata": 7, "raster:scale": 0.5}
  pixels, valid = composite(tmp_path, [made])
  np.testing.assert_array_equal(valid, (ARRAY != 7).all(axis=-1))
  np.testing.assert_array_equal(pixels[valid], ARRAY[valid] * 0.5)


@pytest.mark.parametrize(("said", "offset"), [
  ({}, -0.1), ({"earthsearch:boa_offset_applied": False}, -0.1),
  ({"earthsearch:boa_offset_applied": True}, 0.0), ({"sentinel:boa_offset_applied": True}, 0.0),
])
def test_an_offset_that_is_applied_is_not_applied_again(tmp_path, said, offset):
  """Items of Earth Search state the offset in both cases."""
  array = values(3, dtype=np.uint16) * 50
  made = one_file(tmp_path, "a", array, bands={"image": [{"scale": 1e-4, "offset": -0.1}] * 3})
  made.properties |= said
  np.testing.assert_allclose(composite(tmp_path, [made])[0], array * 1e-4 + offset, atol=1e-6)


@pytest.mark.parametrize(("said", "message"), [
  ({"scale": "abc"}, "the scale 'abc'"), ({"scale": 0}, "the scale '0'"),
  ({"offset": float("nan")}, "the offset 'nan'"), ({"nodata": [0]}, r"the nodata '\[0\]'"),
])
def test_numbers_of_a_catalogue_that_are_none_are_named(tmp_path, said, message):
  made = one_file(tmp_path, "a", ARRAY, bands={"image": [said] * 3})
  with pytest.raises(ValueError, match=rf"item a: .*a\.tif' has {message}, which is none.*Correct"):
    composite(tmp_path, [made])


@pytest.mark.parametrize(("said", "fits"), [
  ({"scale": 0.02, "offset": 0}, True), ({"scale": 0.02}, True), ({}, True), ({"nodata": 255}, True),
  ({"scale": 0.01}, False), ({"scale": 0.02, "offset": -1}, False), ({"scale": 1, "offset": 0}, False),
])
def test_a_file_and_its_catalogue_agree_on_the_scale(tmp_path, said, fits):
  made = one_file(tmp_path, "a", ARRAY, scale=0.02, offset=0.0, bands={"image": [said] * 3})
  np.testing.assert_array_equal(composite(tmp_path, [made], Imagery(values="raw"))[0], ARRAY)
  if fits:
    np.testing.assert_allclose(composite(tmp_path, [made])[0], ARRAY * 0.02, rtol=1e-6)
    return
  with pytest.raises(ImageError, match=r"a\.tif has the scale 0\.02 .*catalogue says.*--values=raw"):
    composite(tmp_path, [made])


def test_the_key_of_an_asset_of_several_bands_means_none_of_them(tmp_path):
  bands = {"image": [{"name": "r"}, {"common_name": "green"}, {}]}
  source = area_data.write_catalogue(tmp_path, [one_file(tmp_path, "a", ARRAY, bands=bands)])
  with pytest.raises(ValueError, match=r"item a: the asset image has 3 bands: r, green, \?\. Name one"):
    search.find_images(str(source), None, 1, Imagery(assets=("image",)))


@pytest.mark.parametrize(("width", "nodata"), [(25, None), (50, 255)])
def test_clouds_may_be_where_other_masks_have_no_value(tmp_path, width, nodata):
  classes = np.where(np.arange(50) % 5 == 2, 9, 4).astype(np.uint8) * np.ones((40, 1), np.uint8)
  classes[30:] = nodata or 4
  settings = Imagery(cloud_mask=("fmask",), cloud_classes=(9,))
  _, valid = composite(
    tmp_path, [with_clouds(tmp_path, "fmask", classes[:, :width], nodata=nodata)], settings)
  expected = classes == 4
  expected[:, width:] = False
  np.testing.assert_array_equal(valid, expected)


def test_a_mask_whose_clear_ground_is_nodata_is_refused(tmp_path):
  clouds = (np.indices((40, 50)).sum(axis=0) % 3 == 0).astype(np.uint8)
  settings = Imagery(cloud_mask=("mask",), cloud_classes=(1,))
  _, valid = composite(tmp_path, [with_clouds(tmp_path, "mask", clouds, file="m")], settings)
  np.testing.assert_array_equal(valid, clouds == 0)
  with pytest.raises(ImageError, match=r"m\.tif declares 0 as nodata.*-unsetnodata"):
    composite(tmp_path, [with_clouds(tmp_path, "mask", clouds, file="m", nodata=0)], settings)


@pytest.mark.parametrize(("key", "array", "message"), [
  ("scl", np.full((40, 50), 40, np.uint8), "holds 40, so it is not a scene classification"),
  ("scl", np.full((40, 50), 22280, np.uint16), "holds 22280, so it is not a scene classification"),
  ("qa_pixel", np.full((40, 50), 4, np.uint16), "holds 4, so it is not a QA_PIXEL"),
  ("scl", np.full((40, 50), 0.4, np.float32), "holds 0.4.*whole numbers"),
  ("scl", np.full((40, 50, 3), 4, np.uint8), "has 3 bands, but a cloud mask has one"),
])
def test_values_that_a_cloud_mask_cannot_have_are_named(tmp_path, key, array, message):
  with pytest.raises(ImageError, match=rf"m\.tif {message}"):
    composite(tmp_path, [with_clouds(tmp_path, key, array, file="m")])


def test_a_cloud_mask_that_was_asked_for_is_missed(tmp_path, caplog):
  made = with_clouds(tmp_path, "scl", np.full((40, 50), 4, np.uint8))
  del made.properties["eo:cloud_cover"]
  composite(tmp_path, [made])
  assert not caplog.text
  composite(tmp_path, [made], Imagery(cloud_mask=("slc",)))
  assert "1 of 1 images have clouds (eo:cloud_cover) or may have some, but no asset slc" in caplog.text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_lists_are_read_as_editors_write_them(tmp_path, encoding, form):
  for name in ("é 0.tif", "b.tif"):
    area_data.write_cog(tmp_path / name, ARRAY)
  text = unicodedata.normalize(form, "  # Two\r\né 0.tif  \r\n\r\n./é 0.tif\r\nb.tif")
  (tmp_path / "list.txt").write_bytes(text.encode(encoding))
  images = search.find_images(str(tmp_path / "list.txt"), None, 3, Imagery())
  assert [image.name for image in images] == ["é 0.tif", "b.tif"]
  assert composites.read_composite(images, HERE, 3, Imagery())[1].all()


@pytest.mark.parametrize(("content", "message"), [
  ("é.tif".encode("latin-1"), "is not text in UTF-8.*Save it"), (b" \n# none\n", "names no image"),
])
def test_a_list_that_cannot_be_read_is_named(tmp_path, content, message):
  (tmp_path / "list.txt").write_bytes(content)
  with pytest.raises(ValueError, match=rf"--input=.*list\.txt {message}"):
    search.find_images(str(tmp_path / "list.txt"), None, 3, Imagery())


@pytest.mark.parametrize(("settings", "flag"), [
  ({"cloud_mask": ("fmask",), "cloud_classes": (2,)}, "--cloud_mask"),
  ({"cloud_classes": (2, 4)}, "--cloud_classes"), ({"composite": "least_cloud"}, "--composite"),
])
def test_files_have_no_cloud_masks(tmp_path, settings, flag):
  path = tmp_path / "a.tif"
  with rasterio.open(
    path, "w", driver="GTiff", height=40, width=50, count=3, dtype="uint8", crs="EPSG:32645",
    transform=Affine(2, 0, WEST, 0, -2, NORTH),
  ) as raster:
    raster.write(np.moveaxis(ARRAY, -1, 0))
  assert len(search.find_images(str(path), None, 3, Imagery(cloud_mask=()))) == 1
  with pytest.raises(ValueError, match=f"{flag}.* needs a STAC catalogue"):
    search.find_images(str(path), None, 3, Imagery(**settings))


@pytest.mark.parametrize(("name", "written"), [
  ("a b", "./a%20b.tif"), ("a%20b", "./a%20b.tif"), ("a#b?c", "a%23b%3Fc.tif"), ("é", "./e\u0301.tif"),
  ("é", "%C3%A9.tif"),
])
def test_addresses_in_a_catalogue_may_be_written_as_urls(tmp_path, name, written):
  made = one_file(tmp_path, name, ARRAY)
  made.assets["image"].href, made.id = written, "a"
  np.testing.assert_array_equal(composite(tmp_path, [made])[0], ARRAY)


@pytest.mark.parametrize("name", ["a?b", "a#b", "a%20b", "é[1] \n😀"])
def test_a_catalogue_may_lie_in_a_folder_of_any_name(tmp_path, name):
  folder = tmp_path / name
  made = one_file(folder, "c?d", ARRAY)
  made.assets["image"].media_type, made.id = None, "a"
  for source in (area_data.write_catalogue(folder, [made]), folder):
    images = search.find_images(str(source), None, 3, Imagery())
    np.testing.assert_array_equal(composites.read_composite(images, HERE, 3, Imagery())[0], ARRAY)


@pytest.mark.parametrize("address", ["%2Fvsicurl/x.tif", "/%76simem/x.tif"])
def test_an_address_written_as_a_url_is_no_way_around(tmp_path, address):
  with pytest.raises(addresses.AddressError, match="not a plain file"):
    addresses.resolve(address, str(tmp_path / "a.json"), allow_remote=False)


@pytest.mark.parametrize(("moved", "beside", "refused"), [(0, 0, 0), (5000, 0, 1), (0, 5000, 0)])
def test_an_outline_that_hides_its_image_is_named(tmp_path, moved, beside, refused):
  """Blocks are planned where the outline is."""
  made = one_file(tmp_path, "a", ARRAY)
  other = one_file(tmp_path, "b", ARRAY, west=WEST + moved)
  made.geometry = other.geometry
  grid = dataclasses.replace(
    HERE, transform=Affine.translation(moved + beside, 0) @ HERE.transform)
  if refused:
    with pytest.raises(ImageError, match=r"a\.tif does not lie where .*a.json says.*longitude, lat"):
      composite(tmp_path, [made], grid=grid)
    return
  assert composite(tmp_path, [made], grid=grid)[1].all() == (not beside)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_an_area_is_read_as_editors_write_it(tmp_path, encoding):
  square = {"type": "Polygon", "coordinates": [[[86, 27], [87, 27], [87, 28], [86, 28], [86, 27]]]}
  path = tmp_path / "area.geojson"
  path.write_bytes(json.dumps(square).encode(encoding))
  assert areas.read_area(path).bounds == (86, 27, 87, 28)
  features = [{"type": "Feature", "geometry": one} for one in (square, None)]
  path.write_bytes(json.dumps({"type": "FeatureCollection", "features": features}).encode(encoding))
  with pytest.raises(ValueError, match=r"area\.geojson .*a feature has no geometry"):
    areas.read_area(path)
