"""Pseudo-masks, and the second stage that learns from them."""

import dataclasses
import json
import pathlib
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from lgag_jax import config as configs
from lgag_jax import methods
from lgag_jax.evaluation import thresholds_file
from lgag_jax.imagery import reading
from lgag_jax.inference import localize
from lgag_jax.inference.localize import Maps
from lgag_jax.inputs import pseudo, sources
from lgag_jax.inputs.pseudo import PseudoSource, mask_file
from lgag_jax.mapping import predict
from lgag_jax.method import registry
from lgag_jax.runtime import files
from lgag_jax.settings.maps import RULES
from lgag_jax.training import examples_record, loop, pseudo_masks, two_stages
from tests.conftest import make_small_config


@pytest.fixture(scope="module")
def both(image_folder, tmp_path_factory):
  """Both stages of a small training."""
  config = small(image_folder)
  workdir = tmp_path_factory.mktemp("stages")
  second = two_stages.train_both(config, workdir)
  return config, workdir / "first", second


def small(image_folder):
  config = make_small_config(image_folder)
  config.model.method = "class_activation"  # Quick to compile.
  config.train.epochs = 1
  config.train.evaluate_every = 0
  config.model.decoder_widths = (16, 8, 8)
  return configs.from_mapping(config)


def maps_of(scores):
  scores = jnp.asarray(scores, jnp.float32)
  return Maps(
    probabilities=jnp.ones((scores.shape[0], scores.shape[-1])), scores={"anchor_guided": scores},
    seeds=jnp.zeros((scores.shape[0], 1, 1), int),
  )


def test_masks_follow_scores_labels_and_the_band():
  config = configs.Config()  # A band of 0.05.
  row = np.array([0.2, 0.449, 0.46, 0.54, 0.56, 0.9])[None, None, :, None]
  scores = np.concatenate([row, row, np.full_like(row, 0.1)])
  labels = np.array([[1.0], [0.0], [1.0]], np.float32)
  found = pseudo_masks.pseudo_masks(maps_of(scores), labels, [0.5], config)
  unknown = reading.UNKNOWN
  np.testing.assert_array_equal(found[0, 0], [0, 0, unknown, unknown, 1, 1])
  np.testing.assert_array_equal(found[1, 0], [0] * 6)  # The label denies it all.
  # The label promises what no score shows: nothing is called background on the likelier half.
  np.testing.assert_array_equal(found[2, 0], [unknown] * 6)


def test_the_class_furthest_above_its_threshold_wins():
  data = dataclasses.replace(configs.DataConfig(), classes=("fall", "flow"))
  config = dataclasses.replace(configs.Config(), data=data)
  scores = np.array([[0.9, 0.7], [0.7, 0.6], [0.1, 0.2]])[None, None]
  found = pseudo_masks.pseudo_masks(maps_of(scores), np.ones((1, 2), np.float32), [0.6, 0.3], config)
  np.testing.assert_array_equal(found[0, 0], [2, 2, 0])
  only = pseudo_masks.pseudo_masks(maps_of(scores), np.array([[1.0, 0.0]]), [0.6, 0.3], config)
  assert set(np.unique(only)) <= {0, 1, reading.UNKNOWN}


def test_denied_classes_and_scores_that_are_no_numbers():
  data = dataclasses.replace(configs.DataConfig(), classes=("fall", "flow"))
  config = dataclasses.replace(configs.Config(), data=data)
  scores = np.array([[0.9, 0.7], [0.1, 0.6], [np.nan, 0.9]])[None, None]
  # A threshold within the band of 0: what is denied is not in doubt for that.
  found = pseudo_masks.pseudo_masks(maps_of(scores), np.array([[1.0, 0.0]]), [0.6, 0.03], config)
  np.testing.assert_array_equal(found[0, 0], [1, 0, reading.UNKNOWN])
  denied = pseudo_masks.pseudo_masks(maps_of(scores), np.zeros((1, 2)), [0.6, 0.03], config)
  assert not denied.any()


def test_every_training_image_gets_a_mask_that_its_label_allows(both):
  config, first, _ = both
  source = sources.open_source(config.data, "train")
  index = files.read_json(first / "pseudo" / "index.json")
  assert index["examples"] == len(source.ids) == len(list((first / "pseudo").glob("*/*.png")))
  for i, label in enumerate(source.labels[:, 0]):
    mask = np.asarray(Image.open(mask_file(first / "pseudo", i)))
    assert mask.shape == (64, 64)
    assert set(np.unique(mask)) <= ({0, 1, reading.UNKNOWN} if label else {0})


