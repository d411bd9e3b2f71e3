"""Pairs of images, before and after an event: their features, their grids, their sources and maps."""

import dataclasses
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rasterio
import scipy.ndimage
from affine import Affine
from PIL import Image
from rasterio.windows import Window

import lgag_jax
from data.synthetic_landslides import pairs as synthetic
from data.synthetic_landslides import terrain, write_event
from lgag_jax import config as configs
from lgag_jax.config import DataConfig
from lgag_jax.export import export, load_stablehlo
from lgag_jax.geo import companions, coregistration
from lgag_jax.geo import pair as pair_module
from lgag_jax.geo.companions import SceneFiles
from lgag_jax.geo.coregistration import Shift
from lgag_jax.geo.pair import open_pair, shift_warnings
from lgag_jax.imagery import reading
from lgag_jax.inputs import sources, unused_files
from lgag_jax.mapping import array_scenes, scene_plans
from lgag_jax.mapping import predict as prediction
from lgag_jax.method import network as networks
from lgag_jax.method import pairs
from lgag_jax.options import export as export_options
from lgag_jax.options.mapping import Options
from lgag_jax.options.tiling import Settings
from lgag_jax.runtime import sealed_json
from lgag_jax.tiling import output as tiling_output
from lgag_jax.tiling import tile
from lgag_jax.training import examples_record
from tests import untrained
from tests.conftest import make_small_config

UTM = "EPSG:32633"
PLACE = Affine(2.0, 0.0, 500000.0, 0.0, -2.0, 5200000.0)


def texture(seed, height=96, width=128):
  """Returns random ground u8[H, W, 3] with detail of all sizes."""
  noise = np.random.default_rng(seed).normal(size=(height, width, 3))
  smooth = sum(s * scipy.ndimage.gaussian_filter(noise, (s, s, 0), mode="wrap") for s in (1, 2, 4))
  return np.clip(128 + 40 * smooth / smooth.std(), 1, 255).astype(np.uint8)


def write(path, pixels, *, crs=UTM, place=PLACE, nodata=None):
  path.parent.mkdir(parents=True, exist_ok=True)
  with rasterio.open(
    path, "w", driver="GTiff", height=pixels.shape[0], width=pixels.shape[1], count=pixels.shape[2],
    dtype=pixels.dtype, crs=crs, transform=place, nodata=nodata,
  ) as raster:
    raster.write(np.moveaxis(pixels, -1, 0))
  return path


def whole(pair):
  return pair.read(Window(0, 0, pair.grid.width, pair.grid.height))


# Features.


def test_the_trunk_sees_the_bands_of_each_date(rng):
  both = rng.normal(size=(3, 4, 5, 6)).astype(np.float32)
  dates = np.asarray(pairs.apart(both))
  for i in range(3):
    np.testing.assert_array_equal(dates[2 * i], both[i, ..., :3])
    np.testing.assert_array_equal(dates[2 * i + 1], both[i, ..., 3:])
  np.testing.assert_array_equal(pairs.together(dates), both)


def test_light_and_haze_of_the_whole_image_are_no_change(rng):
  after = rng.uniform(0.1, 0.9, (2, 16, 16, 3)).astype(np.float32)
  before = after * np.float32([0.5, 0.8, 1.2]) + np.float32([0.3, 0.1, -0.1])
  matched = pairs.matched(jnp.concatenate([after, before], -1))
  np.testing.assert_array_equal(matched[..., :3], after)
  np.testing.assert_allclose(matched[..., 3:], after, atol=0.01)
  flat = pairs.matched(jnp.concatenate([after, np.zeros_like(after)], -1))  # Has no contrast.
  assert np.isfinite(flat).all() and np.asarray(flat[..., 3:]).std(axis=(1, 2)).max() < 1e-3


