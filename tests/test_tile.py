"""Scenes and their labels become a folder of labelled tiles, compared with loops over tiles."""

import csv
import math
import re
import shlex

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from absl.testing import flagsaver
from affine import Affine
from PIL import Image
from rasterio.crs import CRS

from configs import image_folder
from lgag_jax import config as configs
from lgag_jax import main
from lgag_jax.cli import command_line
from lgag_jax.geo import vector_paths
from lgag_jax.imagery import reading
from lgag_jax.inputs import sources
from lgag_jax.options.tiling import Settings
from lgag_jax.runtime import folders
from lgag_jax.tiling import tile

HEIGHT, WIDTH, SIDE = 100, 128, 16  # The last row of tiles has 4 of 16 rows.
PLACE = Affine(2, 0, 500000, 0, -2, 3000000)
YES, NO, UNKNOWN, NO_DATA = "landslide", "non-landslide", "unknown", "no data"
# Left, top, right and bottom in pixels. The second has under 20 pixels, the third has under 20 in each
# tile, and the last lies beside nodata pixels.
SLIDES = (
  (20, 20, 40, 30), (68, 4, 71, 8), (90, 62, 97, 66), (3, 83, 13, 93), (113, 35, 123, 45),
  (52, 33, 60, 38),
)
POINTS = ((24.5, 21.5), (79.5, 40.5), (120.2, 90.7), (3.1, 60.9))


def write_scene(path, *, bands=3, dtype="uint8", crs=32644, place=PLACE):
  rng = np.random.default_rng(len(path.stem))
  pixels = rng.integers(1, 250, (HEIGHT, WIDTH, bands)).astype(dtype)
  pixels[40:90, 50:60] = 0
  pixels[48:64, 48:61] = 0  # More than half of the tile there.
  if path.suffix == ".png":
    Image.fromarray(pixels).save(path)
    return pixels
  with rasterio.open(
    path, "w", driver="GTiff", height=HEIGHT, width=WIDTH, count=bands, dtype=dtype, nodata=0,
    crs=CRS.from_epsg(crs) if crs else None, transform=place, photometric="MINISBLACK",
  ) as file:
    file.write(np.moveaxis(pixels, -1, 0))
  return pixels


def write_layer(path, geometries, **fields):
  moved = shapely.transform(np.array(geometries), lambda p: np.array([PLACE @ tuple(q) for q in p]))
  values = [
    np.array(value, float if isinstance(value[0], float) else object) for value in fields.values()
  ]
  pyogrio.raw.write(
    path, shapely.to_wkb(moved), values, list(fields), crs="EPSG:32644", geometry_type="Unknown"
  )
  return path


def outlines(form="raster"):
  mask = np.zeros((HEIGHT, WIDTH), np.uint8)
  if form == "raster":
    mask[70:72, 22:25] = 255  # Unknown.
  for left, top, right, bottom in SLIDES:
    mask[top:bottom, left:right] = 1
  return mask


def write_labels(folder, form):
  path = folder / {"raster": "mask.tif"}.get(form, "labels.gpkg")
  if form == "raster":
    with rasterio.open(
      path, "w", driver="GTiff", height=HEIGHT, width=WIDTH, count=1, dtype="uint8", transform=PLACE,
      crs=CRS.from_epsg(32644),
    ) as file:
      file.write(outlines(), 1)
    return path
  shapes = [shapely.box(*s) for s in SLIDES] if form == "polygons" else shapely.points(POINTS)
  return write_layer(path, shapes)


def options(folder, **fields):
  return Settings(**{
    "input": str(folder / "scene.tif"), "output": str(folder / "tiles"), "tile_size": SIDE,
    "min_pixels": 20, "min_fraction": 0.0, "block_size": 32, "block_buffer": 4, **fields,
  })


def gap(row, col, left, top, right, bottom):
  """Returns the distance between a tile and a rectangle in pixels."""
  across = max(left - (col + SIDE), col - right, 0)
  return math.hypot(across, max(top - (row + SIDE), row - bottom, 0))


