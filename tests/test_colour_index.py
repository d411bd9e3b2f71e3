"""The colour index: a literal reference of its parts, and rules found in images made for them."""

import types

import numpy as np
import pytest

from lgag_jax.config import Config, DataConfig, ModelConfig
from lgag_jax.evaluation import colour_index, metrics, ranking
from lgag_jax.evaluation.index_rule import ColourIndex
from lgag_jax.imagery.reading import UNKNOWN, ImageError


class Images:
  """A source in memory."""

  def __init__(self, images, masks, labels):
    self.ids, self._images, self._masks = list(range(len(images))), images, masks
    self.labels = np.array(labels, np.float32)[:, None]

  def read(self, i):
    if self._images[i] is None:
      raise ImageError(f"{i} is damaged.")
    return self._images[i], self._masks[i]


def draw(rng, positive, *, side=20, slide=6, colour=(150, 100, 80)):
  """A green image with brightness of its own, and in a positive one a square of another colour."""
  shade = rng.uniform(0.7, 1.2)
  image = np.clip(np.array([70, 110, 60]) * shade + rng.normal(0, 4, (side, side, 3)), 0, 255)
  mask = np.zeros((side, side), np.uint8)
  if positive:
    image[:slide, :slide] = np.array(colour) * shade + rng.normal(0, 4, (slide, slide, 3))
    mask[:slide, :slide] = 1
  return image.astype(np.uint8), mask


def source(rng, count=40, **options):
  pairs = [draw(rng, i % 2 == 0, **options) for i in range(count)]
  return Images(*zip(*pairs, strict=True), [float(i % 2 == 0) for i in range(count)])


def figures(train, validation, config):
  return colour_index.evaluate(colour_index.fit_images(train, config), validation, config)


def test_a_rule_is_found_that_the_labels_alone_tell(rng):
  train, validation = source(rng), source(rng, count=20)
  (result,) = figures(train, validation, Config())
  assert result["name"] in ("red over green", "excess green")
  assert result["label_free"]["iou"] > 0.9
  assert result["oracle"]["iou"] >= result["label_free"]["iou"] - 0.01
  # A slide covers 9 % of an image: labels allow no share above.
  assert result["share"] <= 0.08
  assert result["rule"].startswith(result["name"])


def test_no_mask_is_seen_by_the_rule(rng):
  train, validation = source(rng), source(rng, count=20)
  blind = Images(train._images, [np.full((20, 20), UNKNOWN, np.uint8)] * 40, train.labels[:, 0])
  seen, unseen = (figures(t, validation, Config()) for t in (train, blind))
  assert seen == unseen


def test_a_dark_landslide_needs_the_other_sign(rng):
  (result,) = figures(
    source(rng, colour=(35, 55, 30)), source(rng, count=20, colour=(35, 55, 30)), Config()
  )
  assert (result["name"], result["sign"]) == ("brightness", -1)
  assert "below" in result["rule"]
  assert result["label_free"]["iou"] > 0.6


def test_figures_equal_a_loop_over_pixels(rng):
  validation = source(rng, count=7)
  validation._masks[0][10:, :3] = UNKNOWN
  rule = ColourIndex("red over green", 1, 0.1, 0.05)
  result = colour_index._figures(rule, validation, Config(), 0)
  counts = dict.fromkeys(("true_positive", "false_positive", "false_negative", "true_negative"), 0)
  for image, mask in zip(validation._images, validation._masks, strict=True):
    r, g = image[..., 0] / 255.0, image[..., 1] / 255.0
    above = np.log((r + 1 / 255) / (g + 1 / 255)) >= 0.1
    mapped = above if above.mean() >= 0.05 else np.zeros_like(above)
    for a, m in zip(mapped.ravel(), mask.ravel(), strict=True):
      if m != UNKNOWN:
        name = ("false" if a != (m == 1) else "true") + ("_positive" if a else "_negative")
        counts[name] += 1
  assert result["label_free"] == {"threshold": 0.1, **metrics.rates(counts)}


