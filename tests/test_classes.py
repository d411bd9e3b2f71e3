"""Several classes: one meaning of a pixel's class, in evaluation and prediction; folders of several."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from data.synthetic_landslides import drawing, paint
from data.synthetic_landslides import synthetic_landslides_dataset_builder as builders
from lgag_jax.config import Config, DataConfig
from lgag_jax.evaluation import measure, metrics
from lgag_jax.imagery.reading import UNKNOWN
from lgag_jax.inference import exclusive_classes
from lgag_jax.inference.localize import Maps
from lgag_jax.inputs import sources


def slow_map(scores, thresholds):
  result = np.zeros(scores.shape[:-1], np.uint8)
  for place in np.ndindex(result.shape):
    above = [
      (s - t, -k) for k, (s, t) in enumerate(zip(scores[place], thresholds, strict=True))
      if s >= t and s > 0
    ]
    result[place] = 1 - max(above)[1] if above else 0
  return result


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_class_furthest_above_its_threshold_is_drawn(rng, count):
  scores = rng.integers(0, 9, (12, 10, count)).astype(np.float32) / 8
  levels = rng.integers(0, 7, count).astype(np.float32) / 8
  expected = slow_map(scores, levels)
  np.testing.assert_array_equal(exclusive_classes.drawn(scores, levels), expected)
  for array in (scores, jnp.asarray(scores)):
    kept = exclusive_classes.exclusive(array, levels)
    assert ((np.asarray(kept) > 0).sum(-1) <= 1).all()
    np.testing.assert_array_equal(exclusive_classes.drawn(np.asarray(kept), levels), expected)


def test_evaluation_counts_the_pixels_that_prediction_draws(rng):
  data = DataConfig(classes=("a", "b", "c"))
  config = Config(data=data)
  name, levels = "anchor_guided", np.float32([0.5, 0.25, 0.75])
  scores = rng.integers(0, 33, (2, 16, 16, 3)).astype(np.float32) / 32
  mask = rng.choice(np.uint8([0, 1, 2, 3, UNKNOWN]), (2, 16, 16))
  found = np.float32([[0.9, 0.8, 0.7], [0.9, 0.2, 0.6]])  # The second image's gate is shut for b.
  maps = Maps(
    probabilities=jnp.asarray(found),
    scores=dict.fromkeys((name, "class_activation"), jnp.asarray(scores)),
    seeds=jnp.zeros((2, 1, 1), int),
  )
  all_levels = dict.fromkeys(maps.scores, levels)
  counted = measure._histograms(maps, jnp.asarray(mask), all_levels, config)[name]
  drawn = exclusive_classes.drawn(scores * (found > 0.5)[:, None, None], levels)
  for c in range(3):
    positive, negative, unknown = np.moveaxis(np.asarray(counted)[:, c], 1, 0)
    ours = metrics.confusion(positive.sum(0), negative.sum(0), float(levels[c]))
    mapped, truth, known = drawn == c + 1, mask == c + 1, mask != UNKNOWN
    assert ours["true_positive"] == np.sum(mapped & truth)
    assert ours["false_positive"] == np.sum(mapped & ~truth & known)
    assert ours["false_negative"] == np.sum(~mapped & truth)
    assert unknown.sum() == np.sum(~known)


def test_three_classes_are_drawn_and_built_as_their_labels_say(tmp_path):
  config = builders.Config(name="few", size=64, train=8, validation=1, classes=True)
  builder = builders.Builder(data_dir=tmp_path, config=config)
  builder.download_and_prepare(file_format="array_record")
  assert builder.info.features["label"].names == [*paint.CLASSES]
  built = {row["id"].decode(): row for row in builder.as_data_source("train")}
  assert len({config.present(seed) for seed in config.seeds("train")}) == 8  # Every mixture.
  for seed in config.seeds("train"):
    present, row = config.present(seed), built[f"train_{seed:06d}"]
    image, mask = drawing.draw_classes(seed, present, size=64)
    np.testing.assert_array_equal(row["image"], image)
    np.testing.assert_array_equal(row["mask"][..., 0], mask)
    assert {paint.CLASSES[k] for k in row["label"]} == {*present}
    pixels = np.bincount(mask.ravel(), minlength=4)[1:]
    assert len(pixels) == 3
    for name, count in zip(paint.CLASSES, pixels, strict=True):
      assert count >= 200 if name in present else count == 0


def test_class_masks_are_where_the_paint_is():
  """What a class adds to a scene changes the pixels of its mask, and few that are far from it."""
  shown = {}
  for bare in (False, True):
    plan = drawing.make_plan(0, 128, 128, landslide=False, bare=bare, river=False)
    shown[bare] = drawing.render(plan, 0, 0, 128, 128, classes=True)
  changed = np.abs(shown[True][0].astype(int) - shown[False][0]).max(-1) > 12
  mask = shown[True][1] == 1 + paint.CLASSES.index("bare")
  assert mask.any()
  assert changed[mask].mean() > 0.6
  assert changed[~mask].mean() < 0.15
  plan = drawing.make_plan(4, 128, 128, landslide=True, bare=True, river=True)
  binary, several = (drawing.render(plan, 0, 0, 128, 128, classes=c)[1] for c in (False, True))
  np.testing.assert_array_equal(binary, several == 1)
  y, x = (np.clip(np.arange(128), 0, 127),) * 2
  wet = np.array([[plan.ground.at(plan.ground.river, (i, j)) for j in x] for i in y])
  assert (several == 3)[wet < 0.4 * plan.ground.river_width].mean() > 0.6  # But where a landslide lies.
  assert not (several == 3)[wet > 3.5 * plan.ground.river_width].any()


def test_folders_of_several_classes_and_of_images_that_show_two(tmp_path):
  for folder, count in (("quiet", 3), ("fall", 2), ("flow", 1), ("fall+flow", 2), ("other+fall", 1)):
    (tmp_path / folder).mkdir()
    for i in range(count):
      Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / folder / f"{folder}_{i}.png")
  (tmp_path / "masks").mkdir()
  mask = np.zeros((8, 8), np.uint8)
  mask[2:4], mask[5:] = 1, 2
  Image.fromarray(mask).save(tmp_path / "masks" / "fall+flow_0.png")
  config = DataConfig(
    directory=str(tmp_path), classes=("fall", "flow"), background="quiet", validation_fraction=0.0
  )
  source = sources.make_source(config, "train")
  labels = dict(zip(source.ids, source.labels.tolist(), strict=True))
  assert len(labels) == 8  # "other" is no class.
  assert all(
    label == [float("fall" in name), float("flow" in name)] for name, label in labels.items()
  )
  np.testing.assert_array_equal(source.read(source.ids.index("fall+flow/fall+flow_0.png"))[1], mask)
