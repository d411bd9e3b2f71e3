"""The page in a real browser: headless Chromium labels the tiles of a small scene by keys."""

import contextlib
import csv
import pathlib
import shutil
import signal
import socket

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS

import lgag_jax
from tests.test_labelling import NO, SIDE, UNSURE, YES, labelling_server

pytestmark = pytest.mark.slow
webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
ROWS, COLS = 8, 9
KEYS = {YES: "y", NO: "n", UNSURE: "u"}


def free_port():
  with socket.socket() as found:
    found.bind(("127.0.0.1", 0))
    return found.getsockname()[1]


def write_scene(path):
  """Writes a scene of green tiles, brown where a landslide is; returns the labels by row and column."""
  random = np.random.default_rng(3)
  slides = random.random((ROWS, COLS)) < 0.3
  colours = np.where(slides[..., None], (150, 100, 60), (60, 110, 60))
  noise = random.integers(-20, 20, (ROWS * SIDE, COLS * SIDE, 1))
  pixels = colours.repeat(SIDE, 0).repeat(SIDE, 1) + noise
  with rasterio.open(
    path, "w", driver="GTiff", height=ROWS * SIDE, width=COLS * SIDE, count=3, dtype="uint8",
    crs=CRS.from_epsg(32644), transform=Affine(0.5, 0, 500000, 0, -0.5, 3000000),
  ) as file:
    file.write(np.moveaxis(pixels.astype(np.uint8), -1, 0))
  labels = {(r, c): YES if slides[r, c] else NO for r, c in np.ndindex(ROWS, COLS)}
  labels[2, 2] = labels[5, 1] = UNSURE
  return labels


@contextlib.contextmanager
def browser():
  if not (CHROMIUM and DRIVER):
    pytest.skip("chromium and chromedriver are missing: apt-get install chromium chromium-driver")
  options = webdriver.ChromeOptions()
  options.binary_location = CHROMIUM
  for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,800"):
    options.add_argument(flag)
  options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
  driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
  try:
    yield driver
  finally:
    driver.quit()


def press(driver, *keys):
  for key in keys:
    driver.switch_to.active_element.send_keys(key)


def text(driver, name):
  return driver.find_element(By.ID, name).text


def wait(driver, condition):
  WebDriverWait(driver, 20).until(lambda _: condition())


def current(driver):
  row, col = text(driver, "here").split(";")[0].replace("row ", "").split(", column ")
  return int(row), int(col)


def saved(folder):
  with (folder / "labels" / "labels.csv").open(newline="") as file:
    return {(int(r["row"]), int(r["col"])): r["label"] for r in csv.DictReader(file)}


def label(driver, labels, given, count):
  """Answers the tiles that the page goes to, as a person who knows the labels."""
  for _ in range(count):
    place = current(driver)
    assert place not in given
    press(driver, KEYS[labels[place]])
    given[place] = labels[place]


@pytest.fixture
def place(tmp_path):
  return tmp_path, write_scene(tmp_path / "scene.tif"), [f"--port={free_port()}", "--nolearn"]


def test_sixty_tiles_by_keys_with_a_killed_server_between(place):
  folder, labels, flags = place
  given, process = {}, labelling_server(folder, *flags)
  with browser() as driver:
    driver.get(process.address)
    wait(driver, lambda: text(driver, "saved") == "All answers are saved")
    assert process.address.split("/")[2] in driver.current_url
    label(driver, labels, given, 30)
    wait(driver, lambda: text(driver, "saved") == "All answers are saved")
    assert saved(folder) == given
    process.end(signal.SIGKILL)
    driver.find_element(By.ID, "make-map").click()
    wait(driver, lambda: "does not respond, so no map is made" in text(driver, "problem"))
    label(driver, labels, given, 5)  # The page keeps them.
    wait(driver, lambda: "The server does not respond" in text(driver, "problem"))
    assert "5 not saved yet" in text(driver, "saved")
    driver.refresh()  # A closed browser keeps them, too: nothing is loaded, but they stay stored.
    process = labelling_server(folder, *flags)
    driver.get(process.address)
    wait(driver, lambda: saved(folder) == given)
    label(driver, labels, given, 25)
    wait(driver, lambda: text(driver, "saved") == "All answers are saved")
    assert saved(folder) == given
    assert len(given) == 60
    kinds = [f"{sum(v == k for v in given.values())}" for k in (YES, NO, UNSURE)]
    assert all(n in text(driver, "counts") for n in kinds)
    assert [e for e in driver.get_log("browser") if "ERR_CONNECTION" not in e["message"]] == []
  process.end(signal.SIGINT)


@pytest.mark.longest
def test_selecting_undoing_and_filtering_by_keys_and_mouse(place):
  folder, _, flags = place
  process = labelling_server(folder, *flags)
  with browser() as driver:
    driver.get(process.address)
    wait(driver, lambda: text(driver, "saved") == "All answers are saved")
    tiles = driver.find_elements(By.CLASS_NAME, "tile")
    columns = len({tile.rect["x"] for tile in tiles})
    press(driver, Keys.SHIFT + Keys.ARROW_RIGHT, Keys.SHIFT + Keys.ARROW_DOWN)
    assert "4 tiles selected" in text(driver, "here")
    press(driver, "n")
    wait(driver, lambda: list(saved(folder).values()) == [NO] * 4)
    numbers = [0, 1, columns, columns + 1]
    assert set(saved(folder)) == {divmod(n, COLS) for n in numbers}
    press(driver, "z")
    wait(driver, lambda: list(saved(folder).values()) == [""] * 4)
    first, fourth = (driver.find_element(By.ID, f"tile-{n}") for n in (columns, columns + 2))
    drag = webdriver.ActionChains(driver)
    drag.click_and_hold(first).move_to_element(fourth).release().perform()
    assert "3 tiles selected" in text(driver, "here")
    driver.find_element(By.CSS_SELECTOR, "#answers button").click()
    wait(driver, lambda: sum(v == YES for v in saved(folder).values()) == 3)
    driver.find_element(By.CSS_SELECTOR, f"#filter option[value='{YES}']").click()
    assert len(driver.find_elements(By.CLASS_NAME, "tile")) == 3
    shown = driver.find_elements(By.CSS_SELECTOR, f".tile[data-label='{YES}']")
    assert {e.find_element(By.CLASS_NAME, "sign").text for e in shown} == {"\u2713"}
    driver.find_element(By.ID, "sheet").click()
    press(driver, Keys.ENTER)
    width = "return document.getElementById('closeup-image').naturalWidth"
    wait(driver, lambda: driver.execute_script(width) == 3 * SIDE)
    assert text(driver, "length").endswith(" m")
    press(driver, Keys.ESCAPE)
    assert driver.get_log("browser") == []
  process.end(signal.SIGINT)


