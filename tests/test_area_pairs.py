# ruff: noqa: F811
"""An area is mapped from images before and after an event, block by block, as a pair of scenes is."""

import dataclasses
import json

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

import lgag_jax
from lgag_jax import config as configs
from lgag_jax.blocks import area_job, map_block, network, plan
from lgag_jax.blocks.plan import Block, BlockSize
from lgag_jax.catalogues import search
from lgag_jax.geo.pair import open_pair
from lgag_jax.imagery.opening import ImageError
from lgag_jax.options.area import Area, Engine, Imagery
from lgag_jax.options.mapping import Options
from tests import area_data, untrained
from tests.conftest import make_small_config
from tests.test_area_blocks import stub  # noqa: F401

DATES = Imagery(dates="2015-05-10/2015-05-20", before_dates="2015-05-01/2015-05-09")
SIZE = BlockSize(96, 64, 2)
BLOCK = Block(area_data.EPSG, 27_031, 2_500)


def catalogue(folder, *images):
  """Writes images, (name, day of May, array, options), and their catalogue; returns its path."""
  return area_data.write_catalogue(folder, [
    area_data.item(
      name, {"image": area_data.write_cog(folder / f"{name}.tif", array, nodata=0, **options)}, folder,
      day=day,
    ) for name, day, array, options in images
  ])


@pytest.fixture
def pair(tmp_path):
  """Images of both dates on a block and its halo, with a hole each, and their catalogue."""
  grid = plan.block_grid(BLOCK, untrained.GSD, SIZE, halo=True)
  place = {"west": grid.transform.c, "north": grid.transform.f}
  after = area_data.ground(grid.height, grid.width).copy()
  before = (after[::-1] * 0.7).astype(np.uint8)  # Other ground, in other light.
  after[100:120, 70:120], before[120:160, 100:110] = 0, 0
  source = catalogue(tmp_path, ("after", 12, after, place), ("before", 3, before, place))
  return source, tmp_path / "after.tif", tmp_path / "before.tif"


def test_a_block_is_read_as_the_same_two_scenes_are(pair):
  source, *scenes = pair
  images = search.find_images(str(source), None, 3, DATES)
  assert [(image.name, image.before) for image in images] == [("after", False), ("before", True)]
  job = map_block.AreaJob(
    source.parent, tuple(images), DATES, untrained.GSD, SIZE, 3, ("landslide",), "uint8", ""
  )
  pixels = map_block.read_block(job, dataclasses.replace(BLOCK, images=(0, 1)))
  with open_pair(*scenes, 3) as scene:
    expected, valid = scene.read(Window(0, 0, SIZE.length, SIZE.length))
  np.testing.assert_array_equal(pixels.valid, valid)
  np.testing.assert_array_equal(pixels.values[valid], expected[valid])
  assert pixels.values.shape[-1] == 6 and not valid.all()
  for alone in ((0,), (1,)):  # Without the other date there are no data.
    assert not map_block.read_block(job, dataclasses.replace(BLOCK, images=alone)).valid.any()


@pytest.mark.parametrize("scaled", ["after", "before", "both"])
def test_a_scale_of_one_date_alone_is_refused(pair, scaled):
  source = pair[0]
  for name in ("after", "before"):
    path = source.parent / f"{name}.json"
    content = json.loads(path.read_text())
    if scaled in (name, "both"):
      content["assets"]["image"]["raster:bands"] = [{"scale": 0.01}] * 3
    path.write_text(json.dumps(content))
  images = search.find_images(str(source), None, 3, DATES)
  job = map_block.AreaJob(
    source.parent, tuple(images), DATES, untrained.GSD, SIZE, 3, ("landslide",), "uint8", "")
  block = dataclasses.replace(BLOCK, images=(0, 1))
  if scaled == "both":
    assert map_block.read_block(job, block).values.max() < 2.6
    return
  with pytest.raises(ImageError, match=rf"{scaled}\.json has a scale .*has none.*--values=raw"):
    map_block.read_block(job, block)


@pytest.mark.longest
def test_a_block_is_mapped_as_the_same_two_scenes_are(image_folder, tmp_path, pair):
  draft = make_small_config(image_folder)
  draft.data.before, draft.localize.gate = "before", 0.0
  workdir = untrained.make_workdir(tmp_path / "run", configs.from_mapping(draft))
  model, area = lgag_jax.load(workdir), Area(block_size=128, probability="float32", min_area=0.0)
  assert network.plan_windows(model.loaded.training_scale, model.config, area)[2] == SIZE
  source, *scenes = pair
  result = area_job.map_area(workdir, str(source), tmp_path / "out", DATES, area, Engine())
  assert not result.failed
  options = Options(probability="float32", max_shift=0.0)
  expected = model.predict(scenes[0], before=scenes[1], options=options)
  core = slice(SIZE.lead, SIZE.lead + SIZE.core)
  with rasterio.open(tmp_path / "out" / "probability" / f"{BLOCK.name}.tif") as raster:
    probability = np.moveaxis(raster.read(), 0, -1)
  np.testing.assert_allclose(probability, expected.probability[core, core], atol=1e-5)
  with rasterio.open(tmp_path / "out" / "mask" / f"{BLOCK.name}.tif") as raster:
    np.testing.assert_array_equal(raster.read(1), expected.mask[core, core])
  known = expected.mask[core, core] != 255
  assert not known.all() and 0 < expected.mask[core, core][known].mean() < 1