def expected_labels(form, buffer, least=20):
  """Returns the label of each tile by row and column, computed tile by tile; `buffer` in pixels."""
  valid, marked = np.zeros((7 * SIDE, WIDTH), bool), np.pad(outlines(form), ((0, 12), (0, 0)))
  valid[:HEIGHT] = True
  valid[40:90, 50:60] = valid[48:64, 48:61] = False
  shapes = SLIDES if form != "points" else [(x, y, x, y) for x, y in POINTS]
  labels = {}
  for r, c in np.ndindex(7, 8):
    top, left = r * SIDE, c * SIDE
    data, mask = (a[top : top + SIDE, left : left + SIDE] for a in (valid, marked))
    gaps = [gap(top, left, *s) for s in shapes]
    meets = any(
      s[2] >= left + 1e-6 and s[0] <= left + SIDE - 1e-6
      and s[3] >= top + 1e-6 and s[1] <= top + SIDE - 1e-6 for s in shapes
    )
    enough = meets if form == "points" else np.sum(data & (mask == 1)) >= least
    unsure = meets or any(g < buffer for g in gaps) or (form == "raster" and np.any(mask[data] == 255))
    labels[r, c] = YES if enough else UNKNOWN if unsure else NO
    if data.mean() < 0.5:
      labels[r, c] = NO_DATA
  return labels


@pytest.mark.parametrize("buffer", [0.0, 9.0])
@pytest.mark.parametrize("form", ["polygons", "raster", "points"])
def test_labels_tiles_and_masks_are_those_of_one_tile_after_another(tmp_path, form, buffer):
  pixels = write_scene(tmp_path / "scene.tif")
  labels = write_labels(tmp_path, form)
  settings = options(tmp_path, labels=str(labels), unknown_buffer=2 * buffer)
  rows, _ = tile.cut(settings)
  expected = expected_labels(form, buffer)
  assert {YES, NO, NO_DATA} <= set(expected.values())
  assert (UNKNOWN in expected.values()) == (form != "points" or buffer > 0)
  assert {(row.row, row.col): row.label for row in rows} == expected
  root = tmp_path / "tiles"
  written = {str(p.relative_to(root)) for p in root.rglob("*.tif")}
  assert written == {name for row in rows for name in (row.image, row.mask) if name}
  padded = np.pad(pixels, ((0, 12), (0, 0), (0, 0)))
  marked = np.pad(outlines(form), ((0, 12), (0, 0)))
  for row in rows:
    assert bool(row.image) == (row.label in (YES, NO) and row.split != "")
    if not row.image:
      continue
    assert row.image.startswith(f"{row.label}/scene_r")
    part = np.s_[row.row * SIDE :, row.col * SIDE :]
    source = padded[part][:SIDE, :SIDE]
    valid = source.any(axis=-1)
    np.testing.assert_array_equal(reading.read_image(root / row.image, 3)[valid], source[valid])
    with rasterio.open(root / row.image) as file:
      assert file.transform == PLACE @ Affine.translation(row.col * SIDE, row.row * SIDE)
      assert file.crs == CRS.from_epsg(32644)
    assert bool(row.mask) == (form != "points" and row.label == YES)
    if row.mask:
      mask = np.where(valid, marked[part][:SIDE, :SIDE], 255)
      with rasterio.open(root / row.mask) as file:
        np.testing.assert_array_equal(file.read(1), mask)
  meta, _, geometry, values = pyogrio.raw.read(root / "tiles.gpkg")
  assert meta["crs"] == "EPSG:32644"
  shown = dict(zip(meta["fields"], values, strict=True))
  assert list(shown["label"]) == [row.label for row in rows]
  assert list(shown["split"]) == [row.split for row in rows]
  for shape, row in zip(shapely.from_wkb(geometry), rows, strict=True):
    left, top = PLACE @ (row.col * SIDE, row.row * SIDE)
    assert shape.bounds == (left, top - 2 * SIDE, left + 2 * SIDE, top)