@pytest.mark.longest
@pytest.mark.parametrize("stage", [4, 5])
def test_the_network_compares_its_features_of_both_dates(small_config, stage):
  small_config.data.before, small_config.data.augment = "before", "image"
  small_config.model.first_trainable_stage, small_config.model.weights = stage, "random"
  pair = networks.build(configs.from_mapping(small_config))
  small_config.data.before = ""
  single = networks.build(configs.from_mapping(small_config))
  trunk = jax.jit(lambda key: pair.init_trunk(key, 3))(jax.random.key(0))
  params, statistics = {"trunk": trunk["params"]}, trunk["batch_stats"]
  rng = np.random.default_rng(0)
  after, before = jnp.asarray(rng.uniform(size=(2, 1, 64, 64, 3)), jnp.float32)
  images = jnp.concatenate([after, before], -1)
  taps_of = lambda network, x: jax.jit(
    lambda x: network.taps(params, statistics, network.frozen(params, statistics, x))
  )(x)
  taps = taps_of(pair, images)
  first = taps_of(single, after)
  second = taps_of(single, pairs.matched(images)[..., 3:])
  for tap, a, b in zip(taps, first, second, strict=True):
    np.testing.assert_allclose(tap, np.concatenate([a, np.abs(a - b)], -1), rtol=2e-3, atol=2e-4)
  assert pair.anchor_dimension(3) == single.anchor_dimension(3) * 2


def test_bands_are_those_of_one_date():
  assert DataConfig(before="before", channels=4).input_channels == 8
  given = {"before": "before", "normalise": "given"}
  DataConfig(**given, mean=(0.5,) * 6, std=(1.0,) * 6)
  with pytest.raises(ValueError, match="6 channels"):
    DataConfig(**given, mean=(0.5,) * 3, std=(1.0,) * 3)


# Grids and shifts.


@pytest.mark.parametrize("shift", [(0.0, 0.0), (2.0, -3.0), (-1.5, 0.5)])
def test_a_shift_is_found_and_corrected(shift):
  after = texture(1, 160, 160)
  before = scipy.ndimage.shift(after.astype(np.float32), (-shift[0], -shift[1], 0), mode="wrap")
  before = np.clip(before * 0.6 + 30, 0, 255).astype(np.uint8)  # In other light.
  valid = np.ones(after.shape[:2], bool)
  found = coregistration.estimate(after, before, valid)
  np.testing.assert_allclose((found.rows, found.cols), shift, atol=0.15)
  pixels, known = coregistration.aligned(np.concatenate([after, before], -1), valid, 5.0)
  inner = pixels[8:-8, 8:-8].astype(float)
  assert np.corrcoef(inner[..., 0].ravel(), inner[..., 3].ravel())[0, 1] > 0.97
  assert known[8:-8, 8:-8].all()
  assert known.all() == (shift == (0.0, 0.0))
  untouched, _ = coregistration.aligned(np.concatenate([after, before], -1), valid, 1.0)
  assert (shift == (0.0, 0.0)) or np.array_equal(untouched[..., 3:], before)  # Beyond the bound.


def test_images_of_two_places_have_no_shift():
  found = coregistration.estimate(texture(1, 160, 160), texture(2, 160, 160), np.ones((160, 160), bool))
  assert found.rows is None and found.within(5.0) == (0.0, 0.0)
  assert "only" in shift_warnings(found, 5.0)[0]
  assert "7.1 pixels" in shift_warnings(Shift(5.0, 5.0, 9, 9), 5.0)[0]
  assert not shift_warnings(Shift(1.0, 1.0, 9, 9), 5.0)


def test_pairs_of_one_grid_are_read_as_they_are(tmp_path):
  after, before = texture(1), texture(2)
  before[10:20, 30:40] = 0
  after[50:60, 5:9] = 0
  a = write(tmp_path / "a.tif", after, nodata=0)
  b = write(tmp_path / "b.tif", before, nodata=0)
  with open_pair(a, b, 3) as pair:
    pixels, valid = whole(pair)
    assert (pair.channels, pair.dtype, pair.path) == (6, np.uint8, a)
    np.testing.assert_array_equal(pair.valid(Window(0, 0, 128, 96)), valid)
    outside, known = pair.read(Window(-4, -4, 8, 8))
  expected = (after != 0).all(-1) & (before != 0).all(-1)  # Missing on either date is missing.
  np.testing.assert_array_equal(valid, expected)
  np.testing.assert_array_equal(pixels[valid], np.concatenate([after, before], -1)[valid])
  assert known.sum() == 16 and outside.shape == (8, 8, 6)


