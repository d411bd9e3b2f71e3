"""Config: names checked both ways, types and ranges, and what is written read back."""

import dataclasses
import json

import pytest

from lgag_jax import config as configs
from lgag_jax.config import (
  BankConfig,
  Config,
  DataConfig,
  GaaConfig,
  LocalizeConfig,
  LossConfig,
  ModelConfig,
  OptimConfig,
  SolConfig,
  TrainConfig,
)
from lgag_jax.runtime.files import write_json


def mapping(**changes):
  """The defaults as nested dicts, with `group__field` set."""
  result = dataclasses.asdict(Config())
  for path, value in changes.items():
    group, name = path.split("__")
    result[group][name] = value
  return result


def test_the_defaults_come_back():
  assert configs.from_mapping(configs.config_dict()) == Config()


def test_a_changed_config_dict_comes_back_changed():
  draft = configs.config_dict()
  draft.data.classes = ("scar", "debris")
  draft.localize.scales = (0.5, 1.0)
  draft.optim.learning_rate = 0.5
  result = configs.from_mapping(draft)
  assert result == Config(
    data=DataConfig(classes=("scar", "debris")), localize=LocalizeConfig(scales=(0.5, 1.0)),
    optim=OptimConfig(learning_rate=0.5),
  )
  assert isinstance(result.data.classes, tuple)


def test_an_unknown_name_is_an_error_with_a_suggestion():
  with pytest.raises(ValueError, match=r"config\.optim\.learning_rat is unknown.*'learning_rate'"):
    configs.from_mapping(mapping(optim__learning_rat=0.1))
  with pytest.raises(ValueError, match=r"config\.modell is unknown.*'model'"):
    configs.from_mapping({**mapping(), "modell": {}})


def test_an_unknown_name_like_no_other_lists_the_names_there_are():
  with pytest.raises(ValueError, match=r"config\.sol\.zzz is unknown.*rounds.*block_rows"):
    configs.from_mapping(mapping(sol__zzz=1))


def test_a_missing_name_is_an_error():
  incomplete = mapping()
  del incomplete["bank"]["slots"]
  with pytest.raises(ValueError, match=r"config\.bank lacks slots"):
    configs.from_mapping(incomplete)
  del incomplete["bank"]
  with pytest.raises(ValueError, match=r"config lacks bank"):
    configs.from_mapping(incomplete)


@pytest.mark.parametrize("value", [{}, {"wrong": 1}])
def test_a_group_is_checked_like_the_whole(value):
  with pytest.raises(ValueError, match=r"config\.gaa"):
    configs.from_mapping({**mapping(), "gaa": value})


@pytest.mark.parametrize(
  ("field", "value", "wanted"),
  [
    ("train__epochs", 2.5, "int"), ("train__epochs", "3", "int"), ("train__epochs", True, "int"),
    ("train__epochs", None, "int"), ("optim__learning_rate", "0.1", "float"),
    ("optim__learning_rate", True, "float"), ("data__balance", 1, "bool"),
    ("data__directory", 5, "str"), ("data__classes", "landslide", "tuple"),
    ("data__classes", (1,), "str"), ("localize__scales", ("1",), "float"),
    ("model__side_widths", (1.0, 2.0, 3.0, 4.0), "int"),
  ],
)
def test_a_wrong_type_is_an_error_that_names_field_and_type(field, value, wanted):
  with pytest.raises(TypeError, match=rf"config\.{field.replace('__', '.')}.*{wanted}"):
    configs.from_mapping(mapping(**{field: value}))


def test_a_group_that_is_no_group_is_an_error():
  with pytest.raises(TypeError, match=r"config\.bank must be a group"):
    configs.from_mapping({**mapping(), "bank": 5})


def test_whole_numbers_serve_where_any_number_does():
  result = configs.from_mapping(mapping(optim__learning_rate=1, localize__scales=[1, 2]))
  assert repr(result.optim.learning_rate) == "1.0"
  assert repr(result.localize.scales) == "(1.0, 2.0)"