@pytest.mark.parametrize(("stride", "buffer"), [(16, 0), (16, 4), (6, 11)])
def test_training_tiles_keep_the_buffer_to_validation_tiles(tmp_path, stride, buffer):
  write_scene(tmp_path / "scene.tif")
  labels = str(write_labels(tmp_path, "polygons"))
  rows, _ = tile.cut(options(
    tmp_path, labels=labels, tile_stride=stride, block_buffer=buffer, max_nodata=1.0))
  assert len(rows) == (7 * 8 if stride == 16 else 15 * 20)
  places = {
    split: [(r.row * stride, r.col * stride) for r in rows if r.split == split]
    for split in ("train", "validation", "")
  }
  held_out = [(c, r, c + SIDE, min(r + SIDE, HEIGHT)) for r, c in places["validation"]]
  for row, col in places["train"]:
    for rectangle in held_out:
      across = max(rectangle[0] - col - SIDE, col - rectangle[2])
      down = max(rectangle[1] - row - SIDE, row - rectangle[3])
      assert max(across, down) >= buffer
  assert len(places["train"]) > 2
  # Skipped tiles lie in the buffer or cross a border. On the blocks' grid no tile crosses a border.
  assert bool(places[""]) == (buffer > 0 or stride == 6)


def test_a_table_labels_tiles_by_number_or_place(tmp_path):
  write_scene(tmp_path / "scene.tif")
  write_scene(tmp_path / "two.tif", place=PLACE @ Affine.translation(1000, 0))  # On other ground.
  (tmp_path / "labels.csv").write_text(
    "scene,row,col,x,y,label\n"
    "scene.tif,0,0,,,landslide\nscene,0,1,,,0\nscene,6,7,,,unknown\nscene,2,5,,,yes\n"
    # The last pixel of tile 1,2, and the first of tile 2,3. Tile 3,3 has no data.
    "two,,,502095.9,2999936.1,non-landslide\ntwo,2,3,502096,2999936,1\ntwo,3,3,,,1\n"
  )
  settings = options(tmp_path, labels=str(tmp_path / "labels.csv"), input=str(tmp_path / "*.tif"))
  rows, _ = tile.cut(settings)
  expected = {
    ("scene.tif", 0, 0): YES, ("scene.tif", 0, 1): NO, ("scene.tif", 2, 5): YES,
    ("two.tif", 1, 2): NO, ("two.tif", 2, 3): YES,
  }
  assert {(r.scene, r.row, r.col): r.label for r in rows if r.label in (YES, NO)} == expected
  assert not any(r.mask for r in rows)
  for line, message in (
    ("scene,9,0,,,1", "row 2 means no tile of the scene: row=9"), ("three,0,0,,,1", "scene 'three'"),
    (",0,0,,,1", "scene ''"), ("two,0,0,,,perhaps", "row 2 has the label 'perhaps'"),
    ("two,,,1,,1", "row 2 needs numbers"), ("two,,,1,2,1", "means no tile of the scene: x=1, y=2"),
    ("two,2,2,502096,2999936,1", "row 2 means two tiles, one by row and col, another by x and y"),
    ("two,1,1,,,1\ntwo,1,1,,,0", "row 3 labels tile 1,1 as non-landslide.*as landslide"),
  ):
    (tmp_path / "labels.csv").write_text(f"scene,row,col,x,y,label\n{line}\n")
    with pytest.raises(ValueError, match=rf"labels\.csv.*{message}"):
      tile.cut(options(tmp_path, labels=str(tmp_path / "labels.csv"), input=str(tmp_path / "*.tif"),
                       output=str(tmp_path / "other")))
  assert not list(tmp_path.glob("*other*"))


