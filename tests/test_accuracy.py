"""The accuracy benchmark: its variants exist, and its tables say what the runs say."""

import dataclasses
import json

import pytest

from benchmarks import accuracy, accuracy_table
from benchmarks.programs import lower_step, named
from benchmarks.variants import INFERENCE, TRAINED
from lgag_jax import methods
from lgag_jax.method import registry
from lgag_jax.runtime import files
from lgag_jax.settings.maps import RULES


@pytest.fixture
def plan(tmp_path):
  folders = {"image_folder": "there", "landslide4sense_rgb": ""}
  return accuracy.Plan(tmp_path, folders, {name: {} for name in folders})


@pytest.mark.parametrize("name", [*TRAINED, *INFERENCE])
def test_a_variant_is_a_valid_config_that_differs_from_the_whole_method(plan, name):
  whole, variant = (plan.config("image_folder", method, 1) for method in ("lgag", name))
  assert variant != whole
  assert variant.train.seed == 1
  # What is seen stays the same; a trunk that learns takes its augmentation before it.
  assert dataclasses.replace(variant.data, augment=whole.data.augment) == whole.data


@pytest.mark.parametrize("name", [
  name if name in ("fusion: concat", "classifier: decoder", "structure from g")
  else pytest.param(name, marks=pytest.mark.longest) for name in TRAINED
])
def test_a_variant_has_a_training_step(name):
  method = TRAINED[name].get("model.method", "lgag")
  config = named("image_folder", "lgag", {
    **TRAINED[name], "model.method_digest": registry.digest_of(method), "data.image_size": 64,
    "model.weights": "random", "train.batch_size": 8,
  })
  frozen = config.model.first_trainable_stage == 5
  assert lower_step(config, taps=frozen).as_text()


def test_inference_variants_change_nothing_that_is_learned():
  groups = {field.split(".")[0] for changes in INFERENCE.values() for field in changes}
  assert groups == {"localize", "refine"}


def test_no_two_runs_share_a_folder(plan):
  names = ["lgag", "second_stage", *TRAINED, *INFERENCE, "from image_folder"]
  folders = {plan.workdir("image_folder", name, seed) for name in names for seed in (0, 1)}
  assert len(folders) == 2 * len(names)


def test_fields_are_set_in_every_config_or_in_one():
  fields = ["train.epochs=2", "b:data.train_split=train[:50%]", "b:localize.scales=(0.5, 1.0)"]
  assert accuracy.overrides(fields, "a") == {"train.epochs": 2}
  assert accuracy.overrides(fields, "b") == {
    "train.epochs": 2, "data.train_split": "train[:50%]", "localize.scales": (0.5, 1.0)
  }


@pytest.mark.parametrize(("names", "fields", "words"), [
  (["clas_activation"], [], "did you mean 'class_activation'?"),
  (["from scene"], [], "needs scene among --data"),
  (["lgag"], ["scene:train.epochs=2"], "scene is not among --data"),
  (["guided map alone"], ["localize.blend=0.5"], "leave out one of the two"),
])
def test_what_would_run_as_something_else_is_refused(plan, names, fields, words):
  for data in plan.folders:
    plan.overrides[data].update(accuracy.overrides(fields, data))
  with pytest.raises(ValueError, match=words.replace("?", r"\?")):
    accuracy.check(plan, names, fields)


def test_decoders_of_both_kinds_have_the_same_settings(plan):
  plan.overrides["image_folder"].update({
    "model.top_fractions": (0.3,), "optim.learning_rate": 0.5, "data.image_size": 128
  })
  upper, second = (plan.config("image_folder", m, 1) for m in ("segmentation", "second_stage"))
  masks = str(plan.workdir("image_folder", "lgag", 1) / "pseudo")
  data = dataclasses.replace(upper.data, pseudo_masks=masks)
  assert second == dataclasses.replace(upper, data=data)
  assert upper.data.image_size == 128
  assert upper.optim.learning_rate == methods.SEGMENTATION["optim.learning_rate"]


def test_another_data_set_is_seen_as_in_training(plan):
  plan.overrides["landslide4sense_rgb"].update({
    "data.normalise": "given", "data.mean": (1.0, 2.0, 3.0), "data.std": (1.0, 1.0, 2.0)
  })
  config = plan.config("image_folder", "from landslide4sense_rgb", 0)
  trained = plan.config("landslide4sense_rgb", "lgag", 0)
  assert config.data.directory == "there"
  assert config.data.normalise == "given"
  assert config.data.mean == trained.data.mean
  assert dataclasses.replace(config, data=trained.data) == trained


def test_a_run_done_with_other_settings_is_not_taken_for_this_one(plan):
  result = plan.result("image_folder", "lgag", 0)
  write_run(result, 0.5, 0.6)
  kept = dataclasses.asdict(plan.config("image_folder", "lgag", 0))
  files.write_json(result.parent.parent / "config.json", kept)
  accuracy.run(plan, "image_folder", "lgag", 0)  # Done: nothing is trained.
  plan.overrides["image_folder"]["train.epochs"] = 99
  with pytest.raises(SystemExit, match=r"train\.epochs: 15 -> 99.*Use another --output"):
    accuracy.run(plan, "image_folder", "lgag", 0)


def write_run(path, iou, oracle):
  rates = {"iou": iou, "f1": 2 * iou / (1 + iou)}
  values = {
    "label_free": rates, "oracle": {"iou": oracle},
    "rules": {rule: {"iou": iou} for rule in RULES},
  }
  content = {
    "map": "anchor_guided",
    "classes": {"landslide": {"maps": {"anchor_guided": values}, "image": {"auc": 0.9}}},
  }
  path.parent.mkdir(parents=True)
  path.write_text(json.dumps(content))


def test_tables_pair_runs_of_the_same_seed(plan, tmp_path):
  data = "image_folder"
  for method, ious in {"class_activation": (0.30, 0.34), "lgag": (0.40, 0.38, 0.60)}.items():
    for seed, iou in enumerate(ious):
      write_run(plan.result(data, method, seed), iou, iou + 0.02)
  pairs = {data: {"pairs": 1, "first": ["a.png and b.png, pixel for pixel the same"]}}
  methods, seeds = ["class_activation", "lgag", "sol"], [0, 1, 2]
  text = accuracy_table.write(
    tmp_path, plan.result, [data], methods, seeds, "class_activation", pairs
  )
  assert "| class_activation | 2 | 0.320 ± 0.028 | 0.340 ± 0.028 |" in text
  # +0.10 and +0.04; the third seed has no partner.
  assert "| +0.070 ± 0.042 (2 of 2 up) |" in text
  assert "sol" not in text
  assert "1 (near) duplicates across the splits: a.png and b.png, pixel" in text
  kept = files.read_json(tmp_path / "table.json")
  assert kept["runs"][data]["lgag"]["2"]["label_free"] == 0.6
