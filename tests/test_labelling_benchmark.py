"""The benchmark of labelling: the answers that it gives, and what it says of the map."""

import numpy as np
import pytest
import rasterio

from benchmarks import labelling

STATE = {
  "classes": ["landslide"], "background": "none", "unsure": "unknown", "version": "v", "tile_size": 4,
}


@pytest.mark.parametrize(("share", "unknown", "answer"), [
  (0.0, 0.0, "none"), (0.04, 0.0, "unknown"), (0.05, 0.0, "landslide"), (0.04, 0.3, "landslide"),
  (0.0, 0.6, "unknown"), (0.2, 0.6, "landslide"), (0.0, 1.0, "unknown"),
])
def test_an_answer_is_what_the_known_part_of_a_tile_shows(share, unknown, answer):
  mask = np.zeros(1000, np.uint8)
  mask[: round(1000 * share)] = 1
  mask[1000 - round(1000 * unknown):] = 255
  assert labelling.true_answer(mask.reshape(20, 50), STATE) == answer


class PageStub:
  """Suggests the tiles from the last one down, whatever was answered, and counts revisions."""

  def __init__(self, tiles):
    self.tiles, self.given, self.revision = tiles, [], 0

  def request(self, path, content=None):
    if path == "answers":
      assert content["version"] == "v"
      self.given += content["answers"]
      self.revision += 1
      return {}
    asked = {number for number, _ in self.given}
    rest = [n for n in reversed(range(self.tiles)) if n not in asked]
    return {"revision": self.revision, "looked_at": self.tiles, "problem": "", "suggested": rest[:24]}


def test_the_suggested_tiles_are_answered_in_their_order():
  truth = ["none", "landslide"] * 15
  page = PageStub(30)
  answers, seconds = labelling.follow(page, truth, STATE, 20)
  assert list(answers) == list(range(29, 9, -1))
  assert [list(pair) for pair in answers.items()] == page.given
  assert all(answers[n] == truth[n] for n in answers)
  assert len(seconds) == 20
  assert len(labelling.follow(PageStub(3), truth[:3], STATE, 20)[0]) == 3


def test_the_queue_grows_once_few_of_its_tiles_are_left_as_on_the_page():
  answers = dict.fromkeys([1, 2], "none")
  assert labelling.refilled([1, 2, 3, 4, 5, 6, 7], [9, 8], answers) == [3, 4, 5, 6, 7]
  suggested = [2, 5, *range(20, 40)]
  assert labelling.refilled([1, 2, 3, 4, 5, 6], suggested, answers) == [3, 4, 5, 6, *range(20, 28)]


def test_a_draw_has_so_many_random_tiles_of_each_kind():
  truth = ["none"] * 40 + ["landslide"] * 20 + ["unknown"] * 20
  draws = [labelling.drawn(truth, STATE, (5, 8), seed) for seed in range(3)]
  for drawn in draws:
    assert sorted(drawn.values()) == ["landslide"] * 5 + ["none"] * 8
    assert all(truth[n] == label for n, label in drawn.items())
  assert draws[0] != draws[1] != draws[2]
  with pytest.raises(SystemExit, match="20 tiles of landslide, not 21"):
    labelling.drawn(truth, STATE, (21, 8), 0)