@pytest.mark.parametrize(("scenes", "row", "scene"), [
  (("a.png", "a.png.tif"), "a.png", "a.png"), (("a.png", "a.png.tif"), "a.png.tif", "a.png.tif"),
  (("a.png", "a.png.tif"), "a", "a.png"), (("a.png.tif", "b.tif"), "a.png", "a.png.tif"),
])
def test_a_name_means_one_scene(tmp_path, scenes, row, scene):
  for name in scenes:
    write_scene(tmp_path / name)
  fields = {"labels": str(tmp_path / "labels.csv"), "input": f"{tmp_path}/[ab]*", "block_size": 0}
  other = next(name for name in scenes if name != scene)
  (tmp_path / "labels.csv").write_text(f"scene,row,col,label\n{row},0,0,1\n{other},0,0,0\n")
  rows, _ = tile.cut(options(tmp_path, **fields, block_buffer=0))
  assert {r.scene: r.label for r in rows if r.label in (YES, NO)} == {scene: YES, other: NO}


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_table_of_labels_may_come_from_a_spreadsheet_and_name_tiles_without_data(tmp_path, mark):
  write_scene(tmp_path / "scene.tif")
  lines = ["Label,split,row,col", "no data,,3,3", "unknown,,0,2", "Yes,train,0,0", "NO,,0,1"]
  lines += ["true,,5,5", "false,,5,6", "landslide,,1,1", "non-landslide,,1,5"]
  (tmp_path / "labels.csv").write_text("\n".join(lines).replace(",", mark), encoding="utf-8-sig")
  rows, _ = tile.cut(options(tmp_path, labels=str(tmp_path / "labels.csv"), input=f"{tmp_path}/*.tif"))
  labels = {(row.row, row.col): row.label for row in rows}
  assert labels[3, 3] == NO_DATA and labels[0, 2] == UNKNOWN
  certain = {place: label for place, label in labels.items() if label in (YES, NO)}
  assert certain == {(0, 0): YES, (0, 1): NO, (5, 5): YES, (5, 6): NO, (1, 1): YES, (1, 5): NO}
  (tmp_path / "labels.csv").write_text(f"row{mark}col{mark}label\n0{mark}0{mark}maybe\n")
  words = "landslide, non-landslide, unknown, no data, .*1, yes, true and 0, no, false"
  with pytest.raises(ValueError, match=f"row 2 has the label 'maybe': use one of {words}"):
    tile.cut(options(tmp_path, labels=str(tmp_path / "labels.csv"), input=f"{tmp_path}/*.tif",
                     output=str(tmp_path / "other")))
  (tmp_path / "labels.csv").write_text("x;y;label\n500001,5;2999999,5;yes\n")
  with pytest.raises(ValueError, match=r"row 2 needs numbers in .* with decimal points"):
    tile.cut(options(tmp_path, labels=str(tmp_path / "labels.csv"), input=f"{tmp_path}/*.tif",
                     output=str(tmp_path / "other")))


@pytest.mark.parametrize(("dtype", "told"), [("int32", True), ("uint32", True), ("uint16", False)])
def test_wide_integers_of_a_scene_are_told(tmp_path, caplog, dtype, told):
  write_scene(tmp_path / "scene.tif", dtype=dtype)
  (tmp_path / "labels.csv").write_text("row,col,label\n0,0,1\n")
  tile.cut(options(tmp_path, labels=str(tmp_path / "labels.csv"), input=f"{tmp_path}/*.tif"))
  assert (f"scene.tif holds {dtype}, and so will its tiles" in caplog.text) == told


def parsed(command):
  """Returns the data settings of a printed command."""
  config = image_folder.get_config()
  for word in shlex.split(command):
    if word.startswith("--config.data."):
      name, value = word.removeprefix("--config.data.").split("=", 1)
      kind = type(config.data[name])
      config.data[name] = eval(value) if kind is tuple else kind(value)
  return configs.from_mapping(config).data


