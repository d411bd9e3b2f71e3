"""The page of reviews in a real browser: headless Chromium decides by keys and draws with the mouse."""

import json
import signal

import pytest
import shapely

from tests.test_reviewing import BOXES, layer, reviewing_server, write_maps

pytestmark = pytest.mark.slow
pytest.importorskip("selenium.webdriver")
from selenium.webdriver import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

from tests.test_labelling_page import browser, free_port, press, text, wait  # noqa: E402

SAVED = "All decisions are saved"


@pytest.fixture
def maps(tmp_path):
  return write_maps(tmp_path)


def decisions(maps):
  """Returns the decisions by the number of their box, or by the name of the drawing."""
  found = {}
  lines = [json.loads(t) for t in (maps / "review/scene_tif.jsonl").read_text().splitlines()]
  originals = {
    t["feature"]: shapely.from_wkt(t["original"]["geometry"]) for t in lines if "original" in t
  }
  for line in lines:
    name = line["decision"] or "undone"
    if line["feature"] in originals:
      left, _, _, top = originals[line["feature"]].bounds
      place = ((left - 500000) / 2, (3000000 - top) / 2)
      name = next(n for n, b in BOXES.items() if b[:2] == place)
    found[name] = line
  return found


def kinds(maps):
  return {name: line["decision"] for name, line in decisions(maps).items()}


def draw(driver, shown, outline):
  """Clicks the corners of an outline in pixels of the scene, with a box in the map's centre."""
  left, top, right, bottom, _ = BOXES[shown]
  element = driver.find_element(By.ID, "map")
  for x, y in outline:
    place = round(2 * x - left - right), round(2 * y - top - bottom)
    ActionChains(driver, duration=20).move_to_element_with_offset(element, *place).click().perform()
  press(driver, Keys.ENTER)


def test_deciding_by_keys_with_a_killed_server_between(maps):
  port = f"--port={free_port()}"
  process = reviewing_server(maps, port)
  with browser() as driver:
    driver.get(process.address)
    wait(driver, lambda: text(driver, "saved") == SAVED)
    rows = driver.find_elements(By.CLASS_NAME, "row")
    assert [row.text.split("\n")[0].split()[-1] for row in rows] == ["4", "2", "3", "1"]  # By doubt.
    press(driver, "a")
    wait(driver, lambda: kinds(maps) == {4: "accepted"})
    assert text(driver, "title").startswith("Polygon 2")
    process.end(signal.SIGKILL)
    press(driver, "r")
    wait(driver, lambda: "The server does not respond" in text(driver, "problem"))
    process = reviewing_server(maps, port)
    wait(driver, lambda: kinds(maps) == {4: "accepted", 2: "rejected"})
    wait(driver, lambda: text(driver, "saved") == SAVED)
    press(driver, "a", "z")
    wait(driver, lambda: kinds(maps) == {4: "accepted", 2: "rejected", 3: ""})
    press(driver, "t")
    press(driver, *"road", Keys.ENTER)
    wait(driver, lambda: decisions(maps)[3]["comment"] == "road")
    assert "2 of 4 decided" in text(driver, "counts")
    driver.refresh()
    wait(driver, lambda: text(driver, "saved") == SAVED)
    rows = driver.find_elements(By.CLASS_NAME, "row")
    assert [row.get_attribute("data-decision") for row in rows] == ["accepted", "rejected", "", ""]
    loaded = driver.execute_script(
      "return performance.getEntriesByType('resource').map(e => new URL(e.name).host)")
    assert set(loaded) == {process.address.split("/")[2]}
    assert [e for e in driver.get_log("browser") if "ERR_CONNECTION" not in e["message"]] == []
  process.end(signal.SIGINT)
  rows = layer(maps / "review/scene_tif_reviewed.gpkg", "landslides")
  assert [row["number"] for row in rows] == [4]


def area(line):
  """Returns the area of what was drawn in pixels of the scene."""
  return shapely.from_wkt(line["geometry"]).area / 4


