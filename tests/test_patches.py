"""Tiles, and the labels that masks give them."""

import csv

import numpy as np
import pytest
import rasterio
from PIL import Image

from lgag_jax.config import DataConfig
from lgag_jax.imagery.reading import UNKNOWN, ImageError
from lgag_jax.inputs import image_tiles, patches


def make_data(root, masks, *, suffix=".png", images=None):
  """Writes `images/` and `masks/` for masks by name; an image's red channel repeats the mask."""
  for folder in ("images", "masks"):
    (root / folder).mkdir(parents=True, exist_ok=True)
  for name, mask in masks.items():
    mask = np.asarray(mask, np.uint8)
    image = np.stack([mask, mask * 0 + 7, mask * 0 + 9], axis=-1)
    image = image if images is None else images[name]
    Image.fromarray(image).save(root / "images" / f"{name}{suffix}")
    Image.fromarray(mask).save(root / "masks" / f"{name}.png")


def write_manifest(path, rows):
  with path.open("w", newline="") as file:
    writer = csv.DictWriter(file, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)


def source(root, spec="train", **fields):
  options = {"validation_fraction": 0.0, "directory": str(root), "source": "patches", **fields}
  return patches.PatchSource(DataConfig(**options), spec)


@pytest.mark.parametrize("side", [1, 3, 4, 5, 7, 8, 16])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (8, 20), (5, 9), (3, 17), (1, 1)])
def test_tiles_cover_every_pixel_exactly_once(height, width, side):
  known_count = np.zeros((height, width), int)
  for tile in image_tiles.tiles(height, width, side):
    assert tile.height == min(side, height)
    assert tile.width == min(side, width)
    assert 0 <= tile.row <= height - tile.height
    assert 0 <= tile.col <= width - tile.width
    fresh = np.ones((tile.height, tile.width), int)
    fresh[: tile.overlap_rows] = 0
    fresh[:, : tile.overlap_cols] = 0
    known_count[tile.row : tile.row + tile.height, tile.col : tile.col + tile.width] += fresh
  np.testing.assert_array_equal(known_count, 1)


def test_tiles_of_side_zero_are_whole_images():
  assert image_tiles.tiles(30, 20, 0) == [image_tiles.Tile(0, 0, 30, 20)]
  assert len(image_tiles.tiles(30, 20, 10)) == 6


def test_the_key_of_a_tile_does_not_change():
  assert image_tiles.Tile(1, 2, 3, 4, 5, 6).key() == (
    "Tile(row=1, col=2, height=3, width=4, seen_rows=5, seen_cols=6)"
  )


def test_pixels_of_an_image_come_back_once_and_the_rest_is_unknown(tmp_path):
  rng = np.random.default_rng(0)
  mask = rng.integers(0, 2, (11, 14))
  make_data(tmp_path, {"a": mask})
  data = source(tmp_path, tile_size=4)
  assert len(data.ids) == 12
  landslide = background = 0
  for i in range(len(data.ids)):
    image, values = data.read(i)
    assert image.shape == (4, 4, 3)
    known = values != UNKNOWN
    np.testing.assert_array_equal(values[known], image[..., 0][known])
    landslide += np.sum(values == 1)
    background += np.sum(values == 0)
  assert (landslide, background) == (mask.sum(), mask.size - mask.sum())


@pytest.mark.parametrize(
  ("pixels", "fraction", "expected"),
  [(1, 0.0, [0, 1, 1, 1]), (2, 0.0, [0, 0, 1, 1]), (0, 0.0, [0, 1, 1, 1]),
   (1, 0.5, [0, 0, 0, 1]), (3, 0.125, [0, 0, 0, 1]), (1, 0.125, [0, 0, 1, 1])],
)
def test_labels_need_enough_pixels_and_enough_of_the_area(tmp_path, pixels, fraction, expected):
  masks = {}
  for name, count in (("a", 0), ("b", 1), ("c", 2), ("d", 8)):
    masks[name] = np.where(np.arange(16) < count, 255, 0).reshape(4, 4)
  make_data(tmp_path, masks)
  data = source(tmp_path, min_mask_pixels=pixels, min_mask_fraction=fraction)
  assert data.labels.dtype == np.float32
  np.testing.assert_array_equal(data.labels, np.array(expected)[:, None])


def test_several_classes_have_a_label_each(tmp_path):
  make_data(tmp_path, {"a": [[0, 1], [2, 2]], "b": [[0, 0], [0, 2]], "c": [[0, 0], [0, 0]]})
  data = source(tmp_path, classes=("scar", "debris"))
  np.testing.assert_array_equal(data.labels, [[1, 1], [0, 1], [0, 0]])
  np.testing.assert_array_equal(data.read(0)[1], [[0, 1], [2, 2]])


def test_ignored_pixels_make_no_label_and_tiles_of_them_alone_are_left_out(tmp_path):
  mask = np.zeros((4, 8), np.uint8)
  mask[:, :4] = 99
  mask[0, 4] = 99
  make_data(tmp_path, {"a": mask})
  data = source(tmp_path, tile_size=4, mask_ignore=99)
  assert data.ids == ["a.png[0:4]"]
  np.testing.assert_array_equal(data.labels, [[0]])
  assert data.read(0)[1][0, 0] == UNKNOWN


def test_transparent_pixels_are_unknown(tmp_path):
  image = np.full((4, 4, 4), 255, np.uint8)
  image[2, 3, 3] = 0
  make_data(tmp_path, {"a": np.ones((4, 4))}, images={"a": image})
  values = source(tmp_path).read(0)[1]
  assert np.argwhere(values == UNKNOWN).tolist() == [[2, 3]]