@pytest.mark.parametrize("several", [False, True])
def test_the_command_line_prints_what_trains_on_the_tiles(tmp_path, capsys, several):
  scene = tmp_path / "scene.tif"
  write_scene(scene, bands=4, dtype="uint16")
  kinds = ["flow", "fall", "fall", "flow", "fall", "flow"]
  shapes = [shapely.box(*s) for s in (*SLIDES, (20, 24, 22, 26))]  # The last is in the first.
  labels = write_layer(tmp_path / "a.geojson", shapes, kind=[*kinds, "fall"])
  more = ["--classes=flow,fall", "--field=kind", "--background=none"] if several else []
  with flagsaver.flagsaver():
    arguments = ["main", "--mode=tile", f"--input={tmp_path}", f"--labels={labels}", "--tile_size=16",
                 f"--output={tmp_path}/my tiles", "--bands=4,1", "--min_pixels=9", "--block_buffer=0"]
    main.main(command_line.parse_flags(arguments + more))
  printed = capsys.readouterr().out
  command = printed[printed.index("python -m") :].strip()
  assert bool(list(tmp_path.rglob("scene_r001_c001.tif"))) != several  # Of two classes.
  with (tmp_path / "my tiles" / "manifest.csv").open() as file:
    table = list(csv.DictReader(file))
  data = parsed(command)
  assert (data.channels, data.background) == (2, "none" if several else NO)
  examples, unknown = {}, 0
  for split in ("train", "validation"):
    source = sources.make_source(data, split)
    for i, name in enumerate(source.ids):
      label = [*source.labels[i]]
      examples[name] = split, data.classes[label.index(1)] if any(label) else data.background
      image, mask = source.read(i)
      assert image.shape == (16, 16, 2)
      assert image.dtype == np.uint16
      if any(label):
        assert np.count_nonzero(mask == label.index(1) + 1) >= 9
        with rasterio.open(tmp_path / "my tiles" / "masks" / name.split("/")[1]) as file:
          np.testing.assert_array_equal(mask, file.read(1))
        unknown += np.count_nonzero(mask == 255)
  assert unknown
  assert examples == {line["image"]: (line["split"], line["label"]) for line in table}
  assert set(examples.values()) > {("train", data.classes[-1]), ("train", data.background)}
  counted = {line.split()[0]: line.split()[1:3] for line in printed.splitlines() if "  " in line}
  for label in (*data.classes, data.background):
    splits = [[*examples.values()].count((s, label)) for s in ("train", "validation")]
    assert counted[label] == [str(n) for n in splits]
  if not several:
    sources.open_source(data, "train")


def test_a_tile_keeps_its_split_where_a_person_moves_it(tmp_path):
  write_scene(tmp_path / "scene.tif")
  _, command = tile.cut(options(tmp_path, labels=str(write_labels(tmp_path, "polygons"))))
  data, root = parsed(command), tmp_path / "tiles"
  before = sources.open_source(data, "train")
  name = next(n for n in before.ids if n.startswith(NO)).split("/")[1]
  (root / NO / name).rename(root / YES / name)
  assert f"{YES}/{name}" in sources.open_source(data, "train").ids
  (root / NO / "new.tif").write_bytes((root / YES / name).read_bytes())
  with pytest.raises(ValueError, match=r"new\.tif has no split in the manifest"):
    sources.open_source(data, "train")


def test_a_picture_without_a_place_gives_pictures(tmp_path):
  pixels = write_scene(tmp_path / "scene.png")
  Image.fromarray(outlines() * 255).save(tmp_path / "mask.png")
  fields = {"input": str(tmp_path), "labels": str(tmp_path / "mask.png"), "mask_ignore": -1}
  rows, _ = tile.cut(options(tmp_path, **fields))
  row = next(r for r in rows if r.label == YES and r.image)
  assert row.image.endswith(".png")
  assert not (tmp_path / "tiles" / "tiles.gpkg").exists()
  read = np.asarray(Image.open(tmp_path / "tiles" / row.image))
  np.testing.assert_array_equal(
    read, pixels[row.row * SIDE :, row.col * SIDE :][:SIDE, :SIDE])
  with pytest.raises(ValueError, match=r"unknown_buffer=5 is in metres.*scene\.png"):
    tile.cut(options(tmp_path, **fields, unknown_buffer=5.0, output=str(tmp_path / "b")))


def test_nothing_partial_is_left_and_nothing_is_written_over(tmp_path, monkeypatch, caplog):
  write_scene(tmp_path / "scene.tif")
  fields = {"labels": str(write_labels(tmp_path, "polygons"))}
  before = sorted(tmp_path.iterdir())
  monkeypatch.setattr(tile.output, "write_manifest", lambda *_: 1 / 0)
  with pytest.raises(ZeroDivisionError, match="division by zero"):
    tile.cut(options(tmp_path, **fields))
  assert sorted(tmp_path.iterdir()) == before
  with pytest.raises(ValueError, match=r"No tile can be used.*The log says why"):
    tile.cut(options(tmp_path, **fields, max_nodata=0.0, tile_size=100, block_size=100,
                     validation_fraction=0.0))
  assert re.search("unknown +0", caplog.text)
  monkeypatch.undo()
  (tmp_path / "tiles").mkdir()
  tile.cut(options(tmp_path, **fields))  # The output may be an empty folder.
  with pytest.raises(FileExistsError, match="tiles exists and is not an empty folder"):
    tile.cut(options(tmp_path, **fields))