def test_the_oracle_tries_every_threshold(rng):
  """The best of the rules with the same index and share, each evaluated as a rule."""
  validation = source(rng, count=5, colour=(95, 105, 65))
  rule = ColourIndex("red over green", 1, 0.1, 0.05)
  oracle = colour_index._figures(rule, validation, Config(), 0)["oracle"]
  tried = [
    colour_index._figures(ColourIndex("red over green", 1, t, 0.05), validation, Config(), 0)
    for t in np.linspace(-0.5, 0.5, 101)
  ]
  best = max(one["label_free"]["iou"] for one in tried)
  assert oracle["iou"] == pytest.approx(best, abs=0.02)
  assert oracle["iou"] >= best - 0.005


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_labels_of_one_kind_fit_nothing(rng, label):
  images = source(rng, count=6)
  images.labels[:] = label
  assert figures(images, images, Config()) == [None]


def test_two_bands_have_no_colours(rng):
  config = Config(data=DataConfig(channels=2))
  assert figures(types.SimpleNamespace(), types.SimpleNamespace(), config) == [None]


def test_a_damaged_image_is_left_out(rng):
  train = source(rng)
  train._images = list(train._images)
  train._images[3] = None
  (result,) = figures(train, source(rng, count=10), Config())
  assert result["label_free"]["iou"] > 0.9


@pytest.mark.parametrize(("dtype", "scale", "max_value"), [
  (np.uint16, 257, 0.0), (np.uint16, 4, 1020.0), (np.float32, 1 / 255, 0.0),
])
def test_other_types_give_the_same_map(rng, dtype, scale, max_value):
  images = source(rng)
  other = Images(
    [np.asarray(i * np.float64(scale), dtype) for i in images._images], images._masks,
    images.labels[:, 0],
  )
  config = Config(data=DataConfig(max_value=max_value))
  (result,) = figures(other, other, config)
  assert result["label_free"]["iou"] > 0.9


def infrared(rng, positive, shade):
  """Four bands that only near infrared tells apart: blue, green and red are the same in a landslide."""
  colours = np.array([60, 110, 70, 220], float)
  image, mask = np.ones((20, 20, 4)) * colours, np.zeros((20, 20), np.uint8)
  if positive:
    image[:6, :6, 3], mask[:6, :6] = 90, 1
  return image * shade + rng.normal(0, 3, image.shape), mask


@pytest.mark.parametrize("statistics", [False, True])
def test_near_infrared_is_used_where_it_is_named(rng, statistics):
  pairs = [infrared(rng, i % 2 == 0, rng.uniform(0.6, 1.1)) for i in range(40)]
  pixels, masks = zip(*pairs, strict=True)
  labels = [float(i % 2 == 0) for i in range(40)]
  pixels = np.stack(pixels) * (30 if statistics else 1)  # Reflectances of 16 bits.
  images = Images(pixels.astype(np.uint16 if statistics else np.uint8), masks, labels)
  known = {}
  if statistics:
    known = {"normalise": "given", "mean": pixels.mean((0, 1, 2)), "std": pixels.std((0, 1, 2))}
    known |= {name: tuple(known[name].tolist()) for name in ("mean", "std")}
  data, model = DataConfig(channels=4, **known), {"rgb_bands": (3, 2, 1)}
  without, named = (
    figures(images, images, Config(data=data, model=ModelConfig(**model, nir_band=band)))[0]
    for band in (0, 4)
  )
  assert without["label_free"]["iou"] < 0.3
  assert (named["name"], named["sign"]) in (("NDVI", -1), ("near infrared over green", -1))
  assert named["label_free"]["iou"] > 0.9


