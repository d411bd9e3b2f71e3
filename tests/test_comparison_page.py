"""The page of maps in Chromium: the slider by keys, without scripts, printed; tables on paper."""

import pytest
from PIL import Image

from lgag_jax.mapping import overlay, scene_page
from lgag_jax.pages import rendering
from lgag_jax.runtime import files

pytestmark = pytest.mark.longest
pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

from tests.test_labelling_page import browser  # noqa: E402

COLOURS = {"overlay": "red", "image": "green", "image_before": "blue"}


@pytest.fixture
def page(tmp_path):
  """Returns a page with the pictures of a pair and of a scene of one date."""
  scenes = []
  for stem, dates in (("pair", 2), ("single", 1)):
    names = overlay.file_names(stem, dates)
    for name in names:
      (tmp_path / name).parent.mkdir(exist_ok=True)
      Image.new("RGB", (300, 200), COLOURS[name.split("/")[0]]).save(tmp_path / name)
    scenes.append({"stem": stem, "files": names})
  shown = scene_page._pictures(scenes, {"pair": "pair", "single": "single"}, tmp_path)
  template = rendering._HTML.from_string(
    '{% extends "base.html" %}{% from "macros.html" import comparison %}'
    '{% block title %}{% endblock %}{% block body %}{% for name, dates in shown %}'
    '{{ comparison(dates, name) }}{% endfor %}'
    '<script>{% include "comparison.js" %}</script>{% endblock %}'
  )
  files.write_text(tmp_path / "page.html", template.render(shown=shown))
  return (tmp_path / "page.html").as_uri()


def boxes(comparison):
  """Returns caption, left edge and part that is cut off the left of each picture that is seen."""
  return [
    (figure.find_element(By.TAG_NAME, "figcaption").get_attribute("textContent"), figure.rect["x"],
     figure.value_of_css_property("clip-path"))
    for figure in comparison.find_elements(By.TAG_NAME, "figure") if figure.is_displayed()
  ]


def test_the_slider_moves_by_keys_and_pictures_stay_side_by_side_otherwise(page):
  with browser() as driver:
    driver.get(page)
    pair, single = driver.find_elements(By.CLASS_NAME, "comparison")
    slider = pair.find_element(By.CSS_SELECTOR, "input[type=range]")
    slider.send_keys(Keys.ARROW_RIGHT)
    (before, left, whole), (result, right, cut) = boxes(pair)
    assert (before, result, left, whole) == ("Before", "Map", right, "none")
    assert "51%" in cut
    slider.send_keys(Keys.HOME)
    assert " 0%)" in boxes(pair)[1][2] or boxes(pair)[1][2] == "inset(0px)"
    assert slider.accessible_name == "Border between Before (left) and Map (right), in percent"
    pair.find_elements(By.CSS_SELECTOR, "input[type=radio]")[0].send_keys(Keys.ARROW_RIGHT)
    assert [caption for caption, *_ in boxes(pair)] == ["After", "Map"]
    assert [caption for caption, *_ in boxes(single)] == ["Image", "Map"]
    assert not single.find_elements(By.CSS_SELECTOR, "input[type=radio]")
    assert not [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    beside = lambda comparison: sorted({left for _, left, _ in boxes(comparison)})
    assert len(beside(pair)) == 3 and len(beside(single)) == 2 and not slider.is_displayed()
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    driver.get(page)
    pair, single = driver.find_elements(By.CLASS_NAME, "comparison")
    assert len(beside(pair)) == 3 and {cut for *_, cut in boxes(pair)} == {"none"}
    assert not pair.find_element(By.CSS_SELECTOR, "input[type=range]").is_displayed()


def test_tables_are_whole_on_paper(tmp_path):
  """What a table's scroll bar hides is lost there. A4 has 680 pixels between Chromium's margins."""
  names = ("scene", "pixels", "resolution", "CRS", "nodata", "landslide: image score", "threshold",
           "polygons", "area", "share", "too flat")
  row = ("after.tif", "2,000 x 2,000", "0.5 m", "EPSG:32633", "0.0 %", "0.94", "0.757", "75",
         "6.04 ha", "6.04 %", "12")
  template = rendering._HTML.from_string(
    '{% extends "base.html" %}{% from "macros.html" import table %}'
    '{% block title %}{% endblock %}{% block body %}{{ table(shown) }}{% endblock %}'
  )
  files.write_text(tmp_path / "page.html", template.render(shown=rendering.Table(names, [row])))
  with browser() as driver:
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
      "width": 680, "height": 1000, "deviceScaleFactor": 1, "mobile": False})
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    driver.get((tmp_path / "page.html").as_uri())
    shown = driver.find_element(By.TAG_NAME, "table").rect
    assert 300 < shown["x"] + shown["width"] <= 680
