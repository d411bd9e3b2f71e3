"""Draws of the benchmark that counts labels."""

import csv
import re
import types

import numpy as np
import pytest

from benchmarks import labels
from lgag_jax import config as configs
from lgag_jax.runtime import packaged


@pytest.mark.parametrize(("count", "positives"), [(4, 50), (10, 3), (10, 97), (100, 50)])
def test_a_draw_is_random_without_repeats_and_has_both_kinds(count, positives):
  truth = np.arange(100) < positives
  draws = [labels.draw(truth, count, seed) for seed in range(3)]
  for drawn in draws:
    assert len(set(drawn)) == count
    assert min(truth[drawn].sum(), (~truth[drawn]).sum()) >= 2
  assert count == 100 or any(list(draws[0]) != list(other) for other in draws[1:])
  assert list(draws[0]) == list(labels.draw(truth, count, 0))


def test_a_manifest_lists_the_drawn_tiles_and_all_of_validation(tmp_path, monkeypatch):
  root = tmp_path / "data"
  tile = lambda i: (root / "images" / "a.png", root / "masks" / "a.png",
                    types.SimpleNamespace(row=8 * i, height=8, col=0, width=8))
  sources = {
    "train": types.SimpleNamespace(labels=np.arange(20)[:, None] % 2, ids=range(20), tile=tile),
    "validation": types.SimpleNamespace(labels=None, ids=range(3), tile=lambda i: tile(i + 20)),
  }
  monkeypatch.setattr(labels, "PatchSource", lambda data, split: sources[split])
  raw = packaged.load_config("landslide4sense_rgb", "lgag")
  raw.data.directory = str(root)
  config = configs.from_mapping(raw)
  changes = labels.restricted(config, 6, 1, tmp_path / "m.csv")
  assert changes["data.manifest"] == str(tmp_path / "m.csv")
  rows = list(csv.DictReader((tmp_path / "m.csv").open()))
  rows_of = lambda split: [int(r["row_start"]) // 8 for r in rows if r["split"] == split]
  assert rows_of("train") == list(labels.draw(np.arange(20) % 2 > 0, 6, 1))
  assert rows_of("validation") == [20, 21, 22]
  assert rows[0]["image"] == "images/a.png"
  assert int(rows[0]["row_stop"]) - int(rows[0]["row_start"]) == 8


def test_the_table_has_the_mean_the_worst_and_the_index():
  row = lambda seed, iou, index: {
    "order": "random", "count": 10, "seed": seed, "label_free": iou, "oracle": iou + 0.1,
    "colour_index": index, "auc": 0.9,
  }
  text = labels.table([row(0, 0.2, 0.1), row(1, 0.4, 0.3), {**row(0, 0.5, 0.1), "order": "active"}])
  cells = "0.300 ± 0.141 | 0.200 | 0.400 ± 0.141 | 0.200 ± 0.141 | 0.900 ± 0.000 |"
  assert f"| random | 10 | 2 | {cells}" in text
  assert "| active | 10 | 1 | 0.500 | 0.500 |" in text


def test_the_active_order_asks_for_what_the_classifier_is_unsure_of():
  """One feature tells the kinds apart, but where it is near zero: there the page asks."""
  rng = np.random.default_rng(2)
  values = np.sort(rng.normal(size=400))[:, None]
  truth = values[:, 0] > 0
  distance = lambda drawn: np.median(np.abs(values[drawn, 0]))
  active = [labels.active_draw(truth, values, 40, seed) for seed in range(3)]
  at_random = [labels.draw(truth, 40, seed) for seed in range(3)]
  for drawn in active:
    assert len(set(drawn.tolist())) == 40
    assert min(truth[drawn].sum(), (~truth[drawn]).sum()) >= 2
  assert max(map(distance, active)) < 0.5 * min(map(distance, at_random))
  assert active[0].tolist() == labels.active_draw(truth, values, 40, 0).tolist()
  few = labels.active_draw(np.arange(400) < 2, values, 10, 0)
  assert {0, 1} <= set(few.tolist())


def test_an_order_of_a_tfds_source_names_its_images(tmp_path, monkeypatch):
  truth = np.arange(60) % 2
  source = types.SimpleNamespace(labels=truth[:, None], ids=range(60))
  monkeypatch.setattr(labels, "open_source", lambda data, split: source)
  monkeypatch.setattr(
    labels, "features_of", lambda *_: np.stack([truth, np.arange(60)], axis=1).astype(float))
  config = configs.from_mapping(packaged.load_config("synthetic_landslides", "lgag"))
  changes = labels.restricted(config, 8, 1, tmp_path / "m.csv", kept=tmp_path / "f.npy")
  parts = changes["data.train_split"].split("+")
  assert len(parts) == 8
  assert all(re.fullmatch(r"train\[(\d+):(\d+)\]", part) for part in parts)


def test_a_source_that_no_manifest_restricts_is_named(tmp_path):
  config = configs.from_mapping(packaged.load_config("image_folder", "lgag"))
  with pytest.raises(ValueError, match=r"data\.source='folder'.*needs data\.source='patches'"):
    labels.restricted(config, 8, 1, tmp_path / "m.csv")
