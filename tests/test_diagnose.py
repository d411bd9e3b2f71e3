"""Each finding appears when it should and only then; an evaluation and a page show them."""

import dataclasses
import json
import logging
import re

import numpy as np
import pytest
from PIL import Image

from lgag_jax import config as configs
from lgag_jax.config import Config, RefineConfig
from lgag_jax.evaluation import diagnose, evaluate, measure, metrics, report
from lgag_jax.inputs import sources
from lgag_jax.mapping import predict
from lgag_jax.runtime import files, sharding
from lgag_jax.training import fill_trunk_outputs, restore

CONFIG = Config(refine=RefineConfig(colour_evidence=False))  # Its default rule is "argmax".
HEADS = {  # By a name for the tests, how a finding's text begins.
  "few": "Too few validation images", "chance": "The image classifier is no better than chance",
  "swapped": "The image classifier is worse than chance", "weak": "The image classifier is weak",
  "positive": "The image classifier calls almost every image positive",
  "negative": "The image classifier calls almost every image negative",
  "one-sided": "The image classifier is one-sided", "both": "The image classifier errs on both sides",
  "calibration": "Image probabilities are badly calibrated", "black": "Maps are black",
  "white": "Maps are white", "some black": "Some maps are black",
  "some white": "Some maps are white", "negatives": "Negative images are mapped",
  "threshold": "The threshold costs much", "whole": "Maps are worse than no maps",
}


def change(config, **groups):
  return dataclasses.replace(
    config, **{g: dataclasses.replace(getattr(config, g), **v) for g, v in groups.items()}
  )


def classifier(positive, negative, gate=0.5):
  """What is known of a classifier that gives these probabilities to images of both kinds."""
  probabilities = np.concatenate([positive, negative])
  labels = np.concatenate([np.ones(len(positive)), np.zeros(len(negative))])
  return metrics.image_rates(probabilities, labels, gate)


def good(**changed):
  return {**classifier(np.full(20, 0.97), np.full(20, 0.03)), **changed}


def a_map(*, iou=0.6, oracle=0.62, threshold=0.7, others=(), pixels=1000.0, **covered):
  rates = {"threshold": threshold, "iou": iou, "landslide_pixels": pixels}
  return {
    "label_free": rates, "oracle": {**rates, "iou": oracle, "threshold": 0.4},
    "rules": {"argmax": rates, **{rule: {**rates, "iou": value} for rule, value in others}},
    "coverage": {
      "positive_images": 20, "black": 0, "black_denied": 0, "found_images": 20, "white": 0,
      "negative_share": 0.004, "whole_image_iou": 0.1, **covered,
    },
  }


def without_masks(**covered):
  return a_map(iou=0.0, oracle=0.0, pixels=0.0, whole_image_iou=None, **covered)


def named(image, values, config=CONFIG):
  """Returns the findings by their names in HEADS."""
  result = {}
  for finding in diagnose.findings(image, values, config):
    assert set(finding) == {"level", "text", "remedy"}
    assert finding["level"] in ("error", "warning", "note") and finding["remedy"]
    (name,) = [name for name, head in HEADS.items() if finding["text"].startswith(head)]
    result[name] = finding
    for group, field in re.findall(r"\b(data|model|loss|train|localize|optim)\.(\w+)", str(finding)):
      assert hasattr(getattr(config, group), field), f"{group}.{field}"
  return result


def test_nothing_is_said_where_all_is_well():
  assert named(good(), a_map()) == {}
  assert named(good(), without_masks()) == {}


def spread(low, high, count=20):
  return np.linspace(low, high, count)