@pytest.mark.parametrize(
  ("crs", "gsd"), [(UTM, 1.0), (UTM, 3.1), ("EPSG:4326", 0.0), ("EPSG:32632", 2.0)]
)
def test_the_image_before_is_resampled_to_the_grid_of_the_one_after(tmp_path, crs, gsd):
  """A ramp in metres has known values at every place, whatever the grid."""
  ramp = lambda x, y: np.stack([x - 499900, 5200100 - y, (x - y + 4.701e6) / 2], -1) / 4
  cols, rows = np.meshgrid(np.arange(60) + 0.5, np.arange(50) + 0.5)
  after = ramp(*(PLACE @ (cols, rows)))
  a = write(tmp_path / "a.tif", after.astype(np.float32))
  bounds = rasterio.warp.transform_bounds(UTM, crs, 499950, 5199850, 500170, 5200050)
  step = gsd or 2e-5
  place = Affine(step, 0, bounds[0], 0, -step, bounds[3])
  shape = int((bounds[3] - bounds[1]) / step), int((bounds[2] - bounds[0]) / step)
  x, y = place @ tuple(np.meshgrid(np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5))
  x, y = rasterio.warp.transform(crs, UTM, x.ravel(), y.ravel())
  before = ramp(np.reshape(x, shape), np.reshape(y, shape)).astype(np.float32)
  b = write(tmp_path / "b.tif", before, crs=crs, place=place)
  with open_pair(a, b, 3) as pair:
    for window in (Window(0, 0, 60, 50), Window(31, 17, 20, 20)):
      pixels, valid = pair.read(window)
      assert valid.all()
      np.testing.assert_allclose(pixels[..., 3:], pixels[..., :3], atol=0.05)
    half, valid = pair.read(Window(0, 0, 60, 50), (25, 30))
    assert valid.all()
    np.testing.assert_allclose(half[..., 3:], half[..., :3], atol=0.1)


def test_resampling_takes_memory_of_a_part_and_not_of_a_window(tmp_path, monkeypatch):
  image, other = np.tile(texture(3), (4, 4, 1)), PLACE @ Affine.translation(0.5, -0.5)
  a, b = write(tmp_path / "a.tif", image), write(tmp_path / "b.tif", image, place=other)
  values, peaks = [], []
  for largest in (1 << 30, 1 << 12):
    monkeypatch.setattr(pair_module, "_MOST_RESAMPLED", largest)
    with open_pair(a, b, 3) as pair:
      tracemalloc.start()
      values.append(whole(pair))
      peaks.append(tracemalloc.get_traced_memory()[1])
      tracemalloc.stop()
  for one, in_parts in zip(*values, strict=True):
    np.testing.assert_array_equal(one, in_parts)
  assert peaks[1] < peaks[0] / 2


def test_a_scene_that_the_image_before_covers_in_part(tmp_path):
  image = texture(3)
  a = write(tmp_path / "a.tif", image)
  b = write(tmp_path / "b.tif", image[:, 40:], place=PLACE @ Affine.translation(40, 0))
  with open_pair(a, b, 3, max_shift=5.0) as pair:
    pixels, valid = whole(pair)
  assert not valid[:, :40].any() and valid[:, 41:].all()
  np.testing.assert_array_equal(pixels[:, 41:, 3:], image[:, 41:])


def test_a_displaced_image_before_is_moved(tmp_path):
  image = texture(3)
  a = write(tmp_path / "a.tif", image)
  b = write(tmp_path / "b.tif", image, place=PLACE @ Affine.translation(3, -2))  # A wrong place.
  with open_pair(a, b, 3, max_shift=5.0) as pair:
    np.testing.assert_allclose((pair.shift.rows, pair.shift.cols), (2, -3), atol=0.15)
    pixels, valid = whole(pair)
  assert valid[3:-3, 4:-4].all()
  assert np.abs(pixels[..., 3:].astype(int) - image)[valid].mean() < 2
  with open_pair(a, b, 3, max_shift=2.0) as pair:
    assert np.abs(whole(pair)[0][..., 3:].astype(int) - image)[valid].mean() > 10


