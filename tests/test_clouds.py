"""Cloud masks of scenes: what their values mean, on which pixels they lie, and what follows."""

import csv
import logging
import math

import numpy as np
import pyogrio.raw
import pyproj
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rasterio.windows import Window

from lgag_jax.geo import companions
from lgag_jax.geo.companions import SceneFiles
from lgag_jax.geo.grid import Grid
from lgag_jax.imagery import cloud_kinds
from lgag_jax.imagery.opening import ImageError
from lgag_jax.labelling import sheets
from lgag_jax.labelling.session import Session
from lgag_jax.mapping import judge, predict
from lgag_jax.options import area, cloud_masks, labelling
from lgag_jax.options.mapping import Options, References
from lgag_jax.options.tiling import Settings
from lgag_jax.tiling import tile
from tests.test_map_names import model  # noqa: F401
from tests.test_mapping import batch_sizes, read  # noqa: F401

HEIGHT, WIDTH = 96, 128
PLACE = Affine(10, 0, 500000, 0, -10, 5200000)
COARSE = PLACE @ Affine.scale(2)  # As SCL beside a scene of 10 m.
# Meaning in the product's handbook, and whether it is hidden.
SCL = {0: True, 1: True, 2: False, 3: True, 4: False, 5: False, 6: False, 7: False, 8: True, 9: True,
       10: True, 11: False}
QA_PIXEL = {
  1: True,  # Fill.
  21824: False, 21888: False, 30048: False,  # Landsat 8: clear land, water and snow.
  21826: True, 22280: True, 23888: True, 54596: True,  # Dilated cloud, cloud, shadow, cirrus.
  5440: False, 5504: False, 13664: False, 5442: True, 5896: True, 7440: True,  # The same of Landsat 7.
  0: True,  # What exports fill with.
}


def write(path, values, *, place=PLACE, crs="EPSG:32633", nodata=None, names=()):
  values = np.atleast_3d(values)
  path.parent.mkdir(exist_ok=True, parents=True)
  with rasterio.open(
    path, "w", driver="GTiff", height=values.shape[0], width=values.shape[1], count=values.shape[2],
    dtype=values.dtype, crs=crs, transform=place, nodata=nodata, photometric="MINISBLACK",
  ) as raster:
    raster.write(np.moveaxis(values, -1, 0))
    for band, name in enumerate(names, 1):
      raster.set_band_description(band, name)
  return path


def write_scene(path, seed=0):
  pixels = np.random.default_rng(seed).integers(1, 250, (HEIGHT, WIDTH, 3), np.uint8)
  return write(path, pixels), pixels


