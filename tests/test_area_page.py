# ruff: noqa: F811
"""The page of an area: when it is made, what it says of missing blocks, zones and a limited area.

What it shows of a whole area is tested with the untrained network of test_area_blocks.
"""

import json
import re

import numpy as np
import PIL.Image
import pyarrow.parquet
import pyproj
import pytest
import shapely
from PIL import Image

from lgag_jax.blocks import area_job, quick_look
from lgag_jax.blocks.inventory import Inventory
from lgag_jax.imagery import listing
from lgag_jax.mapping import scene_tables
from lgag_jax.mapping.polygons import Landslide
from lgag_jax.options.area import Area, Engine, Imagery
from tests import area_data
from tests.full_disk import fill_at
from tests.stub_network import BRIGHT
from tests.test_area_blocks import stub  # noqa: F401

RED, GREY, WHITE = (230, 60, 40), (150, 160, 170), (255, 255, 255)
SIDE = 150  # Of the image, in pixels of 2 m; with blocks of 64 or 128 it has several.


@pytest.fixture
def image(tmp_path):
  """An image of a landslide, from column 20 to 60, with a hole of nodata in the right half."""
  values = np.full((SIDE, SIDE, 3), BRIGHT - 50, np.uint8)
  values[30:90, 20:60] = BRIGHT + 50
  values[60:100, 100:140] = 0
  return area_data.write_cog(tmp_path / "image.tif", values, nodata=0)


@pytest.fixture
def run(stub, image, tmp_path):
  """Returns the function that maps the image, and returns the exit code."""

  def run(*, attempts=1, imagery=Imagery(), source=image, **options):
    return area_job.run(
      stub["workdir"], str(source), tmp_path / "out", imagery,
      Area(**{"block_size": 64} | options), Engine(attempts=attempts),
    )

  return run


def cards(output):
  page = (output / "report.html").read_text()
  return {name: value for value, name in re.findall(r"<b>(.*?)</b><span>(.*?)</span>", page)}


def colours(output):
  """Returns the share of each colour in the picture."""
  picture = Image.open(output / "quick_look.png")
  return {colour: n / (picture.width * picture.height) for n, colour in picture.getcolors()}


def test_a_block_that_failed_is_grey_and_named_until_it_is_mapped(run, stub, tmp_path, capsys):
  output = tmp_path / "out"
  assert run() == 0
  assert "report.html" in capsys.readouterr().out
  assert "Not mapped" not in (output / "report.html").read_text()
  whole = colours(output)
  assert whole[RED] == pytest.approx(60 * 40 / SIDE**2, rel=0.1) and GREY not in whole
  assert whole[WHITE] > 0.9 * 40 * 40 / SIDE**2
  table = pyarrow.parquet.read_table(output / "polygons" / "landslides.parquet").to_pydict()
  assert cards(output)["total area: landslide"] == scene_tables.area(table["area_m2"][0])
  record = max((output / "items").glob("*[0-9a-f].json"))
  bad, blocks = record.name.partition(".")[0], len(list((output / "items").iterdir()))
  record.unlink()
  stub["bad"] = (bad,)
  assert run() == 2
  page = (output / "report.html").read_text()
  assert f"{bad}</td><td class=\"text\">{bad} cannot be mapped<" in page
  assert cards(output)["blocks not mapped"] == "1"
  assert cards(output)["blocks with data"] == f"{blocks - 1} of {blocks}"
  assert colours(output)[GREY] > 0.01
  stub["bad"] = ()
  assert run() == 0 and colours(output) == whole


def test_the_page_is_made_again_if_it_is_missing_but_not_for_a_part(run, stub, tmp_path):
  output = tmp_path / "out"
  assert run(part="1/2") == 0 and run(part="2/2") == 0
  assert not (output / "report.html").exists() and not (output / "quick_look.png").exists()
  assert run() == 0
  before = cards(output)
  assert len(stub["asked"]) == len(set(stub["asked"]))
  for name in ("report.html", "quick_look.png"):
    (output / name).unlink()
  stub["asked"].clear()
  assert run() == 0 and stub["asked"] == [] and cards(output) == before
  with pytest.raises(FileNotFoundError, match=r"only files that lgag wrote.*quick_look\.png"):
    listing.scenes_and_products(output)


@pytest.mark.parametrize("name", ["report.html", "quick_look.png"])
def test_a_page_or_picture_of_the_users_own_is_not_replaced(run, stub, tmp_path, name):
  output = tmp_path / "out"
  run(part="1/2")
  (output / name).write_text("Mine.")
  stub["asked"].clear()
  with pytest.raises(ValueError, match=rf"{name} would be replaced, but lgag has not written it"):
    run()
  assert (output / name).read_text() == "Mine." and stub["asked"] == []


def test_the_quick_look_shows_no_mask_that_a_link_leads_to(run, tmp_path):
  run()
  mask = next((tmp_path / "out" / "mask").iterdir())
  mask.rename(tmp_path / "private.tif")
  mask.symlink_to(tmp_path / "private.tif")
  with pytest.raises(ValueError, match=rf"{mask.name} is a symbolic link"):
    run()