def test_images_that_are_no_pair_are_refused(tmp_path):
  a = write(tmp_path / "a.tif", texture(1))
  far = write(tmp_path / "far.tif", texture(1), place=PLACE @ Affine.translation(5000, 0))
  with pytest.raises(reading.ImageError, match=r"far\.tif does not overlap .*a\.tif"):
    open_pair(a, far, 3)
  wide = write(tmp_path / "wide.tif", texture(1).astype(np.uint16))
  with pytest.raises(reading.ImageError, match=r"wide\.tif holds uint16"):
    open_pair(a, wide, 3)
  loose = write(tmp_path / "loose.tif", texture(1), crs=None)
  with pytest.raises(reading.ImageError, match=r"loose\.tif has no coordinate reference system"):
    open_pair(a, loose, 3)
  alone = write(tmp_path / "alone.tif", texture(1), place=None)
  for pair in ((a, alone), (alone, a)):
    with pytest.raises(reading.ImageError, match=r"alone\.tif does not fit.*CRS, but neither"):
      open_pair(*pair, 3)
  for name, height in (("one.png", 40), ("two.png", 41)):
    Image.fromarray(texture(1, height, 40)).save(tmp_path / name)
  with pytest.raises(reading.ImageError, match=r"two\.png is \(41, 40\)"):
    open_pair(tmp_path / "one.png", tmp_path / "two.png", 3)


@pytest.mark.parametrize("crs", [None, UTM])
@pytest.mark.parametrize("corner", [0, 40])
def test_pictures_whose_pixels_are_counted_have_no_place(tmp_path, crs, corner):
  place = lambda height: Affine(1, 0, 0, 0, -1, corner and height)
  a, b = (
    write(tmp_path / f"{name}.tif", texture(1, height, 40), crs=crs, place=place(height))
    for name, height in (("a", 40), ("b", 44))
  )
  with pytest.raises(reading.ImageError, match=r"b\.tif is \(44, 40\)"):
    open_pair(a, b, 3)
  np.testing.assert_array_equal(whole(open_pair(a, a, 3))[0][..., 3:], texture(1, 40, 40))


def test_images_before_are_found_by_name(tmp_path):
  scenes = [write(tmp_path / "after" / name, texture(1)) for name in ("x.tif", "y.tif")]
  one = write(tmp_path / "one.tif", texture(1))
  assert companions.find(scenes, Options()) == [SceneFiles(path) for path in scenes]
  with_one = companions.find([*scenes, one], Options(before=str(one)))
  assert with_one == [SceneFiles(path, one) for path in scenes]
  write(tmp_path / "before" / "x.tif", texture(2))
  with pytest.raises(FileNotFoundError, match=r"no image named y for .*y\.tif"):
    companions.find(scenes, Options(before=str(tmp_path / "before")))
  write(tmp_path / "before" / "y.tif", texture(2))
  found = companions.find(scenes, Options(before=str(tmp_path / "before")))
  assert [files.before for files in found] == [tmp_path / "before" / path.name for path in scenes]
  with pytest.raises(FileNotFoundError, match="--before="):
    companions.find(scenes, Options(before=str(tmp_path / "none")))
  with pytest.raises(ValueError, match="the scene itself"):
    companions.find(scenes[:1], Options(before=str(scenes[0])))


# Sources.


@pytest.fixture
def dated_folder(tmp_path):
  """A folder of ten images after, their masks, and images before that lie two pixels beside them."""
  root = tmp_path / "data"
  for i in range(10):
    ground, folder = texture(i, 64, 64), "landslide" if i < 5 else "non-landslide"
    mask = np.zeros((64, 64), np.uint8)
    mask[20:30, 20:30] = 255 if i < 5 else 0
    for name, array in (
      (folder, ground), ("masks", mask), ("before", np.roll(ground, -2, axis=0))
    ):
      (root / name).mkdir(parents=True, exist_ok=True)
      Image.fromarray(array).save(root / name / f"image_{i}.png")
  return root


def test_a_folder_of_images_before(dated_folder):
  config = DataConfig(directory=str(dated_folder), before="before")
  source = sources.open_source(config, "train")
  positive = int(np.argmax(source.labels[:, 0]))
  image, mask = source.read(positive)
  assert image.shape == (64, 64, 6)
  after = np.asarray(Image.open(source.files(positive)[0]))
  np.testing.assert_array_equal(image[4:, 4:-4, :3], after[4:, 4:-4])
  assert np.abs(image[8:50, 8:50, 3:].astype(int) - after[8:50, 8:50]).mean() < 2  # Moved by two rows.
  assert (mask[:2] == reading.UNKNOWN).all() and set(np.unique(mask)) == {0, 1, reading.UNKNOWN}
  assert not unused_files.find(config).elsewhere
  assert unused_files.find(dataclasses.replace(config, before="")).elsewhere
  unmoved = sources.open_source(dataclasses.replace(config, max_shift=0.0), "train")
  np.testing.assert_array_equal(unmoved.read(positive)[0][:-2, :, 3:], after[2:])
  assert unmoved.keys[0] != source.keys[0]
  (dated_folder / "before" / "image_3.png").unlink()
  with pytest.raises(FileNotFoundError, match=r"no image named image_3 for .*landslide/image_3\.png"):
    sources.open_source(config, "train")