@pytest.mark.parametrize("name", ["a" * 250, "滑" * 83, "1" + "ж" * 124])
def test_tiles_of_a_scene_with_a_long_name(tmp_path, name):
  write_scene(tmp_path / f"{name}.tif")
  labels = write_labels(tmp_path, "polygons")
  output = tmp_path / ("o" * 250)
  rows, _ = tile.cut(options(
    tmp_path, input=str(tmp_path / f"{name}.tif"), labels=str(labels), output=str(output)
  ))
  images = [row.image for row in rows if row.image]
  assert len(images) == len(set(images)) > 10 and {row.scene for row in rows} == {f"{name}.tif"}
  assert all((output / image).is_file() for image in images)
  with (output / "manifest.csv").open(encoding="utf-8") as file:
    assert [line["image"] for line in csv.DictReader(file)] == images
  assert all(image.split("/")[1].startswith(name[:40]) for image in images)


@pytest.mark.parametrize("side", [12, 6])
def test_the_summary_tells_how_much_landslides_cover(tmp_path, side):
  write_scene(tmp_path / "scene.tif")
  shapes = [shapely.box(c, r, c + side, r + side) for r in range(0, 96, 32) for c in range(0, 128, 16)]
  path = write_layer(tmp_path / "all.gpkg", shapes)
  settings = options(tmp_path, labels=str(path), unknown_buffer=0.0)
  rows, _ = tile.cut(settings)
  fractions = [row.landslide_fraction for row in rows if row.split == "train" and row.mask]
  assert np.median(fractions) == side**2 / SIDE**2
  text = tile.output.summary(rows, settings)
  assert f"cover {100 * side**2 / SIDE**2:.3g} % of the median positive training tile" in text


def test_a_missing_validation_split_gives_a_warning(tmp_path):
  write_scene(tmp_path / "scene.tif")
  path = write_layer(tmp_path / "all.gpkg", [shapely.box(*SLIDES[0])])
  settings = options(tmp_path, labels=str(path), validation_fraction=0.0)
  text = tile.output.summary(tile.cut(settings)[0], settings)
  assert "WARNING: there is no validation split" in text


def test_missing_negatives_and_classes_give_warnings(tmp_path):
  write_scene(tmp_path / "scene.tif")
  path = write_layer(tmp_path / "all.gpkg", [shapely.box(0, 0, WIDTH, HEIGHT)])
  settings = options(tmp_path, labels=str(path))
  text = tile.output.summary(tile.cut(settings)[0], settings)
  assert "WARNING: there are no negatives (non-landslide), but training needs them" in text
  path = write_layer(tmp_path / "few.gpkg", [shapely.box(0, 0, 9, 9)])
  settings = options(tmp_path, labels=str(path), output=str(tmp_path / "few"))
  text = tile.output.summary(tile.cut(settings)[0], settings)
  assert "WARNING: landslide is missing in" in text
  assert "negatives" not in text


@pytest.mark.parametrize(("fields", "message"), [
  ({"labels": ""}, "--labels"), ({"tile_size": 0}, "--tile_size=0"),
  ({"max_nodata": 2}, "--max_nodata=2"),
  ({"block_size": 9}, "--block_size=9.*--tile_size=16"), ({"classes": ("masks",)}, "--classes=masks"),
  ({"labels": "nowhere.gpkg"}, "nowhere.gpkg: no such file"),
  ({"input": "nowhere*.tif"}, "nowhere.*no such file"), ({"bands": (1, 7)}, "--bands=1,7"),
  ({"block_size": 128}, "--validation_fraction=0.2 of 1 blocks.*--block_size smaller"),
])
def test_mistakes_name_their_flag(tmp_path, fields, message):
  write_scene(tmp_path / "scene.tif")
  labels = str(write_labels(tmp_path, "polygons"))
  with pytest.raises((ValueError, OSError), match=message):
    tile.cut(options(tmp_path, **{"labels": labels, **fields}))


