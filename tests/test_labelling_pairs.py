"""Tiles of two dates: both are shown to be labelled, and the map is made from both."""

import csv
import io
import signal

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rasterio.crs import CRS
from starlette.testclient import TestClient

from lgag_jax.labelling import label, server
from lgag_jax.labelling.session import Session
from lgag_jax.options import tiling
from lgag_jax.options.labelling import Settings
from tests.page_server import PageServer

SIDE, ROWS, COLS = 64, 3, 9
SECRET = "s" * 32


def write(path, pixels, transform=Affine(0.5, 0, 5e5, 0, -0.5, 3e6)):
  with rasterio.open(
    path, "w", driver="GTiff", height=pixels.shape[0], width=pixels.shape[1], count=pixels.shape[2],
    dtype=pixels.dtype, crs=CRS.from_epsg(32644), transform=transform,
  ) as file:
    file.write(np.moveaxis(pixels, -1, 0))


@pytest.fixture(params=[3, 1, 2])
def dates(request, tmp_path, rng):
  """Writes scenes of both dates; the one before begins 32 pixels further up and left. Returns both."""
  shape = ROWS * SIDE + 64, COLS * SIDE + 64, request.param
  before = rng.integers(40, 90, shape, np.uint8)
  after = (before[32:-32, 32:-32] // 2 + 120).astype(np.uint8)
  write(tmp_path / "after.tif", after)
  write(tmp_path / "before.tif", before, Affine(0.5, 0, 5e5 - 16, 0, -0.5, 3e6 + 16))
  return after, before[32:-32, 32:-32]


def settings(folder, **fields):
  return Settings(**{
    "input": str(folder / "after.tif"), "before": str(folder / "before.tif"), "max_shift": 0.0,
    "output": str(folder / "labels"), "tile_size": SIDE, "learn": False, **fields,
  })


def shown(pixels, row, col):
  """Returns a tile as a person sees it."""
  part = pixels[row * SIDE :, col * SIDE :][:SIDE, :SIDE]
  return part if part.shape[-1] == 3 else part[..., :1].repeat(3, -1)


def test_each_date_is_drawn_from_its_own_pixels(tmp_path, dates):
  session = Session(settings(tmp_path))
  view, (after, before) = session.view, dates
  for number, (_, place) in enumerate(view.index.tiles):
    for pictures, pixels in ((view.pictures, after), (view.before, before)):
      found = pictures.array(number, SIDE)
      np.testing.assert_array_equal(found, shown(pixels, place.row, place.col))
  app = server.make_app(session, SECRET, "127.0.0.1")
  client = TestClient(app, base_url=f"http://localhost:8765/{SECRET}/")
  assert client.get("state").json()["paired"]
  for path in ("tile/10?", "surroundings/10?", "map/0/0/0/0?", "map/0/1/0/0?"):
    means = [
      np.asarray(Image.open(io.BytesIO(client.get(path + date).content)))[:100, :100].mean()
      for date in ("", "&before")
    ]
    assert means[0] > means[1] + 40, path


def test_one_date_has_no_other(tmp_path, dates):
  session = Session(settings(tmp_path, before=""))
  app = server.make_app(session, SECRET, "127.0.0.1")
  client = TestClient(app, base_url=f"http://localhost:8765/{SECRET}/")
  assert not client.get("state").json()["paired"] and session.view.before is None
  assert client.get("tile/5?side=256&before").content == client.get("tile/5?side=256").content


def test_sheets_show_the_dates_beside_each_other_and_the_command_cuts_both(tmp_path, dates, capsys):
  asked = tiling.Settings(
    input=str(tmp_path / "after.tif"), before=str(tmp_path / "before.tif"), max_shift=0.0,
    output=str(tmp_path / "labels"), tile_size=SIDE)
  label.label(Settings.for_sheets(asked))
  sheet = np.asarray(Image.open(tmp_path / "labels/sheets/after_001.png"))
  for row, col in ((0, 0), (1, 0), (3, 2)):  # 4 tiles beside each other.
    for date, pixels in enumerate(reversed(dates)):
      part = sheet[34 + row * 222 :, 8 + col * 400 + date * 193 :][:192, :192]
      picture = shown(pixels, *divmod(4 * row + col, COLS))
      drawn = Image.fromarray(picture).resize((192, 192), Image.Resampling.BILINEAR)
      np.testing.assert_array_equal(part, np.asarray(drawn))
  text = capsys.readouterr().out
  assert f"--before={tmp_path}/before.tif --max_shift=0" in text
  with (tmp_path / "labels/labels.csv").open(newline="") as file:
    assert len(list(csv.DictReader(file))) == ROWS * COLS


def test_the_map_is_made_from_both_dates(tmp_path, dates):
  session = Session(settings(tmp_path))
  cut, train, maps = (step.flags for step in session.map_job._steps())
  for flags in (cut, maps):
    assert {f"--before={tmp_path}/before.tif", "--max_shift=0"} <= set(flags)
  assert "--config.data.before=before" in train


@pytest.mark.longest
@pytest.mark.parametrize("dates", [3], indirect=True)
def test_the_key_b_changes_the_date_of_sheet_close_up_and_map(tmp_path, dates):
  pytest.importorskip("selenium.webdriver")
  from selenium.webdriver.common.keys import Keys

  from tests import test_labelling_page as page

  flags = [f"--{n}={tmp_path}/{f}" for n, f in (("input", "after.tif"), ("before", "before.tif"))]
  process = PageServer(
    "--mode=label", *flags, f"--output={tmp_path}/labels", f"--tile_size={SIDE}", "--max_shift=0",
    "--nolearn", f"--port={page.free_port()}")
  with page.browser() as driver:
    driver.get(process.address)
    page.wait(driver, lambda: page.text(driver, "saved") == "All answers are saved")
    assert "new landslide" in page.text(driver, "question")
    sources = (
      "return [...document.querySelectorAll('.tile img:first-child, .leaflet-tile')]"
      ".map(e => e.naturalWidth > 0 && e.src)")
    for width, before in ((1280, True), (1400, False), (1600, True)):  # Also between levels of the map.
      driver.set_window_size(width, 800)
      page.press(driver, "b")
      page.wait(driver, lambda before=before: {
        src and src.endswith("&before") for src in driver.execute_script(sources)} == {before})
    page.press(driver, Keys.ENTER)
    picture = "return document.getElementById('closeup-image').src.endsWith('&before')"
    assert driver.execute_script(picture) and "before the event" in page.text(driver, "closeup-title")
    page.press(driver, "b")
    assert not driver.execute_script(picture)
    assert "after the event" in page.text(driver, "closeup-title")
    assert not [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
  process.end(signal.SIGINT)