def test_images_before_in_a_manifest_and_with_masks(dated_folder):
  (dated_folder / "landslide").rename(dated_folder / "images")
  lines = [f"images/image_{i}.png,masks/image_{i}.png,before/image_{(i + 1) % 5}.png" for i in range(5)]
  (dated_folder / "manifest.csv").write_text("\n".join(["image,mask,before", *lines]))
  config = DataConfig(
    source="patches", directory=str(dated_folder), before="manifest", max_shift=0.0, tile_size=32,
  )
  source = sources.make_source(config, "train")
  image, _ = source.read(1)  # The upper right tile of the first image.
  np.testing.assert_array_equal(
    image[..., 3:], np.asarray(Image.open(dated_folder / "before" / "image_1.png"))[:32, 32:]
  )
  lines[1] = "images/image_1.png,masks/image_1.png,"
  (dated_folder / "manifest.csv").write_text("\n".join(["image,mask,before", *lines]))
  with pytest.raises(ValueError, match="no path in the column before"):
    sources.make_source(config, "train")


FLAT = ("landslide/l.png", "non-landslide/n.png", "landslide/a.png")
SPLIT = ("train/landslide/a.png", "train/non-landslide/n.png", "validation/non-landslide/m.png")


def make_named_pairs(root, images, before):
  for number, name in enumerate((*images, *before)):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), 40 + number, np.uint8)).save(path)


@pytest.mark.parametrize(("images", "second"), [
  (FLAT, "non-landslide/a.png"), (FLAT, "landslide/a.tif"), (SPLIT, "train/non-landslide/a.png"),
  (SPLIT, "validation/landslide/a.png"),
])
@pytest.mark.parametrize("kind", ["before", "manifest"])
def test_two_images_never_share_an_image_before(tmp_path, images, second, kind):
  names = ("a", "l", "n", "m")
  make_named_pairs(tmp_path, (*images, second), [f"before/{name}.png" for name in names])
  rows = [f"{name}.png,before/{name}.png,train" for name in names] + ["a.tif,before/a.png,train"]
  if kind == "manifest":
    (tmp_path / "manifest.csv").write_text("\n".join(["image,before,split", *rows]))
  config = DataConfig(directory=str(tmp_path), before=kind)
  owners = rf"{second} .*would both have the image before the event .*/before/a\.png: give them"
  with pytest.raises(ValueError, match=owners):
    sources.make_source(config, "train")


@pytest.mark.parametrize(("images", "before", "unused"), [
  ((*FLAT, "non-landslide/a.png"),
   ("before/landslide/a.png", "before/non-landslide/a.png", "before/l.png", "before/n.png"), ()),
  ((*SPLIT, "validation/landslide/a.png"), ("train/before/a.png", "train/before/n.png"),
   ("validation/before/a.png", "validation/before/m.png")),
  ((*SPLIT, "validation/landslide/a.png"), ("train/before/a.png", "train/before/n.png"),
   ("before/a.png", "before/m.png")),
])
def test_images_of_one_name_have_images_before_in_folders(tmp_path, images, before, unused):
  make_named_pairs(tmp_path, images, (*before, *unused))
  config = DataConfig(directory=str(tmp_path), before="before", validation_fraction=0.01)
  source = sources.make_source(config, "train")
  found = [str(source.before(i).relative_to(tmp_path)) for i in range(len(source.ids))]
  assert sorted(found) == sorted(before)


def test_both_dates_in_one_image(dated_folder):
  for i in range(10):
    folder = dated_folder / ("landslide" if i < 5 else "non-landslide")
    image, before = (
      np.asarray(Image.open(dated_folder / name / f"image_{i}.png")) for name in (folder.name, "before")
    )
    both = np.concatenate([image, before], -1)
    write(folder / f"both_{i}.tif", both, crs=None, place=Affine.identity())
    (folder / f"image_{i}.png").unlink()
  source = sources.open_source(DataConfig(directory=str(dated_folder), before="stacked"), "train")
  image, _ = source.read(0)
  assert np.abs(image[8:50, 8:50, 3:].astype(int) - image[8:50, 8:50, :3]).mean() < 2