NAN, INF = float("nan"), float("inf")
WRONG = [
  (DataConfig, "source", "csv"), (DataConfig, "classes", ()), (DataConfig, "channels", 0),
  (DataConfig, "image_size", -1), (DataConfig, "tile_size", -1), (DataConfig, "max_value", -1.0),
  (DataConfig, "min_mask_fraction", 1.5), (DataConfig, "validation_fraction", -0.1),
  (DataConfig, "augment", "mixup"), (DataConfig, "on_bad_image", "ignore"),
  (DataConfig, "mean", (0.5,)), (DataConfig, "std", (1.0, 0.0, 1.0)),
  (DataConfig, "colour_jitter", 0.1), (DataConfig, "scale_jitter", 0.1),
  (DataConfig, "feature_cache_gib", NAN), (DataConfig, "max_bad_images", -1),
  (ModelConfig, "trunk", "vgg"),
  (ModelConfig, "first_trainable_stage", 0), (ModelConfig, "first_trainable_stage", 6),
  (ModelConfig, "depthwise", "fast"), (ModelConfig, "pooling", "max"),
  (ModelConfig, "top_fractions", (0.1, 0.0)), (ModelConfig, "top_fractions", ()),
  (ModelConfig, "head_width", 0), (ModelConfig, "epsilon", 0.0),
  (ModelConfig, "side_widths", (1, 2, 3)), (ModelConfig, "side_widths", (1, 2, 3, 0)),
  (SolConfig, "background_factor", 0.0), (SolConfig, "block_rows", 0),
  (GaaConfig, "heads", 0),
  (BankConfig, "slots", 9), (BankConfig, "centres", 0), (BankConfig, "lloyd_steps", 0),
  (BankConfig, "min_confidence", 1.2), (BankConfig, "refresh_every", -1),
  (LossConfig, "contrast_weight", -1.0), (LossConfig, "contrast_temperature", 0.0),
  (LossConfig, "consistency_weight", NAN),
  (LossConfig, "consistency_weight", INF), (OptimConfig, "learning_rate", INF),
  (OptimConfig, "name", "lion"), (OptimConfig, "learning_rate", 0.0),
  (OptimConfig, "clip_norm", -1.0),
  (TrainConfig, "epochs", 0), (TrainConfig, "batch_size", 0), (TrainConfig, "accumulate", 3),
  (TrainConfig, "keep_checkpoints", 0), (TrainConfig, "evaluate_every", -1),
  (TrainConfig, "seed", -1),
  (LocalizeConfig, "scales", ()), (LocalizeConfig, "scales", (1.0, -1.0)),
  (LocalizeConfig, "scales", (1.0, INF)), (LocalizeConfig, "threshold_rule", "oracle"),
  (LocalizeConfig, "gate", 1.5),
  (LocalizeConfig, "batch_size", 0),
]


@pytest.mark.parametrize(("kind", "name", "value"), WRONG)
def test_a_value_out_of_range_is_an_error_that_names_field_and_value(kind, name, value):
  with pytest.raises(ValueError, match=rf"config\.\w+\..*\b{name}\b") as caught:
    kind(**{name: value})
  # A jitter needs another augmentation, so the message gives the value of that.
  assert repr("features" if "jitter" in name else value) in str(caught.value)


@pytest.mark.parametrize(
  ("groups", "field"),
  [
    ({"model": ModelConfig(first_trainable_stage=4), "data": DataConfig(augment="features")},
     "data.augment"),
  ],
)
def test_groups_that_do_not_fit_together_are_an_error(groups, field):
  with pytest.raises(ValueError, match=field):
    Config(**groups)


def test_a_typo_in_a_config_file_raises():
  draft = configs.config_dict()
  with pytest.raises(AttributeError, match="learning_rate"):
    draft.optim.learning_rte = 0.1
  with pytest.raises(AttributeError, match="bankk"):
    draft.bankk = 1
  with pytest.raises(TypeError, match="epochs"):
    draft.train.epochs = "many"


def test_a_config_does_not_change_and_hashes():
  with pytest.raises(dataclasses.FrozenInstanceError, match="epochs"):
    Config().train.epochs = 3
  assert hash(Config()) == hash(configs.from_mapping(configs.config_dict()))


def test_json_keeps_everything(tmp_path):
  config = Config(
    data=DataConfig(mean=(0.1, 0.2, 0.3), classes=("Hangrutschung ä",), balance=False),
    optim=OptimConfig(learning_rate=1 / 3), model=ModelConfig(side_widths=(4, 4, 4, 4)),
  )
  write_json(tmp_path / "config.json", dataclasses.asdict(config))
  assert configs.load(tmp_path / "config.json") == config


def test_a_file_of_an_older_version_takes_defaults(tmp_path):
  older = mapping(train__epochs=3)
  del older["train"]["min_steps"], older["data"]["gsd"]
  write_json(tmp_path / "config.json", older)
  assert configs.load(tmp_path / "config.json") == configs.from_mapping(mapping(train__epochs=3))


def test_a_missing_file_says_where_to_look(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"config\.json is missing.*workdir"):
    configs.load(tmp_path / "config.json")


