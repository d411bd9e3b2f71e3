"""The accuracy benchmark: its variants exist, and its tables say what the runs say."""

import json

import pytest

from benchmarks import accuracy, accuracy_table
from benchmarks.variants import INFERENCE, TRAINED
from lgag_jax import config as configs
from lgag_jax import files


@pytest.fixture
def plan(tmp_path):
  folders = {"image_folder": "there", "landslide4sense_rgb": ""}
  return accuracy.Plan(tmp_path, folders, {name: {} for name in folders})


@pytest.mark.parametrize("name", [*TRAINED, *INFERENCE])
def test_a_variant_is_a_valid_config_that_differs_from_the_whole_method(plan, name):
  whole, variant = (plan.config("image_folder", method, 1) for method in ("lgag", name))
  assert variant != whole
  assert variant.train.seed == 1
  assert variant.data == whole.data


def test_inference_variants_change_nothing_that_is_learned():
  groups = {field.split(".")[0] for changes in INFERENCE.values() for field in changes}
  assert groups <= {"localize", "refine", "gaa"}
  assert all(set(c) == {"gaa.global_activation"} for c in INFERENCE.values() if "gaa" in str(c))


def test_no_two_runs_share_a_folder(plan):
  names = ["lgag", "second_stage", *TRAINED, *INFERENCE, "from image_folder"]
  folders = {plan.workdir("image_folder", name, seed) for name in names for seed in (0, 1)}
  assert len(folders) == 2 * len(names)


def test_fields_are_set_in_every_config_or_in_one():
  fields = ["train.epochs=2", "b:data.train_split=train[:50%]", "b:localize.scales=(0.5, 1.0)"]
  assert accuracy._overrides(fields, "a") == {"train.epochs": 2}
  assert accuracy._overrides(fields, "b") == {
    "train.epochs": 2, "data.train_split": "train[:50%]", "localize.scales": (0.5, 1.0)
  }


def write_run(path, iou, oracle):
  rates = {"iou": iou, "f1": 2 * iou / (1 + iou)}
  values = {
    "label_free": rates, "oracle": {"iou": oracle},
    "rules": {rule: {"iou": iou} for rule in configs.RULES},
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