# Tiles, maps and programs.


def test_tiles_of_both_dates(tmp_path):
  image = texture(5, 128, 128)
  a = write(tmp_path / "a.tif", image)
  b = write(tmp_path / "old.tif", image[::-1].copy())
  mask = np.zeros((128, 128, 1), np.uint8)
  mask[:20, :20] = mask[100:, 100:] = 1
  labels = write(tmp_path / "labels.tif", mask)
  settings = Settings(
    input=str(a), output=str(tmp_path / "tiles"), labels=str(labels), before=str(b), tile_size=32,
    validation_fraction=0.0, max_shift=0.0,
  )
  rows, command = tile.cut(settings)
  assert "--config.data.before=before" in command and len(rows) == 16
  assert command == tiling_output.command(settings, 3)
  config = DataConfig(directory=settings.output, before="before", max_shift=0.0)
  source = sources.make_source(config, "train")
  for i, name in enumerate(source.ids):
    row, col = (int(name.rsplit("_", 2)[k][1:4]) * 32 for k in (1, 2))
    np.testing.assert_array_equal(
      source.read(i)[0][..., 3:], image[::-1][row : row + 32, col : col + 32]
    )


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  config = make_small_config("nowhere")
  config.data.before = "before"
  return untrained.make_workdir(tmp_path_factory.mktemp("pair"), configs.from_mapping(config))


def test_maps_of_pairs(workdir, tmp_path):
  image, other = texture(6, 100, 90), texture(7, 100, 90)
  other[40:, 60:] = 0
  a = write(tmp_path / "scenes" / "a.tif", image)
  b = write(tmp_path / "scenes" / "old.tif", other, nodata=0)
  model = lgag_jax.load(workdir)
  options = Options(probability="float32", before=str(b), max_shift=0.0)
  result = prediction.map_scenes(model.loaded, a.parent, tmp_path / "maps", options)
  assert [row["file"] for row in result.rows] == ["a.tif"]
  with rasterio.open(tmp_path / "maps" / "probability" / "a_tif.tif") as raster:
    scores = raster.read(1)
    assert (raster.transform, raster.shape) == (PLACE, (100, 90))
  names = {path.parent.name for path in tmp_path.glob("maps/*/a_tif.jpg")}
  assert names == {"image", "image_before"}
  assert "<figcaption>Before</figcaption>" in (tmp_path / "maps" / "report.html").read_text()
  in_python = model.predict(a, before=b, options=options)
  np.testing.assert_allclose(in_python.probability[..., 0], scores, atol=1e-6)
  assert np.isnan(in_python.probability[45:, 65:]).all() and (in_python.mask[45:, 65:] == 255).all()
  hidden = np.ma.array(other, mask=np.repeat((other == 0).all(-1)[..., None], 3, -1))
  in_memory = dataclasses.replace(options, before="")
  arrays = model.predict(image, before=hidden, gsd=2.0, options=in_memory)
  np.testing.assert_allclose(arrays.probability[..., 0], scores, atol=1e-5)
  same = model.predict(image, before=image, gsd=2.0)
  assert np.nanmax(np.abs(same.probability[..., 0] - scores)) > 0.01  # The other date counts.
  with pytest.raises(ValueError, match="name those before with --before"):
    prediction.map_scenes(model.loaded, a, tmp_path / "other", Options())
  with pytest.raises(ValueError, match="must be the array before"):
    model.predict(image)
  with pytest.raises(ValueError, match="same size and type"):
    model.predict(image, before=image[:50])


def test_a_network_of_one_date_refuses_a_second(tmp_path):
  with pytest.raises(ValueError, match="maps images of one date"):
    scene_plans.check_dates(configs.Config(), Options(before=str(tmp_path)))
  batch = np.ma.array(texture(1)[None])
  with pytest.raises(ValueError, match="one date"):
    array_scenes.with_before(batch, texture(2), DataConfig(), 0.0)


@pytest.mark.longest
def test_an_exported_program_says_that_it_takes_two_dates(workdir):
  model, settings = prediction.load_model(workdir), export_options.Settings()
  facts = export.facts(model, settings)
  assert (facts["channels"], facts["dates"], facts["bands"]) == (6, 2, [1, 2, 3])
  assert export._image_struct(model, 2, "uint8").shape == (2, 64, 64, 6)


