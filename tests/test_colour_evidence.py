"""Colour evidence: its histograms against loops, and maps that it repairs in a training of its own."""

import dataclasses
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from lgag_jax import config as configs
from lgag_jax.evaluation import thresholds_file
from lgag_jax.inference import colour_evidence, colour_histograms
from lgag_jax.inference.colour_evidence import BINS, ColourEvidence
from lgag_jax.inference.localize import Maps
from lgag_jax.mapping import predict
from lgag_jax.method.registry import method_of
from lgag_jax.runtime import files, sharding
from lgag_jax.training import loop, pseudo_masks
from tests.conftest import make_small_config


def evidence_of(rng, classes=1, **changes):
  fields = {
    "log_ratio": rng.normal(size=(classes, BINS**3)).astype(np.float32),
    "network_weight": np.ones(classes, np.float32),
    "image_weights": colour_evidence.no_image_weights(classes),
    "low": np.float32([-1, -1, 0]), "high": np.float32([1, 1, 1]), "bands": (1, 2, 3),
    "in_unit_range": True, **changes,
  }
  return ColourEvidence(**fields)


def fit(batch, config, prior=None):
  """The evidence of one batch, as evaluation has it of many images."""
  network = dataclasses.make_dataclass("Network", [("evidence", object)])(None)
  batches, folds = lambda: (each for each in [batch]), np.zeros(len(batch["label"]), int)
  given = colour_histograms.begin(batches(), config, [prior])
  mesh = sharding.make_mesh()
  counts = colour_histograms.count(given, network, None, batches(), config, mesh, folds)
  return colour_histograms.conclude(given, counts[0])


def slow_index(image, evidence):
  """The bin of each block of 4 x 4 pixels, one at a time."""
  height, width = image.shape[0] // 4, image.shape[1] // 4
  index = np.zeros((height, width), int)
  for i in range(height):
    for j in range(width):
      r, g, b = image[4 * i : 4 * i + 4, 4 * j : 4 * j + 4].reshape(-1, 3).mean(0) + 1 / 255
      features = np.array([np.log(r / g), np.log(b / g), (r + g + b) / 3])
      low, high = evidence.low[:3], evidence.high[:3]
      bins = ((features - low) / (high - low) * BINS).astype(int)
      a, b, c = np.clip(bins, 0, BINS - 1)
      index[i, j] = (a * BINS + b) * BINS + c
  return index