def test_the_second_stage_reads_those_masks_and_no_others(both):
  config, first, second = both
  kept = configs.load(second / "config.json")
  assert kept.model.method == "segmentation"
  source = sources.open_source(kept.data, "train")
  positive = int(np.argmax(source.labels[:, 0]))
  _, mask = source.read(positive)
  np.testing.assert_array_equal(mask, np.asarray(Image.open(mask_file(first / "pseudo", positive))))
  own = sources.open_source(kept.data, "validation")  # Judged on the data's own masks.
  np.testing.assert_array_equal(
    own.read(0)[1], sources.open_source(config.data, "validation").read(0)[1]
  )


@pytest.mark.longest
def test_it_is_evaluated_and_predicts_like_any_other(both, image_folder, tmp_path):
  _, _, second = both
  result = json.loads((second / "eval" / "validation.json").read_text())
  assert result["map"] == "segmentation"
  assert list(result["classes"]["landslide"]["maps"]) == ["segmentation"]
  assert set(result["classes"]["landslide"]["maps"]["segmentation"]["rules"]) == set(RULES)
  again = loop.evaluate_workdir(second)
  assert again["classes"] == result["classes"]
  rows = predict.map_scenes(second, image_folder / "landslide", tmp_path).rows
  assert len(rows) == 20


@pytest.mark.longest
def test_a_second_run_changes_nothing(both, image_folder):
  config, first, _ = both
  before = {p: p.stat().st_mtime_ns for p in (first / "pseudo").rglob("*")}
  two_stages.train_both(config, first.parent)
  assert {p: p.stat().st_mtime_ns for p in (first / "pseudo").rglob("*")} == before


@pytest.mark.longest
def test_masks_are_drawn_again_where_maps_are_made_otherwise(both, tmp_path):
  config, first, _ = both
  workdir = tmp_path / "first"
  shutil.copytree(first, workdir)
  old = files.read_json(workdir / "pseudo" / "index.json")
  changed = dataclasses.asdict(config)
  changed["refine"]["method"] = "none" if config.refine.method != "none" else "guided_filter"
  files.write_json(workdir / "config.json", changed)
  pseudo_masks.write(workdir)
  new = files.read_json(workdir / "pseudo" / "index.json")
  assert [name for name in old if new[name] != old[name]] == ["settings"]
  positive = int(np.argmax(sources.open_source(config.data, "train").labels[:, 0]))
  masks = [np.asarray(Image.open(mask_file(w / "pseudo", positive))) for w in (first, workdir)]
  assert (masks[0] != masks[1]).any()


def test_images_of_both_splits_are_told_of(image_folder, caplog):
  config = small(image_folder)
  data = dataclasses.replace(config.data, validation_split="train")
  loop._open_sources(dataclasses.replace(config, data=data))
  count = len(sources.open_source(data, "train").ids)
  assert f"{count} of {count} validation images are training images, too" in caplog.text
  caplog.clear()
  loop._open_sources(config)
  assert "training images, too" not in caplog.text


def test_masks_of_other_examples_are_refused(both, image_folder):
  config, first, _ = both
  data = dataclasses.replace(
    config.data, pseudo_masks=str(first / "pseudo"), validation_fraction=0.4
  )
  with pytest.raises(ValueError, match="other training examples"):
    sources.open_source(data, "train")


def test_masks_of_images_that_changed_since_are_refused(both, tmp_path):
  config, first, _ = both
  shutil.copytree(config.data.directory, tmp_path / "images")
  data = dataclasses.replace(
    config.data, directory=str(tmp_path / "images"), pseudo_masks=str(first / "pseudo")
  )
  source = sources.open_source(data, "train")  # The same images at another place.
  pixels = np.asarray(Image.open(tmp_path / "images" / source.ids[0]))
  Image.fromarray(pixels[::-1]).save(tmp_path / "images" / source.ids[0])
  with pytest.raises(ValueError, match="other pixels in images of the same names"):
    sources.open_source(data, "train")


def test_a_second_stage_goes_on_with_its_own_masks_only(both, tmp_path):
  config, first, second = both
  shutil.copytree(first / "pseudo", tmp_path / "pseudo")
  data = dataclasses.replace(config.data, pseudo_masks=str(tmp_path / "pseudo"))
  second_config = dataclasses.replace(configs.load(second / "config.json"), data=data)
  train = {"train": sources.open_source(data, "train")}
  examples_record.check(train, second, second_config)
  mask = mask_file(tmp_path / "pseudo", int(np.argmax(train["train"].labels[:, 0])))
  Image.fromarray(255 - np.asarray(Image.open(mask))).save(mask)
  with pytest.raises(ValueError, match="the train split has other masks"):
    examples_record.check(train, second, second_config)