def test_without_a_manifest_the_last_images_by_name_are_validation(tmp_path):
  make_data(tmp_path, {f"i{n}": np.zeros((2, 2)) for n in range(10)})
  train = source(tmp_path, validation_fraction=0.3)
  held_out = source(tmp_path, "validation", validation_fraction=0.3)
  assert train.ids == [f"i{n}.png" for n in range(7)]
  assert held_out.ids == [f"i{n}.png" for n in (7, 8, 9)]
  assert source(tmp_path, "train[:50%]").ids == [f"i{n}.png" for n in range(5)]


def test_a_manifest_names_files_and_splits(tmp_path):
  make_data(tmp_path, {"a": np.zeros((2, 2)), "b": np.ones((2, 2)), "c": np.ones((2, 2))},
            suffix=".tif")
  for name in "abc":
    (tmp_path / "masks" / f"{name}.png").rename(tmp_path / "masks" / f"{name}.tif")
  write_manifest(tmp_path / "manifest.csv", [
    {"file": "c.tif", "split": "train"}, {"file": "a.tif", "split": "test"},
    {"file": "b.tif", "split": "train"},
  ])
  assert source(tmp_path).ids == ["c.tif", "b.tif"]
  assert source(tmp_path, "test").ids == ["a.tif"]
  assert source(tmp_path, "train+test").ids == ["c.tif", "b.tif", "a.tif"]
  with pytest.raises(ValueError, match=r"Split 'validation'.*train, test"):
    source(tmp_path, "validation")


def test_a_manifest_can_take_a_part_of_a_scene(tmp_path):
  mask = np.arange(80, dtype=np.uint8).reshape(8, 10) % 2
  make_data(tmp_path, {"scene": mask})
  part = {"row_start": 2, "row_stop": 7, "col_start": 1, "col_stop": 9}
  row = {"image": "images/scene.png", "mask": "masks/scene.png", "split": "train", **part}
  write_manifest(tmp_path / "list.csv", [row])
  data = source(tmp_path, manifest=str(tmp_path / "list.csv"), tile_size=4)
  known_count = sum(int(np.sum(data.read(i)[1] != UNKNOWN)) for i in range(len(data.ids)))
  assert known_count == 5 * 8
  assert data.ids[0] == "scene.png[2:1]"
  np.testing.assert_array_equal(data.read(0)[1], mask[2:6, 1:5])
  write_manifest(tmp_path / "list.csv", [{**row, "col_stop": 11}])
  with pytest.raises(ValueError, match=r"scene\.png is 8 x 10.*\(2, 7, 1, 11\)"):
    source(tmp_path, manifest=str(tmp_path / "list.csv"))
  write_manifest(tmp_path / "list.csv", [{**row, "row_stop": "many"}])
  with pytest.raises(ValueError, match=r"list\.csv.*whole numbers"):
    source(tmp_path, manifest=str(tmp_path / "list.csv"))


def test_windows_of_a_large_raster_are_read_where_they_lie(tmp_path):
  (tmp_path / "images").mkdir()
  (tmp_path / "masks").mkdir()
  values = np.arange(40 * 50, dtype=np.uint16).reshape(40, 50)
  for folder, array in (("images", values), ("masks", (values % 7 == 0).astype(np.uint16))):
    with rasterio.open(tmp_path / folder / "s.tif", "w", driver="GTiff", height=40, width=50,
                       count=1, dtype="uint16") as file:
      file.write(array, 1)
  data = source(tmp_path, tile_size=16, channels=1)
  for i, name in enumerate(data.ids):
    row, col = map(int, name.removeprefix("s.tif[").removesuffix("]").split(":"))
    np.testing.assert_array_equal(
      data.read(i)[0][..., 0], values[row : row + 16, col : col + 16]
    )


def test_errors_name_the_file_and_the_remedy(tmp_path):
  with pytest.raises(ValueError, match=r"data\.directory is not set.*--config\.data\.directory"):
    source("")
  with pytest.raises(FileNotFoundError, match="nowhere"):
    source(tmp_path / "nowhere")
  with pytest.raises(FileNotFoundError, match=r"images"):
    source(tmp_path)
  with pytest.raises(FileNotFoundError, match=r"list\.csv"):
    source(tmp_path, manifest="list.csv")
  make_data(tmp_path, {"a": np.zeros((4, 4)), "b": np.zeros((4, 4))})
  (tmp_path / "masks" / "b.png").unlink()
  with pytest.raises(FileNotFoundError, match=r"masks.* no mask named b"):
    source(tmp_path)
  Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "masks" / "b.png")
  with pytest.raises(ImageError, match=r"b\.png is \(4, 5\), its image \(4, 4\)"):
    source(tmp_path)


def test_an_empty_folder_of_images_is_named(tmp_path):
  make_data(tmp_path, {})
  with pytest.raises(ValueError, match="images"):
    source(tmp_path)


@pytest.mark.parametrize(("header", "words"), [
  ("filename,split", "names the image 'a.png' and no mask: .*column file"),
  ("path;split", "names the image 'a.png' and no mask"), ("name,split", "names no image"),
])
def test_a_manifest_that_names_no_masks_is_refused_in_words(tmp_path, header, words):
  mark = ";" if ";" in header else ","
  (tmp_path / "manifest.csv").write_text(f"{header}\na.png{mark}train\n")
  with pytest.raises(ValueError, match=rf"manifest\.csv, row 2 {words}"):
    source(tmp_path)


def test_a_manifest_row_without_names_is_an_error(tmp_path):
  write_manifest(tmp_path / "manifest.csv", [{"image": "images/a.png", "split": "train"}])
  with pytest.raises(ValueError, match=r"manifest\.csv.*images/a\.png' and no mask"):
    source(tmp_path)
