"""A changed place, or a changed part of a mosaic, is a changed scene, whose map is made again."""

import dataclasses
import types

import numpy as np
import pytest
import rasterio

from lgag_jax.config import Config
from lgag_jax.geo import scale, scene_files
from lgag_jax.geo.companions import SceneFiles
from lgag_jax.imagery import listing
from lgag_jax.mapping import map_names, scene_plans
from lgag_jax.options.mapping import Options
from tests.test_reading import pixels, write_png, write_tiff
from tests.test_scene import NORTH_UP, vrt_of
from tests.test_side_files import notes

WORLD = "2\n0\n0\n-2\n500001\n3099999\n"
UTM_33, UTM_32 = (rasterio.CRS.from_epsg(code).to_wkt() for code in (32633, 32732))


def placed_png(folder, name="x"):
  path = write_png(folder / f"{name}.png", pixels(64, 64))
  (folder / f"{name}.pgw").write_text(WORLD)
  (folder / f"{name}.prj").write_text(UTM_33)
  return path


def mosaic(folder):
  write_tiff(folder / "p.tif", pixels(64, 64))
  return vrt_of(folder / "m.vrt", [("p.tif", 0, 0, 64, 64)], 64, 64)


@pytest.mark.parametrize(("make", "file", "content"), [
  (placed_png, "x.pgw", WORLD.replace("500001", "600001")), (placed_png, "x.prj", UTM_32),
  (mosaic, "p.tif", b"other"), (mosaic, "p.tif", b""),
])
def test_files_that_a_scene_is_made_of_are_in_its_key(tmp_path, make, file, content):
  path = make(tmp_path)
  before = scene_files.key(path)
  assert before != listing.file_key(path)  # That of a scene without other files.
  assert scene_files.key(path) == before
  part = tmp_path / file
  part.write_bytes(content) if isinstance(content, bytes) else part.write_text(content)
  assert scene_files.key(path) != before
  part.unlink()
  assert scene_files.key(path) != before


def test_the_key_of_a_scene_of_one_file_is_that_of_the_file(tmp_path):
  for path in (write_png(tmp_path / "x.png", pixels(64, 64)), tmp_path / "missing.tif"):
    assert scene_files.key(path) == listing.file_key(path)


@pytest.fixture
def plan_key(tmp_path):
  """Returns a function from options, a scene and an image before to the key of the map's plan."""
  (tmp_path / "config.json").write_text("{}")

  def key(options, path, before=None):
    data = dataclasses.replace(Config().data, before="stacked" if before else "")
    loaded = types.SimpleNamespace(
      workdir=tmp_path, config=Config(data=data), network=types.SimpleNamespace(evidence=None),
      state=types.SimpleNamespace(step=1), thresholds=[0.5], choice="",
      scale_for=lambda _: scale.Scale(64, 2.0),
    )
    names = map_names.MapNames(tmp_path / "out")

    def fail(path, error):
      raise error

    (plan,) = scene_plans.plan_scenes([SceneFiles(path, before)], loaded, options, names, fail)
    return plan.key, plan.grid.transform.c, str(plan.grid.crs)

  return key


@pytest.mark.parametrize(("crs", "side", "given", "words"), [
  ("EPSG:32633", 10.0, 2.0, "a.tif states its ground resolution, 10 m per pixel, so --gsd=2 is"),
  ("EPSG:4326", 1e-4, 2.0, "so --gsd=2 is not used"), ("EPSG:32633", 10.0, 10.02, ""),
  ("EPSG:32633", 10.0, 0.0, ""), (None, 10.0, 2.0, ""),
])
def test_a_resolution_that_a_file_states_counts_and_the_flag_is_said_to_be_unused(
  tmp_path, plan_key, caplog, crs, side, given, words
):
  place = rasterio.Affine(side, 0, 10.0 if crs == "EPSG:4326" else 5e5, 0, -side, 45.0)
  path = write_tiff(tmp_path / "a.tif", pixels(64, 64), crs=crs, transform=place)
  plan_key(Options(gsd=given), path)
  assert ("is not used" in caplog.text) == bool(words) and words in caplog.text


@pytest.mark.parametrize("role", ["scene", "before", "dem"])
def test_a_corrected_place_is_another_map(tmp_path, plan_key, role):
  path = write_tiff(tmp_path / "a.tif", pixels(64, 64), crs="EPSG:32633", transform=NORTH_UP)
  other = placed_png(tmp_path)
  if role == "dem":
    (tmp_path / "x.png").unlink()
    other = write_tiff(tmp_path / "x.tif", np.float32(pixels(64, 64, 1)))
    (tmp_path / "x.pgw").rename(tmp_path / "x.tfw")
  calls = {"scene": (Options(), other), "before": (Options(), path, other),
           "dem": (Options(dem=str(other)), path)}
  first = plan_key(*calls[role])
  assert plan_key(*calls[role]) == first
  world = tmp_path / ("x.tfw" if role == "dem" else "x.pgw")
  world.write_text(WORLD.replace("500001", "500003"))
  second = plan_key(*calls[role])
  (tmp_path / "x.prj").write_text(UTM_33.replace("UTM zone 33N", "UTM 33"))
  third = plan_key(*calls[role])
  assert len({first[0], second[0], third[0]}) == 3
  if role == "scene":
    assert (first[1], second[1]) == (500000, 500002)


def test_a_corrected_part_of_a_mosaic_is_another_map(tmp_path, plan_key):
  path = mosaic(tmp_path)
  first = plan_key(Options(), path)[0]
  write_tiff(tmp_path / "p.tif", 255 - pixels(64, 64))
  second = plan_key(Options(), path)[0]
  notes(tmp_path / "p.tif", crs=None, transform=None, more=(
    '<PAMRasterBand band="1"><NoDataValue>3</NoDataValue></PAMRasterBand>'))
  assert len({first, second, plan_key(Options(), path)[0]}) == 3
