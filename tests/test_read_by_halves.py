"""Files that could be read in part, or in two ways, are refused by name: tables, masks, palettes."""

import numpy as np
import pytest
import rasterio
from PIL import Image

from lgag_jax import config as configs
from lgag_jax.imagery import mask_values, reading, tables
from lgag_jax.inputs.sources import open_source


@pytest.mark.parametrize("text", [
  'row,col,label,note\n1,1,landslide,ok\n2,2,landslide,"steep\n0,0,no,x\n3,5,landslide,y\n',
  'row,col,label,note\n1,1,no,"steep\n0,0,no,x\n3,5,no,y"\n2,2,no,z\n',
  'image;label\na.png;"yes\nb.png;no\nc.png;yes"\n',
  'image,label\na.png,"yes\n',
])
def test_a_quotation_mark_that_swallows_rows_is_refused(tmp_path, text):
  path = tmp_path / "table.csv"
  path.write_text(text)
  with pytest.raises(ValueError, match=r"table\.csv"):
    tables.read_table(path, ("label",))


def test_a_note_with_line_breaks_is_read(tmp_path):
  path = tmp_path / "table.csv"
  path.write_text('image,label,note\r\na.png,yes,"steep,\r\nwet and dark"\r\nb.png,no,\r\n')
  rows = tables.read_table(path, ("label",))
  assert [row["image"] for _, row in rows] == ["a.png", "b.png"]
  assert rows[0][1]["note"].startswith("steep,")


@pytest.mark.parametrize(("transparent", "opacity"), [
  ([0, 1], 0), ([40, 20, 0], 0), (list(range(32)), 0), ([7], 128),
])
def test_a_palette_whose_transparency_gdal_drops_is_refused(tmp_path, transparent, opacity):
  path = tmp_path / "p.png"
  pixels = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)
  alpha = bytes(opacity if i in transparent else 255 for i in range(max(transparent) + 1))
  Image.fromarray(pixels).quantize(64).save(path, transparency=alpha)
  with pytest.raises(reading.ImageError, match=r"p\.png has a palette with transparent"):
    reading.read_image(path, 3)


def test_palettes_with_one_transparent_colour_or_none_are_read(tmp_path):
  image = Image.fromarray(np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)).quantize(64)
  image.save(tmp_path / "opaque.png")
  image.save(tmp_path / "one.png", transparency=3)
  for name in ("opaque.png", "one.png"):
    assert reading.read_image(tmp_path / name, 3).shape == (64, 64, 3)


@pytest.mark.parametrize("value", [1, 255])
def test_a_mask_whose_landslides_are_nodata_is_refused(tmp_path, value):
  path = tmp_path / "m.tif"
  mask = np.zeros((1, 32, 32), np.uint8)
  mask[:, :8] = value
  with rasterio.open(
    path, "w", driver="GTiff", height=32, width=32, count=1, dtype="uint8", nodata=value
  ) as raster:
    raster.write(mask)
  with pytest.raises(ValueError, match=rf"m\.tif declares {value} as nodata"):
    mask_values.decide([path], classes=1, ignore=mask_values.BY_VALUES)


def write_images(folder, names):
  folder.mkdir(parents=True, exist_ok=True)
  for number, name in enumerate(names):
    Image.fromarray(np.full((32, 32, 3), 40 + number, np.uint8)).save(folder / name)


@pytest.mark.parametrize("source", ["folder", "patches"])
def test_two_images_never_share_a_mask(tmp_path, source):
  image_folder = tmp_path / ("landslide" if source == "folder" else "images")
  write_images(image_folder, ["a.png", "a.jpg", "b.png", "c.png"])
  write_images(tmp_path / "non-landslide", ["d.png", "e.png", "f.png"])
  (tmp_path / "masks").mkdir()
  Image.fromarray(np.eye(32, dtype=np.uint8)).save(tmp_path / "masks" / "a.png")
  config = configs.config_dict()
  config.data.source, config.data.directory = source, str(tmp_path)
  with pytest.raises(ValueError, match=r"would both have the mask .*masks/a\.png"):
    open_source(configs.from_mapping(config).data, "train")


@pytest.mark.parametrize("written", ["Train", "TRAIN", "train"])
def test_splits_are_those_of_the_manifest_in_any_case(tmp_path, written):
  names = [f"{i}.png" for i in range(6)]
  write_images(tmp_path / "landslide", names)
  write_images(tmp_path / "non-landslide", [f"n{name}" for name in names])
  rows = [f"{k}{name},{written if i < 4 else 'Validation'}" for k in ("", "n")
          for i, name in enumerate(names)]
  (tmp_path / "manifest.csv").write_text("\n".join(["image,split", *rows]))
  config = configs.config_dict()
  config.data.source, config.data.directory = "folder", str(tmp_path)
  data = configs.from_mapping(config).data
  assert len(open_source(data, "train").ids) == 8
  assert len(open_source(data, "validation").ids) == 4