@pytest.fixture
def run(stub, monkeypatch):
  """The function that maps an area with a stub of a network of pairs."""
  model = area_job.load_model(stub["workdir"])
  pairs = dataclasses.replace(model, config=configs.Config(data=configs.DataConfig(before="before")))
  monkeypatch.setattr(area_job, "load_model", lambda workdir: pairs)
  return lambda source, output, imagery=DATES: area_job.map_area(
    stub["workdir"], str(source), output, imagery, Area(block_size=64), Engine()
  )


def test_what_is_written_tells_the_dates_apart(run, stub, tmp_path, caplog):
  ground = area_data.ground(150, 300)
  half = ground[:, :140]
  images = [("early", 2, half, {}), ("late", 8, half, {}), ("after", 12, ground, {})]
  source = catalogue(tmp_path / "stac", *images)
  output = tmp_path / "out"
  result = run(source, output)
  asked = sorted(stub["asked"])
  assert not result.failed and 0 < len(asked) < result.blocks  # Others have no image before.
  assert f"of {result.blocks} blocks have no image before the event" in caplog.text
  manifest = json.loads((output / "manifest.json").read_text())
  told = {image["name"]: image["before"] for image in manifest["images"]}
  assert told == {"early": True, "late": True, "after": False}
  (interval,) = json.loads((output / "collection.json").read_text())["extent"]["temporal"]["interval"]
  assert interval == ["2015-05-12T12:00:00Z"] * 2
  item = json.loads(next(output.glob("items/*[0-9a-f].json")).read_text())
  assert item["properties"]["datetime"] == "2015-05-12T12:00:00Z"
  derived = {link["href"].rpartition("/")[2] for link in item["links"] if link["rel"] == "derived_from"}
  assert derived == {"early.json", "late.json", "after.json"}
  page = (output / "report.html").read_text()
  assert "images before the event" in page and "2, 2015-05-02 to 2015-05-08" in page
  stub["asked"].clear()
  run(source, output)
  assert not stub["asked"]  # Nothing is mapped twice.
  area_data.write_cog(tmp_path / "stac" / "early.tif", half // 2, nodata=0)
  run(source, output)
  assert sorted(stub["asked"]) == asked  # A changed image before changes the maps.


def test_dates_that_do_not_suit_the_network_are_refused(run, stub, tmp_path, monkeypatch):
  source = catalogue(tmp_path, ("a", 12, area_data.ground(90, 90), {}))
  with pytest.raises(ValueError, match=r"compares images before and after .*--before_dates=2015-03"):
    run(source, tmp_path / "out", Imagery(dates=DATES.dates))
  with pytest.raises(ValueError, match=r"none of 1 images passes --area, --before_dates"):
    run(source, tmp_path / "out")
  with pytest.raises(ValueError, match="--dates needs a STAC catalogue"):
    run(tmp_path / "a.tif", tmp_path / "out")
  single = configs.Config()
  model = dataclasses.replace(area_job.load_model(""), config=single)
  monkeypatch.setattr(area_job, "load_model", lambda workdir: model)
  with pytest.raises(ValueError, match=r"--before_dates=2015-05-01/.* maps images of one date"):
    run(source, tmp_path / "out")
  for before in ("2015-05-01/2015-05-10", "2016-01-01", "soon"):
    with pytest.raises(ValueError, match="before_dates"):
      Imagery(dates=DATES.dates, before_dates=before)
  with pytest.raises(ValueError, match="before_dates"):
    Imagery(before_dates=DATES.before_dates)


def test_dates_of_two_types_are_refused(tmp_path):
  image = area_data.ground(90, 90)
  source = catalogue(tmp_path, ("a", 12, image, {}), ("b", 3, image.astype(np.uint16) * 256, {}))
  images = search.find_images(str(source), None, 3, DATES)
  job = map_block.AreaJob(
    tmp_path, tuple(images), DATES, untrained.GSD, SIZE, 3, ("landslide",), "uint8", "",
    lambda dtype: float(np.iinfo(dtype).max),
  )
  block = plan.plan_blocks(None, untrained.GSD, SIZE, [image.footprint for image in images])[0]
  with pytest.raises(ImageError, match=r"after .* holds uint8, but the image before it holds uint16"):
    map_block.read_block(job, block)