def test_a_mask_is_unknown_where_its_image_holds_no_data(both):
  config, first, _ = both
  data = dataclasses.replace(config.data, pseudo_masks=str(first / "pseudo"))
  source = sources.open_source(config.data, "train")
  half = np.zeros((32, 16), bool)  # Of another size than the masks.
  half[:8, 4:] = True
  image = np.zeros((32, 16, 3), np.uint8)
  source.read_valid_pixels = lambda index: (image, half)
  seen, mask = PseudoSource(source, data).read(0)
  assert seen is image
  assert (mask[~np.repeat(np.repeat(half, 2, axis=0), 4, axis=1)] == reading.UNKNOWN).all()
  written = np.asarray(Image.open(mask_file(first / "pseudo", 0)))
  np.testing.assert_array_equal(mask[:16, 16:], written[:16, 16:])


def test_unfinished_masks_are_refused(both, tmp_path):
  config, _, _ = both
  data = dataclasses.replace(config.data, pseudo_masks=str(tmp_path))
  with pytest.raises(FileNotFoundError, match="--mode=pseudo"):
    sources.open_source(data, "train")


def test_masks_need_a_method_that_learns_from_them(both):
  config, first, _ = both
  data = dataclasses.replace(config.data, pseudo_masks=str(first / "pseudo"))
  with pytest.raises(ValueError, match="'class_activation' does not learn from masks"):
    registry.method_of(dataclasses.replace(config, data=data))


def test_stages_want_a_first_stage(both, tmp_path):
  config, first, _ = both
  with pytest.raises(ValueError, match="second stage already"):
    two_stages.train_both(two_stages.second_stage(config, first / "pseudo"), tmp_path)


def test_rules_are_those_that_calibration_knows(both):
  _, first, _ = both
  kept = files.read_json(first / "thresholds.json")
  assert all(set(rules) == set(RULES) for rules in kept["maps"].values())
  assert thresholds_file.chosen_thresholds(kept["maps"], configs.Config()).keys() == kept["maps"].keys()


@pytest.mark.parametrize("method", list(registry.OWN))
def test_every_first_stage_has_a_second(method):
  config = methods.apply(configs.config_dict(), method)
  second = two_stages.second_stage(configs.from_mapping(config), pathlib.Path("masks"))
  assert second.data.pseudo_masks == "masks"
  assert localize.map_names(second) == ("segmentation",)


def masks_of(folder, names, text, index=None):
  for name in names:
    path = pseudo.mask_file(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
  if index is not None:
    files.write_json(folder / pseudo.INDEX, index)


@pytest.mark.parametrize(("names", "index", "words"), [
  ([3], None, "0000003.png would be replaced"), ([], {"mine": 1}, "index.json is not what"),
  ([], [1], "index.json is not what"), ([0, 1, 3], {"examples": 2}, "0000003.png would be replaced"),
])
def test_pseudo_masks_replace_no_file_of_the_user(tmp_path, names, index, words):
  masks_of(tmp_path / "pseudo", names, "precious", index)
  before = sorted((p, p.read_text()) for p in tmp_path.rglob("*") if p.is_file())
  with pytest.raises(ValueError, match=f"{words}.*move .*pseudo away"):
    pseudo_masks._prepare(tmp_path / "pseudo", tmp_path / "new", {"examples": 5})
  assert sorted((p, p.read_text()) for p in tmp_path.rglob("*") if p.is_file()) == before


@pytest.mark.parametrize("step", range(5))
def test_older_pseudo_masks_stay_until_the_new_ones_are_whole(tmp_path, monkeypatch, step):
  folder, staged, index = tmp_path / "pseudo", tmp_path / "new", {"examples": 3, "step": 2}
  masks_of(folder, range(4), "old", {"examples": 4, "step": 1})
  (folder / "notes.txt").write_text("mine")
  masks_of(staged, [7], "of a killed run")
  calls, rename = iter(range(99)), pathlib.Path.rename

  def rename_or_die(path, target):
    if next(calls) == step:
      raise KeyboardInterrupt
    return rename(path, target)

  for name in ("killed", "whole"):
    pseudo_masks._prepare(folder, staged, index)
    assert not any(staged.iterdir())
    masks_of(staged, [0, 2], "new")  # The image of example 1 cannot be read any more.
    if name == "whole":
      pseudo_masks._publish(folder, staged, index)
    else:
      monkeypatch.setattr(pathlib.Path, "rename", rename_or_die)
      with pytest.raises(KeyboardInterrupt):
        pseudo_masks._publish(folder, staged, index)
      monkeypatch.undo()
      kept = files.read_json(folder / pseudo.INDEX)
      assert kept == {"examples": 4, **({"step": 1} if step < 2 else {"unfinished": True})}
      text = {path.read_text() for path in folder.rglob("*.png")}
      assert text == {"old"} if step < 3 else "new" in text
  left = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.*")}
  assert json.loads(left.pop("index.json")) == index
  assert left == {"0000/0000000.png": "new", "0000/0000002.png": "new", "notes.txt": "mine"}