def write(path, pixels, **profile):
  path.parent.mkdir(parents=True, exist_ok=True)
  bands = pixels if pixels.ndim == 3 else pixels[None]
  with rasterio.open(
    path, "w", driver="GTiff", height=bands.shape[1], width=bands.shape[2], count=len(bands),
    dtype="uint8", **profile,
  ) as file:
    file.write(bands)


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_the_map_is_judged_on_all_known_pixels(tmp_path):
  random = np.random.default_rng(0)
  truth = random.choice([0, 1, 255], (30, 40), p=[0.6, 0.3, 0.1]).astype(np.uint8)
  percent = np.clip(40 * (truth == 1) + random.integers(0, 60, truth.shape), 0, 100).astype(np.uint8)
  mask = (percent >= 70).astype(np.uint8)
  mask[:, :4] = percent[:, :4] = 255
  for name, pixels in (("mask", mask), ("probability", percent)):
    write(tmp_path / "maps" / name / "scene.tif", pixels)
  write(tmp_path / "truth.tif", truth)
  judged = labelling.judge_map(tmp_path / "maps", tmp_path / "truth.tif")
  known = truth != 255

  def iou(found):
    return np.sum(found & (truth == 1)) / np.sum((found & known) | (truth == 1))

  assert judged["map"]["iou"] == pytest.approx(iou(mask == 1))
  found = np.sum((mask == 1) & (truth == 1))
  assert judged["map"]["recall"] == pytest.approx(found / np.sum(truth == 1))
  best = max(iou((percent >= t) & (percent < 255)) for t in range(101))
  assert judged["oracle"]["iou"] == pytest.approx(best)


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_tiles_are_read_with_their_masks(tmp_path):
  pixels = np.arange(3 * 8 * 12, dtype=np.uint8).reshape(3, 8, 12)
  write(tmp_path / "scene.tif", pixels)
  truth = np.zeros((8, 12), np.uint8)
  truth[5, 9] = 1
  write(tmp_path / "truth.tif", truth)
  state = {**STATE, "tiles": [[0, 0, 0], [0, 1, 2]]}
  tiles = labelling.read_tiles(tmp_path / "scene.tif", tmp_path / "truth.tif", state)
  image, mask = tiles.read(1)
  np.testing.assert_array_equal(image, np.moveaxis(pixels[:, 4:, 8:], 0, -1))
  np.testing.assert_array_equal(mask, truth[4:, 8:])
  assert tiles.labels.tolist() == [[0], [1]]
  answered = tiles.answered({1: "none", 0: "unknown"}, STATE)
  assert (len(answered.ids), answered.labels.tolist()) == (1, [[0]])
  write(tmp_path / "other.tif", truth[:4])
  with pytest.raises(SystemExit, match="use one grid"):
    labelling.read_tiles(tmp_path / "scene.tif", tmp_path / "other.tif", state)


def test_the_table_has_the_index_and_the_worst_map():
  seconds = dict.fromkeys(("opening", "answers", "tiles", "training", "map"), 2.0)
  row = lambda seed, iou, index: {
    "seed": seed, "tile_size": 256, "yes": 20, "no": 30, "unsure": 10, "index": index,
    "map": {"iou": iou, "precision": 0.5, "recall": 0.6}, "oracle": {"iou": 0.7}, "seconds": seconds,
  }
  index = {"label_free": {"iou": 0.61}, "oracle": {"iou": 0.72}}
  text = labelling.table([row(0, 0.3, index), row(1, 0.5, None), row(2, 0.6, index)])
  assert "| 256 | 20 / 30 / 10 | 0.300 | 0.500 | 0.600 | 0.700 | 0.610 (0.720) | 2 / 2 / 2 /" in text
  assert "| 0.700 | - |" in text
  assert "Median IoU 0.500, worst 0.300." in text


@pytest.mark.longest
def test_a_page_is_measured_in_a_browser(tmp_path):
  pytest.importorskip("selenium.webdriver")
  from benchmarks import labelling_page, page_server

  tiles = labelling_page.write_scene(tmp_path / "scene.tif", 70)
  assert tiles >= 70
  flag = f"--tile_size={labelling_page.SIDE}"
  with (
    page_server.serve(tmp_path / "scene.tif", tmp_path, flag) as server,
    labelling_page.chromium() as browser,
  ):
    figures = labelling_page.measure(server.address, browser)
  assert figures["first"] > 0
  assert 0 < figures["saved"] <= figures["suggested"]
  assert figures["before"] > 20
  assert "70 tiles: the first" in labelling_page.text(70, figures)
