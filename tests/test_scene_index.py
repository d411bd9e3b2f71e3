"""Tests of the colour index beside the maps of scenes."""

import dataclasses
import pathlib

import numpy as np
import pytest

from lgag_jax.config import Config
from lgag_jax.evaluation import index_rule, thresholds_file
from lgag_jax.evaluation.index_rule import ColourIndex
from lgag_jax.imagery.reading import UNKNOWN
from lgag_jax.inference.localize import map_names
from lgag_jax.mapping import judge, predict, scene_tables
from lgag_jax.mapping.rasters import NO_DATA
from lgag_jax.options.mapping import Options, References
from lgag_jax.runtime import sealed_json
from lgag_jax.settings.maps import RULES
from tests.test_judge_scenes import config_of, random_map, write_map, write_raster

SIDE = 32  # Of the windows in `write_map`.
RED, FLOWS = ColourIndex("red over green", 1, 0.1, 0.0), ColourIndex("brightness", -1, -0.45, 0.3)


def scenes(tmp_path, count=2, shape=(70, 45)):
  """Writes random scenes with maps and references; returns plans, references and all arrays."""
  config, found = config_of(("slide", "flow")), []
  for seed in range(count):
    scores, mask, truth = random_map(seed, shape)
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*shape, 3), np.uint8)
    image[truth == 1, 0] |= 128  # The index tells a little.
    mask[:9], truth[20:25, :7] = NO_DATA, UNKNOWN
    scene = write_raster(tmp_path / f"s{seed}.tif", image.transpose(2, 0, 1))
    reference = write_raster(tmp_path / f"t{seed}.tif", truth)
    plan = write_map(scene, tmp_path / "out", scores, mask, Options(), config)
    found.append((plan, reference, image, mask, truth))
  return config, found


def expected(rule, c, found):
  """Returns precision, recall and IoU, counted window by window."""
  tp = fp = fn = 0
  for _, _, image, mask, truth in found:
    red, green, blue = np.moveaxis(image.astype(float) / 255, -1, 0)
    values = {
      "red over green": np.log((red + 1 / 255) / (green + 1 / 255)),
      "brightness": (red + green + blue) / 3,
    }
    above = rule.sign * values[rule.name] >= rule.threshold
    for top in range(0, truth.shape[0], SIDE):
      for left in range(0, truth.shape[1], SIDE):
        part = np.s_[top : top + SIDE, left : left + SIDE]
        mapped = above[part] & (above[part].mean() >= rule.share)
        known = (mask[part] != NO_DATA) & (truth[part] != UNKNOWN)
        true = truth[part] == c + 1
        tp += np.sum(mapped & true & known)
        fp += np.sum(mapped & ~true & known)
        fn += np.sum(~mapped & true & known)
  return tp / (tp + fp), tp / (tp + fn), tp / (tp + fp + fn)


@pytest.mark.parametrize("rules", [(RED, FLOWS), (None, RED), (FLOWS, None)])
def test_the_index_is_counted_window_by_window_over_all_scenes(tmp_path, rules):
  config, found = scenes(tmp_path)
  plans = [one[0] for one in found]
  result = predict.MappingResult([], plans, config, 7, [0.5, 0.5], {})
  content = judge.evaluate_maps(
    result, {one[0].path: one[1] for one in found}, tmp_path / "out", Options(), References(labels="t"),
    rules,
  )
  for c, (rule, values) in enumerate(zip(rules, content["classes"].values(), strict=True)):
    index = values["colour_index"]
    if rule is None:
      assert index is None
      continue
    rates = [index["label_free"][name] for name in ("precision", "recall", "iou")]
    assert rates == pytest.approx(expected(rule, c, found))
    assert index["oracle"]["iou"] >= index["label_free"]["iou"] - 1e-3
    assert f"no network: {rule.describe()}" in scene_tables.markdown(content)


def test_a_map_that_the_index_beats_says_so(tmp_path):
  config, found = scenes(tmp_path, count=1)
  plan, reference, image, *_ = found[0]
  image[..., 0] = np.where(found[0][4] == 1, 255, 10)
  image[..., 1] = 100
  write_raster(plan.path, image.transpose(2, 0, 1))
  result = predict.MappingResult([], [plan], config, 7, [0.5, 0.5], {})
  content = judge.evaluate_maps(
    result, {plan.path: reference}, tmp_path / "out", Options(), References(labels="t"), (RED, None)
  )
  assert content["classes"]["slide"]["colour_index"]["label_free"]["iou"] == 1.0
  page = (tmp_path / "out" / "report.html").read_text()
  assert "The maps of slide do not beat a colour index" in page
  assert "and 1.000 for red over green" in page and "The maps of flow do not" not in page


def workdir_of(tmp_path, rules) -> tuple[pathlib.Path, Config]:
  config = Config()
  levels = {rule: [0.5] for rule in RULES}
  sealed_json.write(tmp_path / "thresholds.json", {
    "step": 7, "maps": dict.fromkeys(map_names(config), levels), **rules
  })
  return tmp_path, config


@pytest.mark.parametrize("rule", [
  RED, FLOWS, ColourIndex("NDVI", -1, 0.2, 0.05, 1.5, True), None,
])
def test_a_rule_is_read_as_it_was_written(tmp_path, rule):
  folder, config = workdir_of(tmp_path, {"colour_index": [rule and dataclasses.asdict(rule)]})
  assert thresholds_file.load_indices(folder, config) == [rule]


def test_workdirs_of_earlier_releases_have_no_rule(tmp_path):
  assert thresholds_file.load_indices(*workdir_of(tmp_path, {})) == [None]


def test_a_band_is_a_rule_where_the_config_has_it():
  rule = ColourIndex("band 4", 1, 12.0, 0.1, column=3)
  assert index_rule.from_json(dataclasses.asdict(rule), 1) == rule
  with pytest.raises(ValueError, match="is no rule"):
    index_rule.from_json(dataclasses.asdict(rule), 0)


@pytest.mark.parametrize("changes", [
  {"name": "redness"}, {"name": ["red over green"]}, {"sign": 2}, {"sign": True}, {"threshold": "1"},
  {"threshold": float("nan")}, {"share": 2}, {"weight": 1e300}, {"near_infrared": 1}, {"column": 3},
  {"column": -1}, {"more": 1},
])
def test_odd_rules_of_strangers_are_refused(tmp_path, changes):
  folder, config = workdir_of(tmp_path, {"colour_index": [dataclasses.asdict(RED) | changes]})
  with pytest.raises(ValueError, match=r"thresholds\.json is not what --mode=eval writes"):
    thresholds_file.load_indices(folder, config)


@pytest.mark.parametrize("rules", [[], [None, None], {"a": 1}, "red", 3])
def test_rules_that_are_not_one_for_each_class_are_refused(tmp_path, rules):
  folder, config = workdir_of(tmp_path, {"colour_index": rules})
  with pytest.raises(ValueError, match="one rule per class"):
    thresholds_file.load_indices(folder, config)