@pytest.mark.longest
def test_drawing_cutting_and_editing_with_the_mouse(maps):
  process = reviewing_server(maps)
  with browser() as driver:
    driver.get(process.address)
    wait(driver, lambda: text(driver, "saved") == SAVED)
    assert text(driver, "title").startswith("Polygon 4")
    wait(driver, lambda: driver.find_elements(By.CSS_SELECTOR, "#map img.leaflet-tile-loaded"))
    press(driver, "m")
    assert "missed landslide" in text(driver, "drawing-text")
    draw(driver, 4, [(80, 80), (90, 80), (90, 90), (80, 90)])
    wait(driver, lambda: kinds(maps) == {"missed": "missed"})
    assert area(decisions(maps)["missed"]) == pytest.approx(100, abs=10)
    assert text(driver, "title").startswith("Drawing 1")
    driver.find_element(By.CSS_SELECTOR, ".row").click()
    assert text(driver, "title").startswith("Polygon 4")
    press(driver, "f", "c")
    draw(driver, 4, [(104, 60), (120, 60), (120, 90), (104, 90)])  # The right half.
    wait(driver, lambda: kinds(maps) == {"missed": "missed", 4: "redrawn"})
    assert area(decisions(maps)[4]) == pytest.approx(144 / 2, abs=8)
    press(driver, "f", "x")
    draw(driver, 4, [(90, 60), (110, 60), (110, 84), (90, 84)])  # Corners may lie on other outlines.
    wait(driver, lambda: "not_landslide" in kinds(maps))
    driver.find_elements(By.CSS_SELECTOR, ".row")[1].click()
    assert text(driver, "title").startswith("Polygon 2")
    press(driver, "e")
    corners = driver.find_elements(By.CSS_SELECTOR, ".corner:not(.between)")
    assert len(corners) == 4
    right = sorted(range(4), key=lambda i: corners[i].rect["x"])[2:]
    for i in right:
      corner = driver.find_elements(By.CSS_SELECTOR, ".corner:not(.between)")[i]
      ActionChains(driver).drag_and_drop_by_offset(corner, 20, 0).perform()
    press(driver, Keys.ENTER)
    wait(driver, lambda: 2 in kinds(maps))
    assert area(decisions(maps)[2]) == pytest.approx(22 * 10, abs=15)  # Twelve wide before.
    press(driver, "a")  # Confirms the correction.
    assert kinds(maps)[2] == "redrawn"
    assert text(driver, "title").startswith("Polygon 3")
    press(driver, "d", Keys.ESCAPE, "z")
    wait(driver, lambda: kinds(maps)[2] == "")
    log = (maps / "review/scene_tif.jsonl").read_text()
    press(driver, "m")
    draw(driver, 3, [(-30, 10), (-20, 10), (-20, 20)])  # Outside the scene.
    assert "no area in the scene" in text(driver, "problem")
    assert (maps / "review/scene_tif.jsonl").read_text() == log
    assert driver.get_log("browser") == []
  process.end(signal.SIGINT)


@pytest.mark.longest
def test_drawing_and_editing_by_keys_alone(maps):
  process = reviewing_server(maps)
  with browser() as driver:
    driver.get(process.address)
    wait(driver, lambda: text(driver, "saved") == SAVED)
    wait(driver, lambda: driver.find_elements(By.CSS_SELECTOR, "#map img.leaflet-tile-loaded"))
    zoom = 2  # Polygon 4 is shown at two pixels of the screen a pixel of the scene.
    press(driver, "m", Keys.ARROW_LEFT, Keys.SPACE, *[Keys.ARROW_RIGHT] * 4, Keys.SPACE)
    press(driver, *[Keys.ARROW_DOWN] * 2, *[Keys.SHIFT + Keys.ARROW_DOWN] * 2, Keys.SPACE, Keys.ENTER)
    wait(driver, lambda: kinds(maps) == {"missed": "missed"})
    assert area(decisions(maps)["missed"]) == pytest.approx(40 * 22 / 2 / zoom**2, abs=5)
    press(driver, Keys.ARROW_UP, Keys.HOME, "f")
    assert text(driver, "title").startswith("Polygon 4")
    before = (BOXES[4][2] - BOXES[4][0]) * (BOXES[4][3] - BOXES[4][1])
    press(driver, "e", Keys.TAB, Keys.INSERT, Keys.DELETE, Keys.TAB)
    assert len(driver.find_elements(By.CSS_SELECTOR, ".corner:not(.between)")) == 4
    press(driver, Keys.DELETE, Keys.ENTER)
    wait(driver, lambda: 4 in kinds(maps))
    assert area(decisions(maps)[4]) == pytest.approx(before / 2, abs=1)
    press(driver, "a")  # The list has the keys again.
    assert text(driver, "title").startswith("Polygon 2")
    assert driver.get_log("browser") == []
  process.end(signal.SIGINT)


@pytest.mark.longest
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (640, 400), (1920, 1080)])
def test_the_page_fits_screens_and_twice_the_size(maps, width, height):
  process = reviewing_server(maps)
  with browser() as driver:
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
      "width": width, "height": height, "deviceScaleFactor": 1, "mobile": False})
    driver.get(process.address)
    wait(driver, lambda: text(driver, "saved") == SAVED)
    overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert driver.execute_script(overflow) <= 0
    buttons = driver.find_elements(By.CSS_SELECTOR, "#toolbar button, #choice select")
    assert all(b.rect["x"] >= 0 and b.rect["x"] + b.rect["width"] <= width for b in buttons)
  process.end(signal.SIGINT)