@pytest.mark.longest
def test_the_page_suggests_tiles_and_says_what_it_learned(place):
  folder, labels, flags = place
  given, process = {}, labelling_server(folder, flags[0])
  with browser() as driver:
    driver.get(process.address)
    wait(driver, lambda: text(driver, "saved") == "All answers are saved")
    assert driver.find_element(By.ID, "order").get_attribute("value") == "next"
    wait(driver, lambda: len(driver.find_elements(By.CLASS_NAME, "tile")) == 12)
    label(driver, labels, given, 10)
    wait(driver, lambda: "Looked at" not in text(driver, "looked"))
    for _ in range(20):  # The page asks for more as it learns.
      wait(driver, lambda: current(driver) not in given)
      label(driver, labels, given, 1)
    wait(driver, lambda: "Estimated image AUC" in text(driver, "estimate"))
    driver.find_element(By.CSS_SELECTOR, "#order option[value='chance']").click()
    first = driver.find_element(By.ID, "sheet").get_attribute("aria-activedescendant")
    assert first
    wait(driver, lambda: driver.find_elements(By.CSS_SELECTOR, ".chance:not([hidden])"))
    shown = driver.execute_script("return [...document.querySelectorAll('.tile')].sort((a, b) => "
      "a.getBoundingClientRect().y - b.getBoundingClientRect().y || a.getBoundingClientRect().x - "
      "b.getBoundingClientRect().x).map(e => parseInt(e.querySelector('.chance').textContent))")
    assert shown[:10] == sorted(shown[:10], reverse=True)
    driver.find_element(By.ID, "chances").click()
    assert driver.get_log("browser") == []
  assert saved(folder) == given
  process.end(signal.SIGINT)


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (640, 400), (1920, 1080)])
def test_the_page_fits_screens_and_twice_the_size(place, width, height):
  folder, _, flags = place
  process = labelling_server(folder, *flags)
  with browser() as driver:
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
      "width": width, "height": height, "deviceScaleFactor": 1, "mobile": False})
    driver.get(process.address)
    wait(driver, lambda: text(driver, "saved") == "All answers are saved")
    overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert driver.execute_script(overflow) <= 0
    buttons = driver.find_elements(By.CSS_SELECTOR, "#toolbar button, #toolbar select")
    assert all(b.rect["x"] >= 0 and b.rect["x"] + b.rect["width"] <= width for b in buttons)
    loaded = driver.execute_script(
      "return performance.getEntriesByType('resource').map(e => new URL(e.name).host)")
    assert set(loaded) == {process.address.split("/")[2]}
    assert any("/map/0/" in url for url in driver.execute_script(
      "return performance.getEntriesByType('resource').map(e => e.name)"))
  process.end(signal.SIGINT)


@pytest.mark.longest
def test_answers_become_a_map_over_the_tiles(place):
  folder, labels, flags = place
  given, process = {}, labelling_server(folder, *flags)
  with browser() as driver:
    driver.get(process.address)
    wait(driver, lambda: text(driver, "saved") == "All answers are saved")
    assert "more answers: 4 landslide, 4 non-landslide" in text(driver, "making-text")
    label(driver, labels, given, 60)
    wait(driver, lambda: driver.find_element(By.ID, "make-map").is_enabled())
    driver.find_element(By.ID, "make-map").click()
    wait(driver, lambda: "Step 1 of 3" in text(driver, "making-text"))
    WebDriverWait(driver, 1800).until(lambda _: "Done" in text(driver, "making-text"))
    wait(driver, lambda: driver.find_elements(By.CSS_SELECTOR, ".tile .layer:not([hidden])"))
    assert driver.find_elements(By.CSS_SELECTOR, "#map .probabilities img")
    assert driver.get_log("browser") == []
  for name in ("tiles/manifest.csv", "run/report.html", "maps/report.html", "maps/predictions.csv"):
    assert (folder / "labels" / name).exists()
  (path,) = (folder / "labels" / "maps" / "probability").glob("*.tif")
  with rasterio.open(path) as file:
    tiles = file.read(1).reshape(ROWS, SIDE, COLS, SIDE).mean((1, 3))
  mean = {kind: np.mean([tiles[p] for p, k in labels.items() if k == kind]) for kind in (YES, NO)}
  assert mean[YES] > mean[NO] + 20
  process.end(signal.SIGINT)


def test_the_page_comes_with_its_licence():
  folder = pathlib.Path(lgag_jax.__file__).parent / "labelling" / "page" / "leaflet"
  assert "BSD 2-Clause" in (folder / "LICENSE.txt").read_text()
  assert "Leaflet 1.9.4" in (folder / "leaflet.js").read_text()[:200]