@pytest.mark.parametrize(("text", "label"), [
  ("no data", "unknown"), ("unknown", "unknown"), ("Yes", "landslide"), ("no", "non-landslide"),
])
def test_words_of_a_table_are_labels(text, label):
  from lgag_jax.options.tiling import Settings
  from lgag_jax.tiling import tile_labels

  settings = Settings(input="a", output="b", labels="c.csv")
  assert tile_labels.read_label("row 2", text, settings) == label
  with pytest.raises(ValueError, match="no data, or for one class 1, yes, true and 0, no, false"):
    tile_labels.read_label("row 2", "perhaps", settings)


def test_a_second_run_into_the_same_folder_is_refused(tmp_path):
  write_scene(tmp_path / "scene.tif")
  settings = options(tmp_path, labels=str(write_labels(tmp_path, "polygons")))
  with folders.atomic_folder(tmp_path / "tiles") as folder:
    (folder / "first").touch()
    with pytest.raises(ValueError, match=r"tiles is being written by .*use another --output"):
      tile.cut(settings)
  assert [path.name for path in (tmp_path / "tiles").iterdir()] == ["first"]


@pytest.mark.parametrize("name", ["a;b", "a!b", "a\nb", "=1+1", "\x1b[31mred"])
def test_names_of_scenes_and_folders_that_libraries_misread(tmp_path, name):
  (tmp_path / name).mkdir()
  pixels = write_scene(tmp_path / name / f"{name}.tif")
  labels = str(write_labels(tmp_path, "polygons"))
  settings = options(tmp_path / name, labels=labels, input=str(tmp_path / name))
  rows, _ = tile.cut(settings)
  with vector_paths.plain_folder(tmp_path / name / "tiles") as folder:
    assert pyogrio.read_info(folder / "tiles.gpkg")["features"] == len(rows)
  assert {row.scene for row in rows} == {f"{name}.tif"}
  image = next(row for row in rows if row.image)
  written = reading.read_image(tmp_path / name / "tiles" / image.image, 3)
  np.testing.assert_array_equal(
    written, pixels[image.row * SIDE :, image.col * SIDE :][:SIDE, :SIDE][: len(written)]
  )


@pytest.mark.parametrize("alpha", ["near infrared", "opaque", "soft edge", "named"])
def test_a_band_of_data_that_is_taken_for_alpha_is_named(tmp_path, caplog, alpha):
  values = np.random.default_rng(1).integers(1, 250, (HEIGHT, WIDTH, 4)).astype(np.uint8)
  if alpha in ("opaque", "soft edge"):
    values[..., 3] = 255
    values[:, :9, 3] = 0
    if alpha == "soft edge":
      values[:, 9, 3] = np.arange(1, HEIGHT + 1)
  with rasterio.open(
    tmp_path / "scene.tif", "w", driver="GTiff", height=HEIGHT, width=WIDTH, count=4, dtype="uint8",
    crs="EPSG:32644", transform=PLACE,
  ) as file:
    file.write(np.moveaxis(values, -1, 0))
  labels = write_layer(tmp_path / "inventory.gpkg", [shapely.box(34, 18, 46, 30)])
  bands = (1, 2, 3, 4) if alpha == "named" else ()
  tile.cut(options(tmp_path, labels=str(labels), bands=bands))
  named = "its band 4 is marked as alpha, so lgag takes it for transparency" in caplog.text
  assert named == (alpha == "near infrared")
  assert not named or "--bands=1,2,3,4" in caplog.text


@pytest.mark.parametrize("side", [SIDE, SIDE // 2, 2 * SIDE])
def test_the_manifest_of_tiles_is_no_table_of_labels(tmp_path, side):
  write_scene(tmp_path / "scene.tif")
  write_layer(tmp_path / "a.gpkg", [shapely.box(2, 2, 14, 14)])
  tile.cut(options(tmp_path, labels=str(tmp_path / "a.gpkg")))
  manifest = tmp_path / "tiles/manifest.csv"
  with pytest.raises(ValueError, match=r"manifest\.csv is the manifest of a training set.*tiles\.gpkg"):
    tile.cut(options(tmp_path, labels=str(manifest), output=str(tmp_path / "x"), tile_size=side))