def classes(seed=0, values=(2, 3, 4, 8, 11), shape=(HEIGHT // 2, WIDTH // 2)):
  return np.random.default_rng(seed).choice(np.array(values), shape)


def valid_of(files, window=None, shape=None):
  with files.open(3) as scene:
    window = window or Window(0, 0, WIDTH, HEIGHT)
    pixels, valid = scene.read(window, shape)
    if shape is None:
      np.testing.assert_array_equal(scene.valid(window), valid)
    return pixels, valid


# What the values mean.


@pytest.mark.parametrize(("kind", "expected"), [
  ("scl", SCL), ("qa_pixel", QA_PIXEL), ("mask", {0: False, 1: True})])
def test_each_product_hides_clouds_and_what_it_does_not_know(tmp_path, kind, expected):
  values = np.array(sorted(expected), np.int32)
  assert cloud_kinds.kind_of(values, tmp_path / "x.tif") == kind
  hidden = cloud_kinds.hidden(values, kind)
  assert dict(zip(values.tolist(), hidden.tolist(), strict=True)) == expected
  assert not (cloud_kinds.clouded(values, kind) & cloud_kinds.unknown(values, kind)).any()
  assert cloud_kinds.unknown(np.array([cloud_kinds.UNKNOWN]), kind).all()


def test_kinds_are_those_of_the_flags():
  assert set(cloud_kinds.NAMES) == set(cloud_masks.KINDS)
  assert [cloud_kinds.named(name) for name in area.Imagery().cloud_mask] == [["scl"], ["qa_pixel"]]


@pytest.mark.parametrize(("values", "name", "asked", "kind"), [
  ((4,), "T32TPT_SCL_20m", "auto", "scl"), ((0, 2, 3), "x", "scl", "scl"), ((0, 1), "x", "scl", "scl"),
  ((4, 5), "x", "auto", "scl"), ((0,), "x", "auto", "mask"), ((0, 1), "scl_mask", "mask", "mask"),
  ((0, 256, 776), "mss", "qa_pixel", "qa_pixel"), ((1, 21824), "LC08_QA_PIXEL", "auto", "qa_pixel"),
])
def test_names_and_the_flag_tell_what_values_do_not(tmp_path, values, name, asked, kind):
  assert cloud_kinds.kind_of(np.array(values), tmp_path / f"{name}.tif", asked=asked) == kind
  if asked == "auto":
    assert cloud_kinds.kind_of(np.array(values), tmp_path / "x.tif", description=name) == kind


@pytest.mark.parametrize(("values", "name", "asked", "message"), [
  ((0, 1, 4), "x", "auto", r"What is --clouds=.*x\.tif\?.*values 0, 1, 4, .*--cloud_kind=scl \("),
  ((0, 1), "scl", "auto", r"--cloud_kind=mask \(a mask.* or --cloud_kind=scl"),
  ((0, 5), "qa_pixel", "auto", r"Say what it is: --cloud_kind=scl \(.*\(SCL\)\)\. Of any other"),
  ((0, 1, 322), "qa", "auto", r"Say what it is: --cloud_kind=qa_pixel \("),
  ((0, 255), "x", "auto", r"0, 255, which does not tell\. Of any other .*1 for cloud and 0 for"),
  ((0, 4, 9), "x", "qa_pixel", r"not a QA_PIXEL of Landsat, whose values are 0, 1 and from 256"),
  (tuple(range(0, 101)), "x", "auto", r"6, 7 and 93 more"),
  ((322, 324, 352), "pixel_qa", "auto", r"What is"),  # Of Collection 1, whose bits mean other things.
  ((0, 12), "x", "scl", r"holds the values 0, 12, so it is not a scene classification.* 0 to 11:"),
  ((0, 1, 2), "x", "mask", r"correct --cloud_kind=mask"),
  ((0,), "QA_PIXEL", "auto", r"only the value 0, .*--cloud_kind=qa_pixel"),
])
def test_values_that_could_mean_two_things_are_asked_about(tmp_path, values, name, asked, message):
  with pytest.raises(ImageError, match=message):
    cloud_kinds.kind_of(np.array(values), tmp_path / f"{name}.tif", asked=asked)


def test_zeros_in_the_type_of_a_qa_pixel_may_be_its_fill(tmp_path):
  kind_of = lambda *values, **options: cloud_kinds.kind_of(
    np.array(values), tmp_path / "x.tif", dtype=np.dtype(np.uint16), **options)
  with pytest.raises(ImageError, match=r"only the value 0, .*=mask \(.* or --cloud_kind=qa_pixel"):
    kind_of(0)
  assert kind_of(0, asked="mask") == kind_of(0, 1) == "mask"
  assert kind_of(0, asked="qa_pixel") == "qa_pixel"


@pytest.mark.parametrize(("kind", "dtype", "clear"), [
  ("scl", np.uint8, 5), ("qa_pixel", np.uint16, 21824)])
def test_fill_where_the_scene_lies_is_no_clear_mask(tmp_path, kind, dtype, clear):
  scene, _ = write_scene(tmp_path / "a.tif")
  values = np.zeros((HEIGHT, 2 * WIDTH), dtype)
  values[:, WIDTH + 8 :] = clear  # Beside the scene.
  clouds = write(tmp_path / "other.tif", values)
  with rasterio.open(scene) as raster:
    cover = SceneFiles(scene, clouds=clouds).cover(Grid.from_raster(raster, scene))
  assert cover.kind == kind and cover.unknown == 1


def test_flags_that_contradict_each_other():
  with pytest.raises(ValueError, match="--cloud_kind=fmask: must be auto, scl, qa_pixel, mask"):
    Options(clouds="c.tif", cloud_kind="fmask")
  with pytest.raises(ValueError, match="--cloud_kind=scl needs --clouds"):
    Settings(input="a", output="b", labels="c", cloud_kind="scl")


# Where they lie.


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326"])
def test_a_pixel_has_the_nearest_value_of_another_grid(tmp_path, monkeypatch, crs):
  monkeypatch.setattr("lgag_jax.geo.clouds._BLOCK", 64)
  path, pixels = write_scene(tmp_path / "a.tif")
  to = pyproj.Transformer.from_crs("EPSG:32633", crs, always_xy=True)
  left, top = to.transform(500100, 5199907)  # The file covers neither the first nor the last pixels.
  place = Affine(*((23, 0, left, 0, -17) if crs == "EPSG:32633" else (3e-4, 0, left, 0, -1.5e-4)), top)
  values = classes(shape=(45, 50), values=(4, 8, 255)).astype(np.uint8)
  clouds = write(tmp_path / "c.tif", values, place=place, crs=crs, nodata=255)
  centres = PLACE @ tuple(axis.ravel() + 0.5 for axis in np.mgrid[:HEIGHT, :WIDTH][::-1])
  x, y = (np.floor(axis).astype(int) for axis in ~place @ to.transform(*centres))
  inside = (x >= 0) & (x < 50) & (y >= 0) & (y < 45)
  expected = (inside & (values[y % 45, x % 50] == 4)).reshape(HEIGHT, WIDTH)
  assert 0.1 < expected.mean() < 0.5 and not expected[0].any() and not expected[:, 0].any()
  files = SceneFiles(path, clouds=clouds, cloud_kind="scl")
  found, valid = valid_of(files)
  # GDAL interpolates coordinates to within 1/8 pixel.
  assert np.mean(valid != expected) < (1e-9 if crs == "EPSG:32633" else 0.03)
  np.testing.assert_array_equal(found[valid], pixels[valid])
  corners = [(col, row) for row in (-7, 33, 73) for col in (-7, 53, 113)]
  parts = [valid_of(files, Window(*corner, 60, 40))[1] for corner in corners]
  rows = [np.concatenate(parts[i : i + 3], axis=1) for i in (0, 3, 6)]
  whole = np.concatenate(rows)[7:, 7:][:HEIGHT, :WIDTH]
  assert np.mean(whole != valid) < (1e-9 if crs == "EPSG:32633" else 0.02)
  with files.open(3) as scene:
    cover = files.cover(scene.grid)
  assert cover and cover.kind == "scl"
  assert cover.clouded + cover.unknown == pytest.approx(1 - valid.mean(), abs=1e-9)


def test_a_reduced_pixel_is_hidden_if_any_of_its_pixels_is(tmp_path, monkeypatch):
  monkeypatch.setattr("lgag_jax.geo.clouds._BLOCK", 56)
  path, _ = write_scene(tmp_path / "a.tif")
  values = (np.random.default_rng(1).random((HEIGHT, WIDTH)) < 0.03).astype(np.uint8)
  files = SceneFiles(path, clouds=write(tmp_path / "c.tif", values))
  _, valid = valid_of(files, shape=(HEIGHT // 4, WIDTH // 4))
  np.testing.assert_array_equal(valid, ~values.reshape(24, 4, 32, 4).any((1, 3)))
  _, valid = valid_of(files, shape=(10, 7))
  for row in range(10):
    for col in range(7):
      part = values[int(9.6 * row) : math.ceil(9.6 * row + 9.6), 128 * col // 7 : 128 * (col + 1) // 7]
      if part.any() == valid[row, col]:
        assert not part[1:-1, 1:].any()  # Only a pixel on the border of two may count for either.


@pytest.mark.parametrize(("values", "options", "message"), [
  (np.zeros((9, 9), np.uint8), {"place": PLACE @ Affine.translation(200, 0)}, "does not overlap"),
  (np.zeros((9, 9), np.uint8), {"crs": None}, r"c\.tif has no coordinate reference system"),
  (np.zeros((9, 9), np.uint8), {"crs": 'LOCAL_CS["site",UNIT["metre",1]]'}, r"does not relate"),
  (np.zeros((9, 9, 2), np.uint8), {}, "has 2 bands"),
  (np.full((9, 9), 0.5, np.float32), {}, "holds 0.5, but a cloud mask holds whole numbers"),
  (np.full((9, 9), -3, np.int16), {}, "holds -3, but"),
  (np.full((9, 9), 7, np.uint8), {"nodata": 7}, r"has no data where .*a\.tif lies"),
  (np.eye(9, dtype=np.uint8), {"nodata": 0}, "declares 0 as nodata.*-unsetnodata"),
])
def test_files_that_are_no_cloud_mask_of_the_scene_are_refused(tmp_path, values, options, message):
  path, _ = write_scene(tmp_path / "a.tif")
  with pytest.raises(ImageError, match=rf"c\.tif.*{message}|{message}"):
    SceneFiles(path, clouds=write(tmp_path / "c.tif", values, **options)).open(3)


def test_a_cloud_mask_is_opened_as_safely_as_a_scene(tmp_path):
  path, _ = write_scene(tmp_path / "a.tif")
  vrt = tmp_path / "c.vrt"
  vrt.write_text(
    '<VRTDataset rasterXSize="9" rasterYSize="9"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
    "<SourceFilename>/vsicurl/http://localhost:1/c.tif</SourceFilename></SimpleSource></VRTRasterBand>"
    "</VRTDataset>")
  with pytest.raises(ImageError, match=r"c\.vrt names .*which is not a plain file"):
    SceneFiles(path, clouds=vrt).open(3)
  for name in ("a.png", "c.png"):
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / name)
  with pytest.raises(ImageError, match=r"c\.png has no coordinate reference system"):
    SceneFiles(tmp_path / "a.png", clouds=tmp_path / "c.png").open(1)


def test_clouds_and_images_before_are_found_by_name(tmp_path):
  scenes = [write_scene(tmp_path / name)[0] for name in ("x.tif", "y.tif")]
  masks = [write(tmp_path / "clouds" / name, classes(1)) for name in ("x.tif", "y.tif")]
  before = write_scene(tmp_path / "before.tif", 1)[0]
  options = Options(before=str(before), clouds=str(tmp_path / "clouds"), cloud_kind="scl")
  found = companions.find([*scenes, before], options)
  assert found == [SceneFiles(s, before, m, "scl") for s, m in zip(scenes, masks, strict=True)]
  masks[1].unlink()
  with pytest.raises(FileNotFoundError, match=r"--clouds=.*no image named y for .*y\.tif"):
    companions.find(scenes, options)
  with pytest.raises(ValueError, match=r"--clouds=.*is the scene itself: name the cloud mask"):
    companions.find(scenes[:1], Options(clouds=str(scenes[0])))


@pytest.mark.parametrize("flag", ["before", "clouds"])
def test_scenes_of_one_name_share_no_file_by_name(tmp_path, flag):
  scenes = [write_scene(tmp_path / folder / "x.tif")[0] for folder in ("a", "b")]
  shared = write_scene(tmp_path / "given" / "x.tif")[0]
  words = rf"a/x\.tif and .*b/x\.tif have one name.*one file for --{flag}"
  with pytest.raises(ValueError, match=words):
    companions.find(scenes, Options(**{flag: str(shared.parent)}))
  found = companions.find(scenes, Options(**{flag: str(shared)}))
  assert [getattr(files, flag) for files in found] == [shared, shared]


@pytest.mark.parametrize("unplaced", [(0,), (1,), (0, 1)])
def test_one_image_before_serves_no_scenes_without_a_place(tmp_path, unplaced):
  scenes = [write_scene(tmp_path / f"{name}.tif")[0] for name in "ab"]
  for number in unplaced:
    scenes[number] = tmp_path / f"photograph{number}.png"
    Image.fromarray(np.ones((HEIGHT, WIDTH, 3), np.uint8)).save(scenes[number])
  before = write_scene(tmp_path / "given.tif")[0]
  words = rf"given\.tif is one file for 2 scenes, but .*photograph{unplaced[0]}\.png has no place"
  with pytest.raises(ValueError, match=words):
    companions.find(scenes, Options(before=str(before)))
  assert companions.find(scenes[:1], Options(before=str(before)))[0].before == before


def test_clouds_hide_both_dates(tmp_path):
  path, pixels = write_scene(tmp_path / "a.tif")
  before = write(tmp_path / "before.tif", pixels // 2)
  values = classes().astype(np.uint8)
  files = SceneFiles(path, before, write(tmp_path / "c.tif", values, place=COARSE))
  found, valid = valid_of(files)
  np.testing.assert_array_equal(valid, np.kron(~np.isin(values, (3, 8)), np.ones((2, 2), bool)))
  np.testing.assert_array_equal(found[valid], np.concatenate([pixels, pixels // 2], -1)[valid])


# What follows.


@pytest.mark.usefixtures("batch_sizes")
def test_ground_under_clouds_is_not_mapped(model, tmp_path, caplog):  # noqa: F811
  caplog.set_level(logging.INFO)
  ground = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
  ground[20:40, 20:60] = ground[70:90, 90:110] = 220
  path = write(tmp_path / "a.tif", ground)
  values = np.full((HEIGHT // 2, WIDTH // 2), 4, np.uint8)
  values[:, 20:30], values[:2] = 9, 0  # The cloud covers the right half of the first landslide.
  clouds = write(tmp_path / "scl.tif", values, place=COARSE)
  hidden = np.kron(np.isin(values, (9, 0)), np.ones((2, 2), bool))
  options = Options(clouds=str(clouds), min_area=100, training_gsd=10)
  result = predict.map_scenes(model, tmp_path / "*.tif", tmp_path / "maps", options)
  (row,) = result.rows
  np.testing.assert_array_equal(
    read(tmp_path / "maps/mask/a_tif.tif")[0], np.where(hidden, 255, ground[..., 0] == 220))
  assert (read(tmp_path / "maps/probability/a_tif.tif")[0][hidden] == 255).all()
  meta, _, _, columns = pyogrio.raw.read(tmp_path / "maps/polygons/a_tif.gpkg")
  read_columns = dict(zip(meta["fields"], columns, strict=True))
  assert sorted(zip(read_columns["pixels"], read_columns["touches_nodata"], strict=True)) == [
    (400, False), (400, True)]
  clouded = (values == 9).mean()
  assert row["no_data_share"] == pytest.approx(hidden.mean(), abs=1e-6)
  with (tmp_path / "maps/predictions.csv").open(newline="") as file:
    (line,) = csv.DictReader(file)
  assert float(line["cloud_share"]) == pytest.approx(clouded, abs=1e-6)
  assert f"scl.tif is a scene classification of Sentinel-2 (SCL). It hides {100 * clouded:.1f} %" in (
    caplog.text)
  assert f"<td>{100 * clouded:.1f} %</td>" in (tmp_path / "maps/report.html").read_text()
  truth = write(tmp_path / "truth.png.tif", (ground[..., 0] == 220).astype(np.uint8))
  content = judge.evaluate_maps(
    result, {path: truth}, tmp_path / "maps", options, References(labels=str(truth)))
  assert content["pixels"]["judged"] == np.count_nonzero(~hidden)


@pytest.mark.parametrize("most", [0.0, 0.3])
def test_tiles_under_clouds_are_neither_cut_nor_shown(tmp_path, caplog, most):
  caplog.set_level(logging.INFO)
  path, pixels = write_scene(tmp_path / "a.tif")
  values = np.full((HEIGHT // 2, WIDTH // 2), 5, np.uint8)
  values[10:31, 7:30], values[32::2, 48::2] = 8, 3  # A cloud, and shadows all over the last tile.
  clouds = write(tmp_path / "scl" / "a.tif", values, place=COARSE)
  hidden = np.kron(values != 5, np.ones((2, 2), bool))
  shares = hidden.reshape(3, 32, 4, 32).mean((1, 3))
  (tmp_path / "t.csv").write_text("row,col,label\n" + "".join(
    f"{row},{col},{(row + col) % 2}\n" for row in range(3) for col in range(4)))
  cut = Settings(
    input=str(path), output=str(tmp_path / "tiles"), labels=str(tmp_path / "t.csv"), tile_size=32,
    clouds=str(tmp_path / "scl"), max_nodata=most, validation_fraction=0.0)
  rows, _ = tile.cut(cut)
  kept = {(row.row, row.col) for row in rows if row.image}
  assert kept == set(zip(*map(np.ndarray.tolist, np.nonzero(shares <= most)), strict=True))
  assert ((2, 3) in kept) == (most == 0.3) and (1, 1) not in kept and shares[2, 3] == 0.25
  assert "a.tif is a scene classification" in caplog.text
  for row in rows:
    if row.image:
      window = np.s_[32 * row.row : 32 * row.row + 32, 32 * row.col : 32 * row.col + 32]
      clear, written = ~hidden[window], np.moveaxis(read(tmp_path / "tiles" / row.image), 0, -1)
      np.testing.assert_array_equal(written[clear], pixels[window][clear])
      if not clear.all():
        mean = np.rint(pixels[window][clear].mean(0))
        np.testing.assert_array_equal(written[~clear], np.broadcast_to(mean, written[~clear].shape))
  session = Session(labelling.Settings(
    input=str(path), output=str(tmp_path / "labels"), tile_size=32, clouds=str(clouds),
    max_nodata=most, learn=False))
  index, steps = session.view.index, session.map_job._steps()
  assert {index.key(n)[1:] for n in range(len(index.tiles))} == kept
  shown = session.view.pictures.whole(0, WIDTH)
  assert (shown[hidden] == 232).all() and (shown[~hidden] == pixels[~hidden]).all()
  assert f" --clouds={clouds}\n" in sheets.text(session, [tmp_path], None)
  flags = {f"--clouds={clouds}", "--cloud_kind=auto"}
  assert [flags <= set(step.flags) for step in steps] == [True, False, True]
