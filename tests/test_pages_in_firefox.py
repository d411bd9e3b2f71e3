"""Both pages in Firefox: answers and decisions by keys, and the slider for the threshold."""

import contextlib
import shutil
import signal

import pytest

from tests.test_labelling import YES, labelling_server
from tests.test_reviewing import reviewing_server, write_maps
from tests.test_tile import write_scene

pytestmark = pytest.mark.longest
webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

from tests.test_labelling_page import press, saved, text, wait  # noqa: E402
from tests.test_reviewing_page import SAVED, kinds  # noqa: E402

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
DRIVER = shutil.which("geckodriver")


@contextlib.contextmanager
def firefox():
  if not (FIREFOX and DRIVER):
    pytest.skip("firefox and geckodriver are missing: see github.com/mozilla/geckodriver/releases")
  options = webdriver.FirefoxOptions()
  options.binary_location = FIREFOX
  options.add_argument("-headless")
  driver = webdriver.Firefox(options, webdriver.FirefoxService(DRIVER))
  try:
    driver.set_window_size(1280, 800)
    yield driver
  finally:
    driver.quit()


def test_the_labelling_page_takes_answers(tmp_path):
  write_scene(tmp_path / "scene.tif")
  process = labelling_server(tmp_path, "--nolearn")
  with firefox() as driver:
    driver.get(process.address)
    wait(driver, lambda: text(driver, "saved") == "All answers are saved")
    press(driver, "y", Keys.ARROW_RIGHT, "n", "z")
    wait(driver, lambda: list(saved(tmp_path).values()).count(YES) == 1)
    wait(driver, lambda: driver.find_elements(By.CSS_SELECTOR, "#map img.leaflet-tile-loaded"))
    driver.save_screenshot(str(tmp_path / "labelling.png"))
  process.end(signal.SIGINT)


def test_the_page_of_reviews_takes_decisions_and_moves_the_threshold(tmp_path):
  maps = write_maps(tmp_path)
  process = reviewing_server(maps)
  with firefox() as driver:
    driver.get(process.address)
    wait(driver, lambda: text(driver, "saved") == SAVED)
    press(driver, "a", "r")
    wait(driver, lambda: kinds(maps) == {4: "accepted", 2: "rejected"})
    wait(driver, lambda: driver.find_elements(By.CSS_SELECTOR, "#map img.leaflet-tile-loaded"))
    driver.find_element(By.CSS_SELECTOR, "#threshold summary").click()
    slider = driver.find_element(By.CSS_SELECTOR, "#sliders input")
    slider.send_keys(*[Keys.ARROW_RIGHT] * 20)  # From 0.5.
    wait(driver, lambda: text(driver, "threshold-result").startswith("2 outlines"))
    assert "--threshold=0.7" in text(driver, "command")
    driver.save_screenshot(str(tmp_path / "reviewing.png"))
  process.end(signal.SIGINT)