EARLIER = {  # What release 0.1.0 wrote of a method, where it differs from `mapping()`.
  "model": {"classifier": "head", "grid_stride": 16, "anchor_features": "taps",
            "stop_gradient_sides": False, "top_fraction": 0.04},
  "loss": {"background_pixel_weight": 0.5, "background_pixel_fraction": 0.85},
  "sol": {"seed_features": "head", "seeding": "argmax"},
  "gaa": {"attention": True, "fusion": "residual", "normalise": "anchors",
          "activation_head": "cosine", "activation_head_width": 256, "global_activation": 0.0},
  "bank": {"policy": "fifo", "momentum": 0.99}, "optim": {"warmup_steps": 0},
  "localize": {"turns": "none", "class_activation": "probability", "compare": "difference",
               "threshold_rule": "negatives", "negative_quantile": 0.995},
  "refine": {"steps": 10, "dilations": [1, 2, 4], "contrast": 0.3, "colour": 0.5, "weight": 1.0},
}
PUBLISHED = {
  "model__classifier": "linear", "model__anchor_features": "sides", "sol__seed_features": "x4",
  "gaa__fusion": "concat", "localize__class_activation": "normalised",
}


def earlier(**changes):
  result = mapping()
  del result["model"]["method_digest"], result["refine"]["colour_evidence"]
  del result["model"]["top_fractions"]
  for group, fields in EARLIER.items():
    result[group].update(fields)
  for path, value in changes.items():
    group, name = path.split("__")
    result[group][name] = value
  return result


@pytest.mark.parametrize(("changes", "method"), [
  ({}, "lgag"), ({"model__method": "sol", "gaa__fusion": "concat"}, "sol"),
  ({"model__method": "class_activation", "sol__seed_features": "g"}, "class_activation"),
  ({"model__method": "segmentation", "model__classifier": "decoder"}, "segmentation"),
  (PUBLISHED, "lgagnet"), ({**PUBLISHED, "model__method": "sol"}, "lgagnet_sol"),
  ({**PUBLISHED, "model__method": "class_activation"}, "lgagnet_class_activation"),
])
def test_a_config_of_release_0_1_0_names_the_method_of_today(tmp_path, changes, method):
  write_json(tmp_path / "config.json", earlier(**changes))
  expected = mapping(
    model__method=method, localize__threshold_rule="argmax", refine__colour_evidence=False,
    model__top_fractions=[0.04],
  )
  assert configs.load(tmp_path / "config.json") == configs.from_mapping(expected)


@pytest.mark.parametrize(("field", "value"), [
  ("model__classifier", "decoder"), ("model__anchor_features", "sides"), ("gaa__attention", False),
  ("bank__policy", "moving_average"), ("localize__turns", "flip"), ("optim__warmup_steps", 10),
  ("sol__seeding", "weighted"), ("model__grid_stride", 8), ("gaa__global_activation", 0.5),
  ("refine__method", "dense_crf"),
])
def test_an_option_that_is_gone_is_refused_by_name(tmp_path, field, value):
  write_json(tmp_path / "config.json", earlier(**{field: value}))
  with pytest.raises(ValueError, match=rf"config\.{field.replace('__', '.')}={value!r}"):
    configs.load(tmp_path / "config.json")


@pytest.mark.parametrize("change", ["truncated", "list", "unknown", "type", "empty"])
def test_a_file_that_is_no_config_is_named(tmp_path, change):
  path = tmp_path / "config.json"
  text = json.dumps(mapping())
  path.write_text({
    "truncated": text[:100], "list": "[1, 2]", "empty": "",
    "unknown": json.dumps(mapping(bank__slotts=3)), "type": json.dumps(mapping(bank__slots="3")),
  }[change])
  with pytest.raises(ValueError, match=r"config\.json is no valid config"):
    configs.load(path)


def test_no_field_hides_a_method_of_its_config_dict():
  """Such a field could not be set from the command line."""
  for group in configs.config_dict().values():
    for name in group:
      assert not hasattr(type(group), name), name


@pytest.mark.parametrize(("field", "value"), [
  ("data__image_size", 10**6), ("sol__rounds", 10**9), ("localize__scales", (1.0,) * 10**5),
  ("localize__scales", (1e6,)),
])
def test_numbers_that_take_any_time_or_memory_are_refused(field, value):
  """A stranger's config.json may hold them; no weight needs to fit them."""
  with pytest.raises(ValueError, match=rf"config\.{field.replace('__', '.')}=.{{1,200}}at most"):
    configs.from_mapping(mapping(**{field: value}))