def blocks(rng, count, side=32):
  """Images whose colours are constant on blocks of 4 pixels: resizing them is a mean."""
  coarse = rng.uniform(0.05, 0.95, (count, side // 4, side // 4, 3))
  return coarse.repeat(4, axis=1).repeat(4, axis=2).astype(np.float32)


def test_colours_decide_on_images_for_the_classes_with_weights(rng):
  image, evidence = blocks(rng, 3), evidence_of(rng, classes=2)
  weights = evidence.image_weights
  given = rng.uniform(size=(3, 2)).astype(np.float32)
  decide = lambda: np.asarray(jax.jit(evidence.image_probabilities)(given, image))
  np.testing.assert_array_equal(decide(), given)
  weights[1] = rng.normal(size=weights.shape[1])
  evidence, found = dataclasses.replace(evidence), decide()
  np.testing.assert_array_equal(found[:, 0], given[:, 0])
  counts = [max(1, round(share * 64)) for share in colour_evidence.SHARES]
  for number in range(3):
    ordered = np.sort(evidence.log_ratio[1].ravel()[slow_index(image[number], evidence)].ravel())
    log_odds = ordered[[-count for count in counts]] @ weights[1, :-1] + weights[1, -1]
    assert found[number, 1] == pytest.approx(1 / (1 + np.exp(-log_odds)), rel=1e-4)


@pytest.mark.parametrize("weight", [(1.0, 1.0), (0.2, 1.0)])
def test_the_evidence_is_added_to_the_weighted_logit(rng, weight):
  image, evidence = blocks(rng, 2), evidence_of(rng, classes=2, network_weight=np.float32(weight))
  scores = np.full((2, 32, 32, 2), 0.3, np.float32)
  value = np.asarray(jax.jit(evidence)(jnp.asarray(scores), jnp.asarray(image)))
  index = np.stack([slow_index(one, evidence) for one in image])
  for c in range(2):
    ratio = evidence.log_ratio[c].ravel()[index]
    blurred = scipy.ndimage.gaussian_filter1d(ratio, 0.7, axis=1, mode="nearest", radius=3)
    blurred = scipy.ndimage.gaussian_filter1d(blurred, 0.7, axis=2, mode="nearest", radius=3)
    # At the centre of four cells the bilinear resize is known by hand.
    centre = value[:, 4:-4, 4:-4, c]
    logit = np.log(centre) - np.log1p(-centre) - weight[c] * np.log(0.3 / 0.7)
    coarse = logit.reshape(2, 6, 4, 6, 4).mean((2, 4))
    near = np.asarray(jax.image.resize(blurred, (2, 32, 32), "bilinear"))[:, 4:-4, 4:-4]
    np.testing.assert_allclose(coarse, near.reshape(2, 6, 4, 6, 4).mean((2, 4)), atol=2e-3)


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_scores_at_their_ends_stay_finite(rng, score):
  value = evidence_of(rng)(jnp.full((1, 32, 32, 1), score), jnp.zeros((1, 32, 32, 3)))
  assert np.isfinite(np.asarray(value)).all()
  assert 0 <= float(value.min()) <= float(value.max()) <= 1


@pytest.mark.parametrize("drawn", [False, True])
def test_counts_are_those_of_a_loop(rng, drawn):
  image, evidence = blocks(rng, 3), evidence_of(rng)
  scores = rng.uniform(0.1, 0.9, (3, 8, 8, 1)).repeat(4, axis=1).repeat(4, axis=2).astype(np.float32)
  label, weight = np.float32([[1], [0], [1]]), np.float32([1, 1, 0])
  arrays = map(jnp.asarray, (scores, image, label, weight))
  # Of each cell a half may be drawn as landslide, and a quarter as none.
  mask = rng.permutation([255] * 4 + [1] * 8 + [0] * 4).reshape(4, 4)
  mask = np.tile(mask, (3, 8, 8)).astype(np.uint8)
  value = np.asarray(colour_histograms._count(evidence, *arrays, jnp.asarray(mask) if drawn else None))
  expected = np.zeros((2, 1, BINS**3))
  for b in range(2):  # The third is padding.
    index = slow_index(image[b], evidence)
    for i in range(8):
      for j in range(8):
        share = float(scores[b, 4 * i, 4 * j, 0]) * label[b, 0]
        share = 0.5 + 0.25 * share if drawn else share
        expected[0, 0, index[i, j]] += share
        expected[1, 0, index[i, j]] += 1 - share
  np.testing.assert_allclose(value, expected, atol=1e-4)


def test_fitted_evidence_tells_the_colour_of_landslides(rng, monkeypatch, small_config):
  """A blurred map on positives is enough to find the colour that negatives have not."""
  config = configs.from_mapping(small_config)
  image = np.full((8, 64, 64, 3), (0.3, 0.45, 0.25), np.float32) + rng.normal(0, 0.01, (8, 64, 64, 3))
  scores = np.full((8, 64, 64, 1), 0.05, np.float32)
  image[::2, 8:24, 8:24] = (0.6, 0.4, 0.3)
  scores[::2, 4:32, 4:32] = 0.6
  batch = {
    "image": image.astype(np.float32), "label": np.float32([[1], [0]] * 4),
    "weight": np.ones(8, np.float32), "index": np.arange(8),
  }
  maps = Maps(
    probabilities=jnp.ones((8, 1)), seeds=jnp.zeros((8, 4, 4), int),
    scores={"anchor_guided": jnp.asarray(scores)},
  )
  monkeypatch.setattr(colour_histograms, "make_localize", lambda *_: lambda state, inputs: maps)
  evidence = fit(batch, config)
  value = np.asarray(evidence(jnp.asarray(scores), jnp.asarray(batch["image"])))[::2, ..., 0]
  assert value[:, 12:20, 12:20].min() > 0.9
  assert value[:, 40:].max() < 0.05
  assert value[:, 28:31, 28:31].mean() < 0.55  # Inside the blurred map, of the wrong colour.


def test_near_infrared_takes_the_place_of_blue(rng, small_config):
  small_config.data.channels, small_config.model.rgb_bands = 5, (3, 2, 1)
  small_config.model.nir_band = 4
  image = rng.uniform(0.1, 0.9, (2, 64, 64, 5)).astype(np.float32)
  batch = {"image": image, "weight": np.ones(2, np.float32)}
  config = configs.from_mapping(small_config)
  evidence = colour_histograms.begin((each for each in [batch]), config, [None])
  assert evidence.bands == (4, 3, 2)
  near_infrared, red = (image[0, :4, :4, band].mean() + 1 / 255 for band in (3, 2))
  features = colour_evidence.colour_features(image, evidence.bands, True, False)
  assert features[0, 0, 0, 0] == pytest.approx(np.log(near_infrared / red), abs=1e-5)


def test_bands_beyond_the_colours_have_histograms_of_their_own(rng):
  """The first part of a table is that of the colours; others follow in order, and all add up."""
  image = np.concatenate([blocks(rng, 2), blocks(rng, 2)], axis=-1)
  low, high = np.float32([-1, -1, 0, 0.1, 0.2]), np.float32([1, 1, 1, 0.9, 0.8])
  size = BINS**3 + 2 * BINS
  evidence = evidence_of(
    rng, log_ratio=rng.normal(size=(1, size)).astype(np.float32), low=low, high=high,
    bands=(1, 2, 3, 6, 4),
  )
  index = np.asarray(jax.jit(evidence.bin_index)(image))
  cells = image.reshape(2, 8, 4, 8, 4, 6).mean((2, 4))
  for number in range(2):
    np.testing.assert_array_equal(index[number, ..., 0], slow_index(image[number, ..., :3], evidence))
    for k, band in enumerate((5, 3)):
      bins = (cells[number, ..., band] - low[3 + k]) / (high[3 + k] - low[3 + k]) * BINS
      expected = BINS**3 + k * BINS + np.clip(bins.astype(int), 0, BINS - 1)
      assert (index[number, ..., 1 + k] == expected).mean() > 0.98  # Sums round differently.
  scores, weight = np.full((2, 32, 32, 1), 0.25, np.float32), np.ones(2, np.float32)
  label = np.float32([[1], [0]])
  counts = np.asarray(colour_histograms._count(evidence, scores, image, label, weight, None))
  assert counts.shape == (2, 1, size)
  colours, *others = colour_evidence.parts(evidence.bands)
  np.testing.assert_allclose(counts[:, 0, colours].sum(-1), [16, 112])  # Of 64 cells an image.
  for k, part in enumerate(others, 1):  # False alarms are those of the negative image.
    np.testing.assert_allclose(counts[:, 0, part].sum(-1), [16, 16])
    for kind, number in enumerate((0, 1)):
      expected = np.bincount(index[number, ..., k].ravel() - part.start, minlength=BINS) / 4
      np.testing.assert_allclose(counts[kind, 0, part], expected)
  flat = dataclasses.replace(evidence, log_ratio=np.ones((1, size), np.float32))
  value = np.asarray(flat(scores, image))
  np.testing.assert_allclose(np.log(value / (1 - value)), 3.0 + np.log(1 / 3), rtol=1e-4)
  concluded = colour_histograms.conclude(flat, np.stack([counts[0], counts[0]]))
  np.testing.assert_allclose(concluded.log_ratio, flat.log_ratio, atol=1e-5)


@pytest.mark.parametrize("paired", [False, True])
def test_the_range_and_the_prior_of_a_band(rng, small_config, paired):
  small_config.data.channels, small_config.model.evidence_bands = 5, (5,)
  small_config.data.before = "before" if paired else ""
  config = configs.from_mapping(small_config)
  image = rng.uniform(0.1, 0.9, (2, 64, 64, 10 if paired else 5)).astype(np.float32)
  image[..., 4] = rng.uniform(0.3, 0.5, (2, 64, 64))
  batch = {"image": image, "weight": np.ones(2, np.float32)}
  prior = types.SimpleNamespace(column=3, log_odds=lambda colours: 2 * colours[:, 3])
  evidence = colour_histograms.begin((each for each in [batch]), config, [prior])
  assert evidence.bands == (1, 2, 3, 5)
  assert 0.3 < evidence.low[3] < evidence.high[3] < 0.5  # Of pairs, that of the image after.
  table = evidence.log_ratio[0]
  assert not table[: BINS**3].any()
  centres = evidence.low[3] + (np.arange(BINS) + 0.5) / BINS * (evidence.high[3] - evidence.low[3])
  np.testing.assert_allclose(table[BINS**3 :], 0 if paired else 2 * centres, rtol=1e-5)


def test_evidence_of_bands_is_saved(rng, tmp_path, small_config):
  small_config.data.channels, small_config.model.evidence_bands = 5, (4, 5)
  config = configs.from_mapping(small_config)
  log_ratio = rng.normal(size=(1, BINS**3 + 2 * BINS)).astype(np.float32)
  evidence = evidence_of(
    rng, log_ratio=log_ratio, low=np.zeros(5, np.float32), high=np.ones(5, np.float32),
    bands=(1, 2, 3, 4, 5),
  )
  evidence.save(tmp_path)
  loaded = colour_evidence.load(tmp_path, config, evidence.digest())
  np.testing.assert_array_equal(loaded.log_ratio, log_ratio)
  swapped = dataclasses.replace(evidence, bands=(1, 2, 3, 5, 4))
  assert swapped.digest() != evidence.digest()
  small_config.model.evidence_bands = (4,)
  with pytest.raises(ValueError, match="is not what --mode=eval writes"):
    colour_evidence.load(tmp_path, configs.from_mapping(small_config), evidence.digest())


def test_evidence_of_earlier_releases_has_an_axis_for_each_colour(rng, tmp_path, small_config):
  evidence = evidence_of(rng)
  evidence.save(tmp_path)
  arrays = dict(np.load(tmp_path / colour_evidence.FILE))
  arrays["log_ratio"] = arrays["log_ratio"].reshape(1, BINS, BINS, BINS)
  np.savez(tmp_path / colour_evidence.FILE, **arrays)
  loaded = colour_evidence.load(tmp_path, configs.from_mapping(small_config), evidence.digest())
  np.testing.assert_array_equal(loaded.log_ratio, evidence.log_ratio)


def test_a_prior_is_the_evidence_of_a_map_that_says_nothing(rng, monkeypatch, small_config):
  """Its log odds are those of each pixel's colour; the even map adds none."""
  config = configs.from_mapping(small_config)
  image = rng.uniform(0.1, 0.9, (4, 64, 64, 3)).astype(np.float32)
  scores = jnp.full((4, 64, 64, 1), 0.5)
  batch = {
    "image": image, "label": np.ones((4, 1), np.float32), "weight": np.ones(4, np.float32),
    "index": np.arange(4),
  }
  networks = []

  def localize(network, *_):
    networks.append(network)
    return lambda state, inputs: Maps(
      probabilities=jnp.ones((4, 1)), seeds=jnp.zeros((4, 4, 4), int), scores={"anchor_guided": scores}
    )

  monkeypatch.setattr(colour_histograms, "make_localize", localize)
  prior = lambda colours: 4.0 * np.log((colours[:, 0] + 1 / 255) / (colours[:, 1] + 1 / 255))
  evidence = fit(batch, config, types.SimpleNamespace(column=0, log_odds=prior))
  for found in (evidence, networks[0].evidence):  # The map that is counted has the prior, too.
    cells = np.asarray(colour_evidence.cell_means(jnp.asarray(image))).reshape(-1, 3)
    value = found.log_ratio.reshape(-1)[np.asarray(found.bin_index(jnp.asarray(image))).ravel()]
    width = 4.0 * (found.high[0] - found.low[0]) / BINS
    inside = (value > np.quantile(value, 0.02)) & (value < np.quantile(value, 0.98))
    assert np.abs(value - prior(cells))[inside].max() <= 0.51 * width + 1e-3


@pytest.fixture(scope="module")
def trained(image_folder, tmp_path_factory):
  config = make_small_config(image_folder)
  config.model.method = "class_activation"
  config.refine.colour_evidence = True
  workdir = tmp_path_factory.mktemp("evidence") / "work"
  loop.train_and_evaluate(configs.from_mapping(config), workdir)
  return workdir


@pytest.mark.longest
def test_a_workdir_keeps_the_evidence_that_its_thresholds_belong_to(trained, image_folder, tmp_path):
  model = predict.load_model(trained)
  digest = files.read_json(trained / "thresholds.json")["colour_evidence"]
  assert model.network.evidence.digest() == digest
  assert method_of(model.config).rule(model.config) == "agreement"
  rows = predict.map_scenes(model, image_folder / "landslide", tmp_path / "maps").rows
  assert len(rows) == 20
  plain = dataclasses.replace(model, network=dataclasses.replace(model.network, evidence=None))
  without = predict.map_scenes(plain, image_folder / "landslide", tmp_path / "plain").rows
  assert rows != without
  assert pseudo_masks.write(trained).is_dir()


@pytest.mark.parametrize(("damage", "words"), [
  ("missing", "is missing"), ("other", "does not belong"), ("shape", "is not what"),
  ("weight", "does not belong"), ("weights", "is not what"),
  ("image weight", "does not belong"), ("image weights", "is not what"),
  ("nan", "is not what"), ("text", "cannot be read"),
])
def test_evidence_that_is_not_that_of_the_thresholds_is_refused(trained, tmp_path, damage, words):
  folder = tmp_path / "copy"
  shutil.copytree(trained, folder)
  path = folder / colour_evidence.FILE
  arrays = dict(np.load(path))
  if damage == "missing":
    path.unlink()
  elif damage == "text":
    path.write_text("nothing")
  elif damage in ("weight", "weights"):
    arrays["network_weight"] = np.full(1 if damage == "weight" else 2, 0.5, np.float32)
    np.savez(path, **arrays)
  elif damage in ("image weight", "image weights"):
    arrays["image_weights"] = np.full((1, 12 if damage == "image weight" else 3), 0.5, np.float32)
    np.savez(path, **arrays)
  else:
    arrays["log_ratio"] = {
      "other": arrays["log_ratio"] + 1, "shape": arrays["log_ratio"][:, :3],
      "nan": arrays["log_ratio"] * np.nan,
    }[damage]
    np.savez(path, **arrays)
  config = configs.load(folder / "config.json")
  network = dataclasses.make_dataclass("Network", [("evidence", object)])(None)
  with pytest.raises(ValueError, match=words):
    thresholds_file.with_evidence(network, folder, config)


@pytest.mark.parametrize(("changes", "used"), [
  ({}, True), ({"channels": 2, "rgb_bands": (1, 2, 3)}, False), ({"colour_evidence": False}, False),
])
def test_where_evidence_is_used(changes, used):
  draft = configs.config_dict()
  for name, value in changes.items():
    group = {"channels": "data", "rgb_bands": "model", "colour_evidence": "refine"}[name]
    draft[group][name] = value
  assert configs.from_mapping(draft).uses_colour_evidence == used
