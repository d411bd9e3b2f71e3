"""From a scene to labels to a corrected map, in a real browser, as a new user would."""

import csv
import pathlib
import shlex
import signal
import subprocess
import sys

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.crs import CRS

from tests.page_server import PageServer
from tests.test_labelling import NO, SIDE, UNSURE, YES, labelling_server

pytestmark = pytest.mark.longest
pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

from tests.test_labelling_page import browser, free_port, label, press, saved, text, wait  # noqa: E402

ROOT = pathlib.Path(__file__).parent.parent
ROWS, COLS, GSD = 8, 9, 0.5
MINUTES = 60  # That a training may take on a busy machine.
SLIDES = {(row, col) for row in (0, 2, 4, 6) for col in (0, 2, 4, 6)}
QUARRIES = {(row, 8) for row in (0, 2, 4, 6)}  # Of a landslide's colour, but striped. Nobody is sure.


def write_scene(path):
  """Writes green tiles, brown where a landslide is, striped in quarries; returns the labels."""
  random = np.random.default_rng(3)
  pixels = np.full((ROWS * SIDE, COLS * SIDE, 3), (60, 110, 60), int)
  for row, col in SLIDES | QUARRIES:
    part = pixels[row * SIDE : (row + 1) * SIDE, col * SIDE : (col + 1) * SIDE]
    part[2:-2, 2:-2] = 150, 100, 60
    if (row, col) in QUARRIES:
      part[2:-2:4, 2:-2] = part[3:-2:4, 2:-2] = 190, 150, 120
  pixels += random.integers(-12, 12, (ROWS * SIDE, COLS * SIDE, 1))
  with rasterio.open(
    path, "w", driver="GTiff", height=ROWS * SIDE, width=COLS * SIDE, count=3, dtype="uint8",
    crs=CRS.from_epsg(32644), transform=Affine(GSD, 0, 500000, 0, -GSD, 3000000),
  ) as file:
    file.write(np.moveaxis(pixels.astype(np.uint8), -1, 0))
  kinds = {place: YES if place in SLIDES else NO for place in np.ndindex(ROWS, COLS)}
  return kinds | dict.fromkeys(QUARRIES, UNSURE)


def polygons(maps):
  """Returns the polygons of a map in pixels of the scene, by their number."""
  meta, _, wkb, columns = pyogrio.raw.read(maps / "polygons" / "scene_tif.gpkg")
  numbers = dict(zip(meta["fields"], columns, strict=True))["id"].tolist()
  to_pixels = lambda points: (points - [500000, 3000000]) / [GSD, -GSD]
  return dict(zip(numbers, shapely.transform(shapely.from_wkb(wkb), to_pixels), strict=True))


def tile_box(row, col):
  return shapely.box(col * SIDE, row * SIDE, (col + 1) * SIDE, (row + 1) * SIDE)


def within(shapes, place):
  """Returns the numbers of the polygons most of which lies in a tile."""
  box = tile_box(*place)
  return [n for n, shape in shapes.items() if shape.intersection(box).area > shape.area / 2]


def run(*flags):
  command = [sys.executable, "-m", "lgag_jax.main", *flags]
  result = subprocess.run(
    command, cwd=ROOT, capture_output=True, text=True, timeout=60 * MINUTES)
  assert result.returncode == 0, result.stderr[-2000:]
  return result.stdout


def label_and_map(folder, labels):
  """Labels 60 tiles by keys, the server killed after 30, and makes a map with the button."""
  flags, given = [f"--port={free_port()}", "--nolearn"], {}
  process = labelling_server(folder, *flags)
  with browser() as driver:
    driver.get(process.address)
    wait(driver, lambda: text(driver, "saved") == "All answers are saved")
    label(driver, labels, given, 30)
    wait(driver, lambda: text(driver, "saved") == "All answers are saved")
    process.end(signal.SIGKILL)
    label(driver, labels, given, 3)
    wait(driver, lambda: "3 not saved yet" in text(driver, "saved"))
    process = labelling_server(folder, *flags)
    wait(driver, lambda: text(driver, "saved") == "All answers are saved")
    label(driver, labels, given, 27)
    wait(driver, lambda: saved(folder) == given)
    assert len(given) == 60
    wait(driver, lambda: driver.find_element(By.ID, "make-map").is_enabled())
    driver.find_element(By.ID, "make-map").click()
    WebDriverWait(driver, 60 * MINUTES).until(lambda _: "Done" in text(driver, "making-text"))
    wait(driver, lambda: driver.find_elements(By.CSS_SELECTOR, ".tile .layer:not([hidden])"))
    assert driver.find_elements(By.CSS_SELECTOR, "#map .probabilities img")
  process.end(signal.SIGINT)


def reject(maps, numbers):
  """Rejects polygons on the page of reviews, by keys alone."""
  process = PageServer("--mode=review", f"--input={maps}")
  with browser() as driver:
    driver.get(process.address)
    wait(driver, lambda: text(driver, "saved") == "All decisions are saved")
    for number in numbers:
      press(driver, Keys.HOME)
      for _ in range(200):
        if text(driver, "title").startswith(f"Polygon {number} "):
          break
        press(driver, Keys.ARROW_DOWN)
      press(driver, "r")
    wait(driver, lambda: text(driver, "saved") == "All decisions are saved")
    assert f"{len(numbers)} of" in text(driver, "counts")
  process.end(signal.SIGINT)


def test_a_rejected_polygon_is_not_mapped_again(tmp_path):
  labels = write_scene(tmp_path / "scene.tif")
  label_and_map(tmp_path, labels)
  maps, scene = tmp_path / "labels" / "maps", f"--input={tmp_path / 'scene.tif'}"
  before = polygons(maps)
  mistaken = [n for place in sorted(QUARRIES) for n in within(before, place)]
  assert mistaken, "The first map must show a quarry, which the test rejects."
  reject(maps, mistaken)
  printed = run(
    "--mode=tile", scene, f"--labels={tmp_path}/labels/labels.csv", f"--tile_size={SIDE}",
    f"--review={maps}/review", f"--output={tmp_path}/again")
  with (tmp_path / "again/manifest.csv").open(newline="") as file:
    rows = {(int(r["row"]), int(r["col"])): r["label"] for r in csv.DictReader(file)}
  rejected = {place for place in QUARRIES if within({n: before[n] for n in mistaken}, place)}
  assert {place for place in QUARRIES if rows.get(place) == NO} == rejected
  command = next(line for line in printed.splitlines() if "--config=" in line)
  flags = [word for word in shlex.split(command)[3:] if not word.startswith("--workdir")]
  run(*flags, f"--workdir={tmp_path}/run2")
  run(
    "--mode=predict", f"--workdir={tmp_path}/run2", scene, f"--review={maps}/review",
    f"--output={tmp_path}/maps2")
  after = polygons(tmp_path / "maps2")
  assert not [n for n in mistaken if any(s.intersection(before[n]).area for s in after.values())]
  found = sum(bool(within(after, place)) for place in SLIDES)
  assert found >= len(SLIDES) / 2  # The landslides are still there.