@pytest.mark.parametrize("normalise", ["trunk", "given"])
def test_a_band_beyond_the_colours_may_be_the_index(normalise):
  """The fourth band of these images, such as the slope, is all that landslides differ in."""
  rng = np.random.default_rng(0)
  pairs = [infrared(rng, i % 2 == 0, rng.uniform(0.6, 1.1)) for i in range(40)]
  pixels, masks = zip(*pairs, strict=True)
  pixels = np.stack(pixels).round().astype(np.uint8)
  labels = [float(i % 2 == 0) for i in range(40)]
  known = {"normalise": normalise}
  if normalise == "given":
    known |= {"mean": pixels.mean((0, 1, 2)), "std": pixels.std((0, 1, 2))}
    known |= {name: tuple(known[name].tolist()) for name in ("mean", "std")}
  images = Images(pixels, masks, labels)
  config = Config(data=DataConfig(channels=4, **known), model=ModelConfig(evidence_bands=(4,)))
  (rule,) = colour_index.fit_images(images, config)
  assert (rule.name, rule.sign, rule.column) == ("band 4", -1, 3)
  scale = 255 if normalise == "trunk" else known["std"][3]
  offset = 0 if normalise == "trunk" else known["mean"][3]
  assert 99 < -rule.threshold * scale + offset < 132  # Between 90 and 220 times the brightness.
  (result,) = colour_index.evaluate([rule], images, config)
  assert result["label_free"]["iou"] > 0.9 and result["oracle"]["iou"] > 0.9
  assert result["rule"].startswith("band 4 below")


@pytest.mark.parametrize(("bands", "channels"), [
  ((3,), 4), ((5,), 4), ((4, 4), 4), ((0,), 4), ((8,), 9), ((1,), 2),
])
def test_evidence_bands_must_be_others(bands, channels):
  with pytest.raises(ValueError, match=r"model\.evidence_bands"):
    Config(
      data=DataConfig(channels=channels),
      model=ModelConfig(nir_band=8 if channels == 9 else 0, evidence_bands=bands))


@pytest.mark.parametrize(("nir", "channels"), [(2, 4), (5, 4), (-1, 4), (4, 3)])
def test_a_near_infrared_band_must_be_another_one(nir, channels):
  with pytest.raises(ValueError, match=r"model\.nir_band"):
    Config(data=DataConfig(channels=channels), model=ModelConfig(nir_band=nir))


def test_the_auc_error_is_that_of_hanley_and_mcneil():
  # Worked by hand: AUC 0.9, 100 of each kind: Q1 = 0.8182, Q2 = 0.8526.
  expected = np.sqrt((0.09 + 99 * (0.9 / 1.1 - 0.81) + 99 * (1.62 / 1.9 - 0.81)) / 1e4)
  assert ranking.auc_error(0.9, 100, 100) == pytest.approx(expected)
  assert ranking.auc_error(1.0, 10, 10) == 0.0


def test_the_weight_is_what_labels_tell_beyond_chance(rng):
  told = source(rng)
  (rule,) = colour_index.fit_images(told, Config())
  number = colour_index.SHARES.index(rule.share)
  images = [image.reshape(-1, 3) / 255 for image in told._images]
  levels = [colour_index.share_levels(image)[rule.name, rule.sign][number] for image in images]
  # Every label is told, so one standard deviation is worth one unit of log odds.
  assert rule.weight * np.std(levels) == pytest.approx(1.0, rel=1e-5)
  other = np.float32([[1.0, 0.5, 0.3]])
  assert rule.log_odds(other)[0] == pytest.approx(
    rule.weight * (rule.scores(other[None])[0, 0] - rule.threshold), rel=1e-5
  )
  untold = source(rng)
  untold.labels[:, 0] = rng.permutation(untold.labels[:, 0])
  (rule,) = colour_index.fit_images(untold, Config())
  assert rule is None or rule.weight * np.std(levels) < 0.5


@pytest.mark.parametrize("negatives", [1, 2])
def test_hardly_any_negatives_tell_nothing(rng, negatives):
  """With one or two of a kind some index always separates them: chance does as well."""
  images = source(rng, count=30, slide=0)
  images.labels[:] = 1.0
  images.labels[:negatives] = 0.0
  (rule,) = colour_index.fit_images(images, Config())
  assert rule.weight == 0.0
