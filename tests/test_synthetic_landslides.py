"""The synthetic landslides: exact, reproducible, and not recognisable by colour alone."""

import functools
import importlib.util
import pathlib

import numpy as np
import pytest
import scipy.ndimage
import scipy.optimize
import scipy.stats

from data.synthetic_landslides import drawing, shapes
from data.synthetic_landslides import synthetic_landslides_dataset_builder as builders

_PATCHES = 160  # Half of them to fit, half to judge the colour-only classifier.


@functools.cache
def patches():
  """Draws images, masks and labels once for all tests; even seeds hold a landslide."""
  drawn = [drawing.draw_patch(seed, landslide=seed % 2 == 0) for seed in range(_PATCHES)]
  images, masks = (np.stack(part) for part in zip(*drawn, strict=True))
  return images, masks, np.arange(_PATCHES) % 2 == 0


def area_under_curve(scores, labels) -> float:
  """Returns the probability that a positive scores above a negative."""
  ranks, positives = scipy.stats.rankdata(scores), labels.sum()
  surplus = ranks[labels].sum() - positives * (positives + 1) / 2
  return surplus / (positives * (len(labels) - positives))


def colour_histogram(image):
  """Returns histograms of colour: 16 bins per band, and 512 bins for all three bands."""
  bands = [np.bincount(image[..., band].ravel() // 16, minlength=16) for band in range(3)]
  coarse = image.astype(int) // 32
  cube = np.bincount((coarse @ [64, 8, 1]).ravel(), minlength=512)
  return np.sqrt(np.concatenate([*bands, cube]) / cube.sum())


def fit_logistic(features, labels, weight_decay):
  """Returns the weights of a ridge-penalised logistic regression."""
  sign = 2.0 * labels - 1

  def loss(weights):
    margin = sign * (features @ weights[:-1] + weights[-1])
    pull = sign / (1 + np.exp(margin)) / len(labels)
    gradient = np.append(weight_decay * weights[:-1] - features.T @ pull, -pull.sum())
    penalty = weight_decay * weights[:-1] @ weights[:-1] / 2
    return np.logaddexp(0, -margin).mean() + penalty, gradient

  start = np.zeros(features.shape[1] + 1)
  return scipy.optimize.minimize(loss, start, jac=True, method="L-BFGS-B").x[:-1]


@pytest.mark.parametrize("landslide", [True, False])
def test_a_seed_determines_the_patch_whatever_the_global_state(landslide):
  first = drawing.draw_patch(5, size=96, landslide=landslide)
  np.random.seed(1)
  drawing.draw_patch(6, size=96, landslide=landslide)
  second = drawing.draw_patch(5, size=96, landslide=landslide)
  for a, b in zip(first, second, strict=True):
    np.testing.assert_array_equal(a, b)
  other = drawing.draw_patch(6, size=96, landslide=landslide)[0]
  assert np.mean(other != first[0]) > 0.9


@pytest.mark.parametrize("size", [48, 64, 100, 256])
def test_sizes_and_types(size):
  for landslide in (True, False):
    image, mask = drawing.draw_patch(11, size=size, landslide=landslide)
    assert image.shape == (size, size, 3) and image.dtype == np.uint8
    assert mask.shape == (size, size) and mask.dtype == np.uint8
    assert (mask.sum() >= 200) if landslide else not mask.any()


def test_a_patch_too_small_is_refused():
  with pytest.raises(ValueError, match="size=32"):
    drawing.draw_patch(0, size=32, landslide=True)


@pytest.mark.longest
def test_masks_are_exact():
  _, masks, labels = patches()
  assert set(np.unique(masks)) == {0, 1}
  area = masks.sum((1, 2))
  assert area[labels].min() >= 200
  assert area[~labels].max() == 0
  share = area[labels] / masks[0].size
  assert share.max() < 0.5, "a patch is never mostly landslide"
  assert np.percentile(share, 90) > 4 * np.percentile(share, 10), "small and large ones"


def test_before_and_after_differ_by_the_landslides_alone():
  for seed in range(8):
    before = drawing.make_plan(seed, 128, 128, landslide=False)
    after = drawing.make_plan(seed, 128, 128, landslide=True)
    np.testing.assert_array_equal(before.ground.height, after.ground.height)
    assert before.style.biome == after.style.biome
    assert [bare.kind for bare in before.bares] == [bare.kind for bare in after.bares]
    assert not before.slides
    assert after.slides
    first, _ = drawing.render(before, 0, 0, 128, 128)
    second, mask = drawing.render(after, 0, 0, 128, 128)
    far = scipy.ndimage.distance_transform_edt(mask == 0) > 24  # Beyond its shadow and blur.
    np.testing.assert_array_equal(first[far], second[far])


def test_landslides_lie_on_steep_ground_and_run_downhill():
  steeper, drops, bare_steeper, fall_line = [], [], [], []
  for seed in range(24):
    ground = drawing.make_plan(seed, 256, 256, landslide=True).ground
    inside = (ground.rows >= 0) & (ground.rows < 256)
    slope = ground.slope[np.ix_(inside, (ground.cols >= 0) & (ground.cols < 256))].mean()
    for slide in drawing.make_plan(seed, 256, 256, landslide=True).slides:
      steeper.append(np.mean([ground.at(ground.slope, p) for p in slide.path]) / slope)
      drop = ground.at(ground.height, slide.path[0]) - ground.at(ground.height, slide.path[-1])
      drops.append(drop / slide.length)
      heading = np.diff(slide.path, axis=0) / np.hypot(*np.diff(slide.path, axis=0).T)[:, None]
      down = np.stack([ground.at(ground.descent, p) for p in slide.path[:-1]])
      fall_line.append((heading * down).sum(1).mean())
    for bare in drawing.make_plan(seed, 256, 256, landslide=False).bares:
      bare_steeper.append(ground.at(ground.slope, bare.centre) / slope)
  assert np.median(steeper) > 1.2
  assert np.mean(np.array(steeper) > 1) > 0.85
  assert np.median(bare_steeper) < 0.9
  assert np.mean(np.array(drops) > 0) > 0.97
  assert np.median(drops) > 0.25
  assert np.median(fall_line) > 0.9


def test_flow_coordinates_of_a_straight_slide():
  path = np.stack([np.arange(0, 60, 3.0), np.full(20, 10.0)], -1).astype(np.float32)
  slide = shapes.Slide(path, np.full(20, 5, np.float32), depth=1, tone=0, shift=(0, 0))
  y, x = np.float32([[0], [10], [31]]), np.float32([[10, 14]])
  along, across = shapes.flow_coordinates(slide, y, x)
  np.testing.assert_allclose(along, np.broadcast_to(y, (3, 2)), atol=1e-4)
  np.testing.assert_allclose(np.abs(across), np.broadcast_to(np.abs(x - 10), (3, 2)), atol=1e-4)


def test_colour_alone_does_not_give_the_label():
  images, _, labels = patches()
  features = np.stack([colour_histogram(image) for image in images])
  fit, judge = slice(0, _PATCHES // 2), slice(_PATCHES // 2, None)
  features = (features - features[fit].mean(0)) / np.maximum(features[fit].std(0), 1e-3)
  best = max(
    area_under_curve(features[judge] @ fit_logistic(features[fit], labels[fit], w), labels[judge])
    for w in (0.1, 1.0, 10.0)
  )
  assert best < 0.8
  small = images[:, ::4, ::4].astype(np.float32)
  red, green, blue = np.moveaxis(small, -1, 0)
  for value in (red, green, blue, red - green, red - blue, small.sum(-1)):
    for threshold in np.percentile(value, [5, 20, 40, 60, 80, 90, 95, 98]):
      area = area_under_curve((value > threshold).mean((1, 2)), labels)
      assert 0.3 < area < 0.7


def test_landslides_and_bare_patches_share_their_colours():
  """On one hillside, colour hardly separates landslide pixels from a bare patch."""
  areas = []
  for seed in range(0, 40, 2):
    after, mask = drawing.draw_patch(seed, landslide=True)
    before, _ = drawing.draw_patch(seed, landslide=False)
    bare = np.zeros(mask.shape, bool)
    plan = drawing.make_plan(seed, 256, 256, landslide=False)
    for patch in plan.bares:
      y, x = np.ogrid[:256, :256]
      bare |= np.hypot(y - patch.centre[0], x - patch.centre[1]) < 0.5 * min(patch.size)
    if not bare.any():
      continue
    slid, other = after[mask > 0].astype(float), before[bare].astype(float)
    direction = np.linalg.lstsq(
      np.cov(np.concatenate([slid, other]).T), slid.mean(0) - other.mean(0), rcond=None
    )[0]
    values = np.concatenate([slid, other]) @ direction
    areas.append(area_under_curve(values, np.arange(len(values)) < len(slid)))
  # Even the best plane in colour space, fitted to each pair of images by itself.
  assert np.median(areas) < 0.85


def test_a_scene_is_the_same_however_it_is_cut():
  plan = drawing.make_plan(4, 300, 200, landslide=True)
  whole = drawing.render(plan, 0, 0, 300, 200)
  part = drawing.render(plan, 130, 70, 90, 110)
  difference = np.abs(whole[0][130:220, 70:180].astype(int) - part[0])
  assert difference.max() <= 1 and np.mean(difference > 0) < 1e-3
  assert np.mean(whole[1][130:220, 70:180] != part[1]) < 1e-4


def test_draw_scene_of_several_windows():
  image, mask = drawing.draw_scene(2, 520, 600)
  assert image.shape == (520, 600, 3)
  assert 0.003 < mask.mean() < 0.4
  rows = image.astype(int).mean(-1)
  seam = np.abs(rows[512] - rows[511]).mean()
  usual = np.abs(np.diff(rows[490:530], axis=0)).mean()
  assert seam < 1.5 * usual


def test_splits_are_disjoint_and_balanced():
  for config in builders.Builder.BUILDER_CONFIGS:
    train, validation = set(config.seeds("train")), set(config.seeds("validation"))
    assert len(train) == config.train and len(validation) == config.validation
    assert not train & validation
    for seeds in (train, validation):
      assert 2 * sum(seed % 2 == 0 for seed in seeds) == len(seeds)


def _by_path(name: str):
  path = pathlib.Path(builders.__file__)
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_builder_builds_and_reads(tmp_path):
  builder = _by_path("loaded_by_path").Builder(data_dir=tmp_path, config="tiny")
  builder.download_and_prepare(file_format="array_record")
  assert builder.info.splits["train"].num_examples == 24
  assert "synthetic" in builder.info.description.lower()
  assert "lgag" in builder.info.citation
  examples = {e["id"].decode(): e for e in builder.as_data_source("validation")}
  assert len(examples) == 16
  for number in range(16):
    example = examples[f"validation_{number:06d}"]
    seed = builders.FIRST_SEED["validation"] + number
    image, mask = drawing.draw_patch(seed, size=64, landslide=bool(example["label"]))
    np.testing.assert_array_equal(example["image"], image)
    np.testing.assert_array_equal(example["mask"], mask[..., None])
    assert example["label"] == (number % 2 == 0) == mask.any()