@pytest.mark.parametrize(("image", "expected"), [
  (classifier(np.full(9, 0.97), np.full(20, 0.03)), {"few"}),
  (classifier(np.full(20, 0.97), np.full(9, 0.03)), {"few"}),
  (classifier(np.full(10, 0.97), np.full(10, 0.03)), set()),
  (classifier(np.full(20, 0.97), []), {"few"}),
  (classifier([], np.full(20, 0.03)), {"few"}),
  (good(auc=0.59), {"chance"}), (good(auc=0.41), {"chance"}), (good(auc=0.39), {"swapped"}),
  (good(auc=0.6), {"weak"}), (good(auc=0.79), {"weak"}), (good(auc=0.8), set()),
  (good(missed_rate=0.05, false_alarm_rate=0.95), {"positive"}),
  (good(missed_rate=0.06, false_alarm_rate=0.95), {"one-sided"}),
  (good(missed_rate=0.95, false_alarm_rate=0.05), {"negative"}),
  (good(missed_rate=0.34, false_alarm_rate=0.1), {"one-sided"}),
  (good(missed_rate=0.1, false_alarm_rate=0.34), {"one-sided"}),
  (good(missed_rate=0.33, false_alarm_rate=0.33), set()),
  (good(missed_rate=0.4, false_alarm_rate=0.4), {"both"}),
  (classifier(np.full(20, 0.99), np.full(20, 0.36)), {"calibration"}),
  (classifier(np.full(20, 0.99), np.full(20, 0.2)), set()),
])
def test_the_classifier_is_judged(image, expected):
  for values in (a_map(), without_masks()):
    assert set(named(image, values)) == expected


def test_few_images_are_not_called_badly_calibrated():
  """Every bin of six images errs, even if each probability is right."""
  image = classifier([0.75, 0.65, 0.45], [0.25, 0.35, 0.55])
  assert image["expected_calibration_error"] > diagnose.MAX_CALIBRATION_ERROR
  assert set(named(image, a_map())) == {"few"}
  many = classifier([0.75, 0.65, 0.45] * 20, [0.25, 0.35, 0.55] * 20)
  assert set(named(many, a_map())) == {"calibration"}


def test_rare_positives_point_to_balanced_draws():
  image = classifier(np.full(10, 0.95), np.full(90, 0.35))
  assert "data.balance=False" in named(image, a_map())["calibration"]["remedy"]
  unbalanced = change(CONFIG, data={"balance": False})
  assert "data.balance" not in named(image, a_map(), unbalanced)["calibration"]["remedy"]


def test_the_gate_is_to_go_where_it_helps():
  remedy = lambda config=CONFIG, **changed: [
    f["remedy"] for f in named(good(**changed), a_map(), config).values()
  ][-1]
  assert "Lower localize.gate (0.5)" in remedy(missed_rate=0.5)
  assert "Raise localize.gate (0.5)" in remedy(false_alarm_rate=0.5)
  assert "Raise localize.gate (0.5)" in remedy(false_alarm_rate=1.0)
  # No gate parts images that are not in order.
  assert "localize.gate" not in remedy(false_alarm_rate=1.0, auc=0.5)
  unbalanced = change(CONFIG, data={"balance": False})
  assert "data.balance=True" in remedy(unbalanced, false_alarm_rate=1.0, auc=0.5)
  second = change(CONFIG, model={"method": "segmentation"})
  found = named(good(missed_rate=0.5), a_map(), second)["one-sided"]
  assert found["level"] == "note" and "changes no map" in found["remedy"]


@pytest.mark.parametrize(("covered", "expected"), [
  ({"black": 10}, {"black"}), ({"black": 9}, {"some black"}), ({"black": 5}, {"some black"}),
  ({"black": 4}, set()), ({"black": 0, "positive_images": 0}, set()),
  ({"black": 1, "positive_images": 3}, set()),  # One image of few may be a hard one.
  ({"white": 10}, {"white"}), ({"white": 9}, {"some white"}), ({"white": 5}, {"some white"}),
  ({"white": 4}, set()), ({"white": 0, "found_images": 0}, set()),
  ({"negative_share": 0.021}, {"negatives"}), ({"negative_share": 0.02}, set()),
  ({"negative_share": None}, set()),
])
def test_black_and_white_maps_and_mapped_negatives_need_no_masks(covered, expected):
  for values in (a_map(**covered), without_masks(**covered)):
    assert set(named(good(), values)) == expected