@pytest.mark.longest
def test_an_exported_program_takes_both_dates(workdir, tmp_path):
  settings = export_options.Settings(what=("stablehlo",))
  export.export(workdir, tmp_path / "out", settings)
  image = np.concatenate([texture(1, 64, 64), texture(2, 64, 64)], -1)
  outputs = load_stablehlo.load("uint8", tmp_path / "out")(image[None])
  model = lgag_jax.load(workdir)
  result = model.predict(image[..., :3], before=image[..., 3:], gsd=2.0, options=Options(max_shift=0.0))
  np.testing.assert_allclose(outputs["scores"][0], result.probability, atol=1e-4)


# The demonstration.


def test_synthetic_dates_differ_by_the_new_landslides():
  yes, no = (
    synthetic.render(synthetic.make_plan(6, 96, 96, landslide=landslide), 0, 0, 96, 96)
    for landslide in (True, False)
  )
  np.testing.assert_array_equal(yes.before, no.before)
  assert yes.mask.sum() > 100 and not no.mask.any() and not (yes.mask & yes.old).any()
  far = scipy.ndimage.distance_transform_edt(yes.mask == 0) > 18  # Beyond its shadow.
  np.testing.assert_array_equal(yes.after[far], no.after[far])
  plans = [synthetic.make_plan(seed, 256, 256, landslide=False) for seed in range(4)]
  assert sum(len(plan.after.old) for plan in plans) > 0  # Small patches hold none beside a new one.
  assert all(plan.after.old == plan.before.old for plan in plans)


def test_a_synthetic_event_is_written(tmp_path):
  paths = write_event.write_event(tmp_path / "event", seed=1, height=70, width=90, max_shift=1)
  assert [path.name for path in paths] == ["after.tif", "before.tif", "mask.tif", "dem.tif"]
  plan = synthetic.make_plan(1, 70, 90, landslide=True, max_shift=1)
  window = synthetic.render(plan, 0, 0, 70, 90)
  with open_pair(*paths[:2], 3) as pair:
    pixels, _ = whole(pair)
  np.testing.assert_array_equal(pixels, np.concatenate([window.after, window.before], -1))
  with rasterio.open(paths[3]) as dem, rasterio.open(paths[0]) as after:
    assert dem.shape == (18, 23) and dem.transform == after.transform @ Affine.scale(4)
    heights = dem.read(1)
  fine = terrain.heights_at(plan.after.ground, np.arange(68.0), np.arange(88.0)) * 0.5
  means = fine.reshape(17, 4, 22, 4).mean((1, 3))  # The relief is smooth.
  np.testing.assert_allclose(heights[:17, :22], means, atol=0.05 * np.ptp(means))


def change_before(root):
  Image.fromarray(texture(99, 64, 64)).save(root / "before" / "image_0.png")


def change_notes(root):
  (root / "before" / "image_0.png.aux.xml").write_text(
    '<PAMDataset><PAMRasterBand band="1"><NoDataValue>90</NoDataValue></PAMRasterBand></PAMDataset>'
  )


def place_one_date(root):
  (root / "landslide" / "image_0.pgw").write_text("1\n0\n0\n-1\n0.5\n-0.5\n")


@pytest.mark.parametrize("change", [change_before, change_notes, place_one_date])
def test_images_before_that_changed_between_two_starts_are_refused(dated_folder, tmp_path, change):
  config = configs.from_mapping(make_small_config(dated_folder))
  config = dataclasses.replace(config, data=dataclasses.replace(config.data, before="before"))
  opened = lambda: {split: sources.make_source(config.data, split) for split in ("train", "validation")}
  examples_record.write(opened(), tmp_path, config)
  examples_record.check(opened(), tmp_path, config)
  (dated_folder / "before" / "image_0.png").touch()
  examples_record.check(opened(), tmp_path, config)
  change(dated_folder)
  with pytest.raises(ValueError, match="the train split has other images before the event"):
    examples_record.check(opened(), tmp_path, config)
  record = sealed_json.read(tmp_path / examples_record.FILE, "")
  for entry in record.values():
    del entry["before"]
  sealed_json.write(tmp_path / examples_record.FILE, record)  # As earlier releases wrote it.
  examples_record.check(opened(), tmp_path, config)
