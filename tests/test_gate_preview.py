"""The slider for the gate on the page of reviews: what it shows is the map that --gate makes."""

import numpy as np
import pytest
from rasterio.features import rasterize
from starlette.testclient import TestClient

from lgag_jax.mapping import gate_windows, predict, preview, window_pipeline
from lgag_jax.options.mapping import Options
from lgag_jax.options.reviewing import Settings
from lgag_jax.reviewing import maps as maps_of_review
from lgag_jax.reviewing import server
from lgag_jax.reviewing.session import Session
from tests.test_map_names import model  # noqa: F401
from tests.test_mapping import brightness, picture, read, write_scene
from tests.test_reviewing import SECRET, reviewing_server

OPTIONS: dict = {"min_area": 0, "overlap": 0.4, "tile_size": 32}


@pytest.fixture(autouse=True)
def network(monkeypatch):
  """Replaces the network by the brightness of pixels, and of whole windows."""
  def make_window_scores(network, config, mesh, windows):
    def window_scores(state, pixels):
      scores = brightness(pixels)
      return scores, scores.mean((1, 2))
    return window_scores

  monkeypatch.setattr(window_pipeline, "make_window_scores", make_window_scores)


def make_map(model, folder, shape, gate):  # noqa: F811
  """Maps a scene at a gate; returns its output and the record that a review reads."""
  folder.mkdir(exist_ok=True)
  output, scene = folder / f"maps{gate}", write_scene(folder / "a.tif", picture(*shape))
  predict.map_scenes(model, scene, output, Options(gate=gate, probability="float32", **OPTIONS))
  return output, maps_of_review.read(output)[0]


@pytest.mark.parametrize(("mapped", "gate"), [(0.0, 0.5), (0.5, 0.55), (0.5, 0.5), (0.99, 0.0)])
def test_a_preview_is_the_map_of_that_gate(model, tmp_path, mapped, gate):  # noqa: F811
  shape = 90, 130
  (wanted, _), (_, scene_map) = (make_map(model, tmp_path, shape, value) for value in (gate, mapped))
  shown = preview.preview(scene_map.probability, (0.6,), scene_map.gate_at(gate))
  drawn = [(outline, 1) for _, outline in shown.outlines]
  mask = rasterize(drawn, shape) if drawn else np.zeros(shape, np.uint8)
  scores = read(wanted / "probability/a_tif.tif")[0]
  clear = np.abs(scores - 0.6) > 0.01
  small = (scores >= 0.6) & (mask == 0)  # Outlines of few pixels are not shown.
  assert shown.share == pytest.approx((scores >= 0.6).mean(), abs=0.01)
  assert small.mean() < 0.01
  np.testing.assert_array_equal((mask == 1)[clear & ~small], (scores >= 0.6)[clear & ~small])


def test_cells_of_a_large_scene_are_some_of_its_pixels(model, tmp_path, monkeypatch):  # noqa: F811
  monkeypatch.setattr(gate_windows, "_SIDE", 50)
  output, scene_map = make_map(model, tmp_path, (90, 130), 0.99)
  assert (read(output / "probability/a_tif.tif") == 0).all()
  shape = gate_windows.cell_shape(90, 130, 1)
  assert shape == (30, 44)
  scores, changed = scene_map.gate_at(0.0).windows.at(0.0, 0.99, shape)
  assert changed.all()
  rows, cols = (np.arange(30) * 3 + 1, ((np.arange(44) + 0.5) * 130 / 44).astype(int))
  wanted = brightness(picture(90, 130))[rows[:, None], cols]
  np.testing.assert_allclose(scores, wanted, atol=0.01)


@pytest.fixture
def output(model, tmp_path):  # noqa: F811
  return make_map(model, tmp_path, (90, 130), 0.99)[0]


@pytest.fixture
def client(output):
  app = server.make_app(Session(Settings(input=str(output))), SECRET, "127.0.0.1")
  return TestClient(
    app, base_url=f"http://localhost:8765/{SECRET}/", headers={"Origin": "http://localhost:8765"})