def test_black_maps_are_explained_by_what_blackens_them():
  denied = named(good(), a_map(black=16, black_denied=12))["black"]
  assert "In 12 of them the image classifier does not find the class" in denied["text"]
  assert "Lower localize.gate" in denied["remedy"] and "threshold_rule" not in denied["remedy"]
  high = named(good(), a_map(black=16, black_denied=2, threshold=0.9))["black"]["remedy"]
  words = ("threshold_rule=otsu or agreement", "train.epochs=15")
  assert all(word in high for word in words) and "localize.gate" not in high
  otsu = change(CONFIG, localize={"threshold_rule": "otsu"})
  remedy = named(good(), a_map(black=16), otsu)["black"]["remedy"]
  assert "otsu" not in remedy and "threshold_rule=agreement" in remedy
  # A larger share of an image that must agree with its label maps more.
  agreement = change(CONFIG, localize={"threshold_rule": "agreement", "agreement_fraction": 0.3})
  remedy = named(good(), a_map(black=16), agreement)["black"]["remedy"]
  assert "Raise localize.agreement_fraction (0.3)." in remedy
  remedy = named(good(), a_map(white=16), agreement)["white"]["remedy"]
  assert "Lower localize.agreement_fraction" in remedy
  chosen = change(CONFIG, localize={"threshold_rule": "agreement", "agreement_fraction": 0.0})
  remedy = named(good(), a_map(black=16), chosen)["black"]["remedy"]
  assert "Set localize.agreement_fraction to the fraction" in remedy
  weak = named(good(auc=0.7), a_map(black=16))["black"]["remedy"]
  assert weak.startswith("Check the AUC first.")
  second = change(CONFIG, model={"method": "segmentation"})
  assert "classifier" not in named(good(), a_map(black=16, black_denied=12), second)["black"]["text"]


def test_remedies_of_white_maps_fit_the_method():
  remedy = lambda config: named(good(), a_map(white=20), config)["white"]["remedy"]
  default = remedy(CONFIG)
  assert "negatives" in default and "model.pooling" not in default
  assert "model.pooling=top" in remedy(change(CONFIG, model={"pooling": "average"}))
  tiles = change(CONFIG, data={"source": "patches", "tile_size": 128})
  assert "data.tile_size=128" in remedy(tiles)
  assert "tile_size" not in default  # Folders of images are not cut into tiles.


def test_a_threshold_that_loses_much_is_told_and_not_picked():
  found = named(good(), a_map(iou=0.4, oracle=0.6, others=[("otsu", 0.55), ("agreement", 0.5)]))
  assert set(found) == {"threshold"}
  assert 'The rule "otsu" reaches 0.550' in found["threshold"]["text"]
  assert found["threshold"]["remedy"].startswith("Do not choose a rule by these masks")
  found = named(good(), a_map(iou=0.4, oracle=0.6, others=[("otsu", 0.3)]))
  assert "No other rule is better" in found["threshold"]["text"]
  assert named(good(), a_map(iou=0.48, oracle=0.6)) == {}


def test_maps_worse_than_whole_images_are_told():
  assert set(named(good(), a_map(whole_image_iou=0.61))) == {"whole"}
  assert named(good(), a_map(whole_image_iou=0.6)) == {}


def test_image_counts_against_pixels(rng):
  thresholds = [0.25, 0.75]
  scores = rng.integers(0, metrics.BINS, (3, 8, 8, 2)) / metrics.BINS
  kind = rng.integers(0, 3, (3, 8, 8, 2))  # Truly positive, negative, unknown.
  histograms = np.zeros((3, 2, 3, metrics.BINS), np.float32)
  for (i, y, x, c), score in np.ndenumerate(scores):
    histograms[i, c, kind[i, y, x, c], int(score * metrics.BINS)] += 1
  value = measure.image_counts(histograms, thresholds)
  for i, c in np.ndindex(3, 2):
    called, of = scores[i, ..., c] >= thresholds[c], kind[i, ..., c]
    assert value[i, c].tolist() == [
      np.sum(called & (of == 0)), np.sum((of == 0) | (called & (of == 1))), np.sum(of == 0),
      np.sum(of < 2), np.sum(called), 64,
    ]


