"""The slider for the threshold on the page of reviews: outlines follow, a command maps with it."""

import json
import shlex

import numpy as np
import pytest
import rasterio
import shapely
from rasterio.features import rasterize
from starlette.testclient import TestClient

from lgag_jax.mapping import gate_windows, preview
from lgag_jax.options.mapping import Options
from lgag_jax.options.reviewing import Settings
from lgag_jax.reviewing import maps as maps_of_review
from lgag_jax.reviewing import server
from lgag_jax.reviewing.session import Session
from tests.test_reviewing import BOXES, HEIGHT, SECRET, WIDTH, reviewing_server, write_maps


@pytest.fixture
def maps(tmp_path):
  folder = write_maps(tmp_path)
  record = folder / "scenes/scene_tif.json"
  options = Options(bands=(1, 2, 3), threshold=(0.45,), event="Storm A")
  content = json.loads(record.read_text()) | {"workdir": "/runs/mine", "flags": options.flags()}
  content["classes"]["landslide"]["threshold"] = 0.45
  record.write_text(json.dumps(content))
  return folder


@pytest.fixture
def client(maps):
  app = server.make_app(Session(Settings(input=str(maps))), SECRET, "127.0.0.1")
  return TestClient(
    app, base_url=f"http://localhost:8765/{SECRET}/", headers={"Origin": "http://localhost:8765"})


@pytest.mark.parametrize("level", [0.1, 0.5, 0.55, 0.6, 0.8, 0.95])
def test_outlines_are_those_of_the_pixels_above_the_threshold(client, maps, level):
  answer = client.get(f"preview/0?thresholds={level}").json()
  boxes = [box for box in BOXES.values() if box[4] >= 100 * level - 1e-9]
  if level > 0.2:
    areas = sorted(shapely.Polygon(rings[0]).area for _, ((rings,)) in answer["outlines"])
    assert areas == sorted((right - left) * (bottom - top) for left, top, right, bottom, _ in boxes)
  expected = np.zeros((HEIGHT, WIDTH), bool)
  for left, top, right, bottom, _ in boxes:
    expected[top:bottom, left:right] = True
  expected |= level <= 0.2
  assert answer["share"] == pytest.approx(expected.mean())
  drawn = [(shapely.Polygon(r[0], r[1:]), 1) for _, outline in answer["outlines"] for r in outline]
  mask = rasterize(drawn, (HEIGHT, WIDTH)) if drawn else np.zeros((HEIGHT, WIDTH))
  np.testing.assert_array_equal(mask == 1, expected)
  words = shlex.split(answer["command"])
  assert words == [
    "lgag", "--mode=predict", "--workdir=/runs/mine", f"--input={maps.parent}/scene.tif",
    "--bands=1,2,3", "--event=Storm A", f"--threshold={level:g}", f"--output={maps}"]


def test_the_page_knows_the_threshold_of_the_map(client):
  (scene,) = client.get("state").json()["scenes"]
  assert scene["thresholds"] == [0.45]


@pytest.mark.parametrize("words", ["", "high", "0", "1.5", "0.5,0.5", "nan", "0.5" + ",0.5" * 400])
def test_what_is_no_threshold_is_refused(client, words):
  response = client.get(f"preview/0?thresholds={words}")
  assert response.status_code == 400
  assert "threshold" in response.json()["error"]
  assert client.get("preview/7?thresholds=0.5").status_code == 400


def test_large_and_float_probabilities_of_several_classes(tmp_path, monkeypatch):
  monkeypatch.setattr(gate_windows, "_SIDE", 50)
  scores = np.zeros((2, 100, 200), np.float32)
  scores[0, :40, :80], scores[1, 20:, 100:] = 0.8, 0.7
  scores[0, 20:60, 100:140] = 0.75  # Further above its threshold than the other class.
  scores[:, 88:] = np.nan
  with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", height=100, width=200, count=2,
                     dtype="float32") as file:
    file.write(scores)
  shown = preview.preview(tmp_path / "a.tif", (0.6, 0.6))
  assert {n: outline.area for n, outline in shown.outlines if outline.area > 1600} == {
    0: 40 * 80, 1: 68 * 100 - 40 * 40}
  assert shown.share == pytest.approx((40 * 80 + 68 * 100) / (88 * 200))
  monkeypatch.setattr(preview, "_MOST", 1)
  assert (len(preview.preview(tmp_path / "a.tif", (0.6, 0.6)).outlines), shown.left_out) == (1, 0)


@pytest.mark.longest
def test_the_slider_draws_outlines_in_the_browser(maps):
  pytest.importorskip("selenium.webdriver")
  from selenium.webdriver.common.by import By
  from selenium.webdriver.common.keys import Keys

  from tests.test_labelling_page import browser, text, wait

  process = reviewing_server(maps)
  with browser() as driver:
    driver.get(process.address)
    wait(driver, lambda: text(driver, "saved") == "All decisions are saved")
    driver.find_element(By.CSS_SELECTOR, "#threshold summary").send_keys(Keys.ENTER)
    slider = driver.find_element(By.CSS_SELECTOR, "#sliders input")
    assert slider.get_attribute("value") == "45"
    slider.send_keys(*[Keys.ARROW_RIGHT] * 20)
    wait(driver, lambda: text(driver, "threshold-result").startswith("2 outlines"))
    assert "--threshold=0.65" in text(driver, "command")
    assert "mapped at 0.45" in text(driver, "sliders")
    driver.find_element(By.ID, "threshold-reset").click()
    assert text(driver, "threshold-result") == ""
    assert driver.get_log("browser") == []
  process.end(2)


@pytest.mark.parametrize(("flags", "expected"), [
  (["--method_file=maps/scenes/helper.py"], []), (["--flagfile=/home/me/flags"], []),
  (["method_file=x", "-gate=0.5", "--", "x.tif", "--=1"], []),
  (["--gate=0.5", "--config=x.py", "--bands=3,2,1"], ["--bands=3,2,1", "--gate=0.5"]),
  (["--gate=rm", "--event=a; rm b"], ["--event=a; rm b"]),
  (["--gate=7"], []), (["--event=a\x03\nrm"], []), (["--bands=1,x"], []), (["--threshold=nan"], []),
])
def test_a_record_gives_the_command_only_flags_of_mapping(tmp_path, flags, expected):
  maps = write_maps(tmp_path)
  record = maps / "scenes" / "scene_tif.json"
  content = json.loads(record.read_text()) | {"workdir": "run\x03\nrm x", "flags": flags}
  record.write_text(json.dumps(content))
  (scene_map,) = maps_of_review.read(maps)
  words = shlex.split(scene_map.command([0.5], None))
  assert words == [
    "lgag", "--mode=predict", "--workdir=WORKDIR", f"--input={tmp_path}/scene.tif", *expected,
    "--threshold=0.5", f"--output={maps}"]