def test_a_full_disk_at_the_page_does_not_lose_the_map(run, stub, tmp_path, monkeypatch):
  output = tmp_path / "out"
  with monkeypatch.context() as patch:
    fill_at(patch, PIL.Image.Image, "save", 1)
    with pytest.raises(OSError, match=r"No space left on device, not written.*quick_look\.png"):
      run()
  manifest = json.loads((output / "manifest.json").read_text())
  assert manifest["whole"] and all((output / name).exists() for name in manifest["files"][:3])
  assert not list(output.glob(".*")) and not (output / "quick_look.png").exists()
  stub["asked"].clear()
  assert run() == 0 and stub["asked"] == [] and cards(output)["polygons: landslide"] == "1"


@pytest.mark.parametrize(("longitude", "zone"), [(84.0, 32645), (180.0, 32660)])
def test_ground_at_the_border_of_two_zones_counts_and_shows_once(run, tmp_path, longitude, zone):
  place = pyproj.Transformer.from_crs(4326, zone, always_xy=True)
  west, north = (round(value / 2) * 2 for value in place.transform(longitude, 27.5))
  source = area_data.write_cog(
    tmp_path / "border.tif", np.full((60, 100, 3), BRIGHT + 9, np.uint8), epsg=zone, west=west - 100,
    north=north,
  )
  assert run(source=source) == 0
  output = tmp_path / "out"
  assert len(json.loads((output / "manifest.json").read_text())["zones"]) == 2
  ground = float(cards(output)["ground with data"].removesuffix(" ha"))
  assert ground == pytest.approx(60 * 100 * 4 / 1e4, rel=0.02)
  shares = colours(output)
  picture = Image.open(output / "quick_look.png")
  assert picture.width / picture.height == pytest.approx(100 / 60, rel=0.1)
  assert shares[RED] > 0.9 and shares[RED] + shares.get(WHITE, 0) == pytest.approx(1)


def test_of_a_limited_area_only_its_ground_counts_and_shows(run, tmp_path):
  place = pyproj.Transformer.from_crs(area_data.EPSG, 4326, always_xy=True)
  at = lambda col, row: place.transform(area_data.WEST + 2 * col, area_data.NORTH - 2 * row)
  outline = shapely.Polygon([at(0, 0), at(0, SIDE), at(80, SIDE)])
  (tmp_path / "area.geojson").write_text(shapely.to_geojson(outline))
  assert run(imagery=Imagery(area=str(tmp_path / "area.geojson")), block_size=128) == 0
  output = tmp_path / "out"
  rows, cols = np.indices((SIDE, SIDE)) + 0.5
  inside = cols < rows * 80 / SIDE
  ground = float(cards(output)["ground with data"].removesuffix(" ha"))
  assert ground == pytest.approx(inside.sum() * 4 / 1e4, rel=0.02)
  shares = colours(output)
  assert shares[RED] == pytest.approx(inside[30:90, 20:60].sum() / (80 * SIDE), rel=0.1)
  assert shares[WHITE] == pytest.approx(0.5, abs=0.03)
  page = (output / "report.html").read_text()
  assert "Landslides in area.geojson" in page and "--area=area.geojson --max_cloud=100 " in page
  assert str(tmp_path) not in page


def test_an_area_without_data_has_a_page(run, tmp_path):
  source = area_data.write_cog(tmp_path / "empty.tif", np.zeros((60, 60, 3), np.uint8), nodata=0)
  assert run(source=source) == 0
  found = cards(tmp_path / "out")
  assert found["polygons: landslide"] == "0" and found["ground with data"] == "0 m²"
  assert found["blocks with data"].startswith("0 of ") and set(colours(tmp_path / "out")) == {WHITE}


def test_the_largest_landslides_are_those_of_all_batches():
  sizes = np.random.default_rng(0).permutation(np.repeat(np.arange(1.0, 51.0), 2)).tolist()
  landslides = [
    Landslide(i, "ab"[i % 2], shapely.Point(0, 0).buffer(1), size, 1, 1, 1, 1, "")
    for i, size in enumerate(sizes, 1)
  ]
  inventory = Inventory({"a": [], "b": []})
  for start in range(0, 100, 7):
    inventory.add(landslides[start : start + 7])
  expected = sorted(landslides, key=lambda one: (-one.area_m2, one.id))[:20]
  assert [one.id for one in inventory.largest] == [one.id for one in expected]
  assert inventory.count == 100 and inventory.areas["a"] == sizes[1::2]


def test_a_small_landslide_shows_in_a_reduced_picture(monkeypatch, run, tmp_path):
  monkeypatch.setattr(quick_look, "SIDE", 12)
  values = np.full((SIDE, SIDE, 3), BRIGHT - 50, np.uint8)
  values[71:73, 40:42] = BRIGHT + 50
  source = area_data.write_cog(tmp_path / "small.tif", values)
  assert run(source=source, min_area=0.0) == 0
  assert 0 < colours(tmp_path / "out")[RED] <= 4 / 100