def rows(*pairs):
  return [{"file": "x", "landslide_probability": p, "landslide_share": share} for p, share in pairs]


def test_predictions_that_are_all_black_or_white_are_doubted():
  black = predict.blank_maps_warning(rows((0.2, 0.0), (0.9, 0.0009)), CONFIG)
  assert black.startswith("Every map is black") and "In 1 of 2 images" in black
  second = change(CONFIG, model={"method": "segmentation"})
  assert "localize.gate" not in predict.blank_maps_warning(rows((0.2, 0.0)), second)
  white = predict.blank_maps_warning(rows((0.9, 0.9), (0.9, 0.81)), CONFIG)
  assert white.startswith("Every map is white")
  for shares in ((0.0, 0.001), (0.9, 0.8), (0.0, 1.0)):
    assert predict.blank_maps_warning(rows(*((0.9, share) for share in shares)), CONFIG) == ""


@pytest.mark.longest
def test_an_evaluation_of_constant_images_says_what_is_wrong(
  small_config, tmp_path, caplog, monkeypatch
):
  """No image differs from any other, no mask is there, and a high gate makes every map black."""
  for folder in ("landslide", "non-landslide"):
    (tmp_path / "data" / folder).mkdir(parents=True)
    for i in range(50):
      path = tmp_path / "data" / folder / f"{folder}_{i:02d}.png"
      Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(path)
  small_config.data.directory = str(tmp_path / "data")
  small_config.data.feature_cache_gib = 0.0  # Evaluation and prediction share a program.
  small_config.model.method = "class_activation"
  small_config.localize.gate = 0.999
  config, mesh, workdir = configs.from_mapping(small_config), sharding.make_mesh(), tmp_path / "run"
  network, _, state = restore.start(config, mesh, 1)  # Nothing here could be learned.
  splits = {
    split: fill_trunk_outputs.open_split(
      sources.open_source(config.data, split), network, state, config, mesh, workdir
    )
    for split in ("train", "validation")
  }
  with caplog.at_level(logging.WARNING):
    result = evaluate.evaluate(network, state, config, mesh, workdir, **splits)
  assert json.loads((workdir / "eval" / "validation.json").read_text()) == result
  values = result["classes"]["landslide"]
  image, covered = values["image"], values["maps"]["class_activation"]["coverage"]
  assert image["auc"] == 0.5 and image["reliability"][0]["images"] == 20
  assert covered == {
    "positive_images": 10, "black": 10, "black_denied": 10, "found_images": 0, "white": 0,
    "negative_share": 0.0, "whole_image_iou": None,
  }
  heads = [HEADS[name] for name in ("chance", "negative", "black")]
  assert [f["text"][: len(h)] for f, h in zip(values["diagnosis"], heads, strict=True)] == heads
  files.write_json(workdir / "config.json", dataclasses.asdict(config))
  page = report.write_report(workdir).read_text()
  text = (workdir / "eval" / "validation.md").read_text()
  without_masks = "No mask shows this class"
  for written in (text, page.split("<h2>Configuration</h2>")[0]):
    assert not re.search("IoU|precision|recall|oracle", re.sub(r'base64,[^"]*', "", written))
  for head in heads:
    assert f"landslide: {head}" in caplog.text
    assert text.index(head) < text.index(without_masks)
    assert page.index(head) < page.index(without_masks)

  monkeypatch.setattr(restore, "restore", lambda *_: (config, network, state))
  rows = predict.map_scenes(workdir, tmp_path / "data" / "landslide", tmp_path / "maps").rows
  assert [row["landslide_share"] for row in rows] == [0.0] * 50
  assert "Every map is black" in caplog.text and "In 50 of 50 images" in caplog.text