def test_the_page_gets_the_gate_and_the_command(client):
  assert client.get("state").json()["scenes"][0]["gate"] == 0.99
  shut = client.get("preview/0?thresholds=0.6&gate=").json()
  assert (shut["outlines"], shut["windows"]) == ([], None)
  assert "--gate=0.99" in shut["command"] and "--threshold=0.6" in shut["command"]
  shown = client.get("preview/0?thresholds=0.6&gate=0.1").json()
  assert shown["outlines"] and shown["share"] > 0.05
  assert shown["windows"][0] == shown["windows"][1] > 10
  assert "--gate=0.1 " in shown["command"] and "--gate=0.99" not in shown["command"]
  for gate in ("1", "-0.1", "nan", "high"):
    response = client.get(f"preview/0?thresholds=0.6&gate={gate}")
    assert response.status_code == 400 and "a gate" in response.json()["error"]


def test_without_windows_there_is_no_gate_to_move(output, client):
  (output / "gate/a_tif.npz").write_bytes(b"PK no archive")
  response = client.get("preview/0?thresholds=0.6&gate=0.1")
  assert response.status_code == 400
  assert "gate/a_tif.npz is damaged. Delete it, and make the map" in response.json()["error"]
  (output / "gate/a_tif.npz").unlink()
  (scene_map,) = maps_of_review.read(output)
  assert scene_map.gate is None
  with pytest.raises(ValueError, match=r"map of a\.tif has no gate to move"):
    scene_map.gate_at(0.1)


@pytest.mark.parametrize("change", [
  {"places": np.zeros((2, 4), np.int32)}, {"places": np.full((1, 4), -1, np.int32)},
  {"places": np.array([[0, 91, 0, 1]], np.int32)}, {"places": np.zeros((1, 3), np.int32)},
  {"places": np.array([[0, 2, 0, 2]], np.int32)}, {"values": np.zeros(5, np.float32)},
  {"image_scores": np.zeros((1, 2), np.float32)}, {"image_scores": np.zeros((2, 1), np.float32)},
])
def test_foreign_windows_that_do_not_fit_are_named(tmp_path, change):
  sound = {
    "image_scores": np.zeros((1, 1), np.float32), "places": np.array([[0, 1, 0, 5]], np.int32),
    "values": np.zeros(5, np.uint8),
  }
  path = tmp_path / "a.npz"
  np.savez(path, **sound)
  gate_windows.read(path, (90, 130), 1)
  np.savez(path, **(sound | change))
  with pytest.raises(ValueError, match=r"a\.npz is damaged"):
    gate_windows.read(path, (90, 130), 1)


@pytest.mark.longest
def test_the_slider_of_the_gate_draws_outlines_in_the_browser(output):
  pytest.importorskip("selenium.webdriver")
  from selenium.webdriver.common.by import By
  from selenium.webdriver.common.keys import Keys

  from tests.test_labelling_page import browser, text, wait

  process = reviewing_server(output)
  with browser() as driver:
    driver.get(process.address)
    wait(driver, lambda: text(driver, "saved") == "All decisions are saved")
    driver.find_element(By.CSS_SELECTOR, "#threshold summary").send_keys(Keys.ENTER)
    threshold, gate = driver.find_elements(By.CSS_SELECTOR, "#sliders input")
    assert (threshold.get_attribute("value"), gate.get_attribute("value")) == ("50", "99")
    gate.send_keys(Keys.HOME)
    wait(driver, lambda: "windows of the scene pass the gate" in text(driver, "threshold-result"))
    assert not text(driver, "threshold-result").startswith("0 outlines")
    assert "--gate=0 " in text(driver, "command")
    assert "mapped at 0.99" in text(driver, "sliders")
    gate.send_keys(Keys.END)
    wait(driver, lambda: text(driver, "threshold-result").startswith("0 outlines"))
    driver.find_element(By.ID, "threshold-reset").click()
    assert text(driver, "threshold-result") == ""
    assert driver.get_log("browser") == []
  process.end(2)
