"""The head: side projections against a literal resize, and what each method's outputs hold."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgag_jax.config import BankConfig, Config, ModelConfig
from lgag_jax.method import memory_bank, sol
from lgag_jax.method.classifiers import pool
from lgag_jax.method.head import Head
from lgag_jax.method.registry import LGAG, LGAGNET, OWN, SOL

CHANNELS = (3, 5, 6, 7)
MODEL = ModelConfig(side_widths=(4, 4, 8, 8), head_width=8)
WIDTH = {"taps": sum(CHANNELS[:3]), "sides": 24}  # D.


def torch_bilinear(x, size):
  """Bilinear resize of [h, w, E] with align_corners=False and no antialiasing, cell by cell."""
  rows, cols = x.shape[:2]
  out = np.zeros((*size, x.shape[2]))
  for i in range(size[0]):
    for j in range(size[1]):
      y = min(max((i + 0.5) * rows / size[0] - 0.5, 0.0), rows - 1.0)
      z = min(max((j + 0.5) * cols / size[1] - 0.5, 0.0), cols - 1.0)
      top, left = math.floor(y), math.floor(z)
      bottom, right = min(top + 1, rows - 1), min(left + 1, cols - 1)
      a, b = y - top, z - left
      out[i, j] = (
        (1 - a) * (1 - b) * x[top, left] + (1 - a) * b * x[top, right]
        + a * (1 - b) * x[bottom, left] + a * b * x[bottom, right]
      )
  return out


def make_taps(rng, sizes, batch=1):
  return tuple(
    jnp.array(rng.normal(size=(batch, *size, width)), jnp.float32)
    for size, width in zip(sizes, CHANNELS, strict=True)
  )


def numbers_for(module, *args):
  """Random parameters of a module's shapes, made without compiling its init."""
  rng = np.random.default_rng(7)
  shapes = jax.eval_shape(module.init, jax.random.key(0), *args)
  return jax.tree.map(lambda s: jnp.array(rng.normal(0, 0.4, s.shape), jnp.float32), shapes)


class Static:
  """A module on a grid that is no traced argument."""

  def __init__(self, module, size):
    self.init = lambda key, taps: module.init(key, taps, size)
    self.apply = lambda variables, taps: module.apply(variables, taps, size)


def at_strides(height, width):
  return [(height // s, width // s) for s in (1, 2, 4, 4)]


GRIDS = [
  (at_strides(64, 64), (16, 16)), (at_strides(64, 64), (32, 32)),
  (at_strides(32, 32), (32, 32)), (at_strides(32, 48), (8, 12)), (at_strides(32, 48), (16, 24)),
  ([(15, 21), (9, 9), (5, 7), (5, 7)], (5, 7)),  # No factor is even, one is no whole number.
  ([(8, 9), (4, 6), (4, 6), (2, 3)], (2, 3)),  # Even along rows, odd along columns.
]


@pytest.mark.parametrize(("sizes", "size"), GRIDS)
def test_side_projections_are_project_normalise_resize(sizes, size):
  rng = np.random.default_rng(0)
  taps = make_taps(rng, sizes)
  module = sol.SideProjections((4, 2, 3, 5), 1e-5, jnp.float32)
  variables = numbers_for(Static(module, size), taps)
  value = jax.jit(Static(module, size).apply)(variables, taps)
  expected = []
  for i, tap in enumerate(taps, start=1):
    assert set(variables["params"][f"side{i}"]) == {"kernel"}  # No bias.
    side = np.asarray(tap[0], np.float64) @ np.asarray(variables["params"][f"side{i}"]["kernel"])
    side = side / np.sqrt(np.sum(side**2, axis=-1, keepdims=True))
    expected.append(torch_bilinear(side, size))
  assert value.shape == (1, *size, 14)
  np.testing.assert_allclose(value[0], np.concatenate(expected, axis=-1), atol=1e-4)


@pytest.mark.parametrize("fractions", [(0.01,), (0.08,), (1.0,), (0.3, 0.08), (0.02, 0.08, 0.3)])
def test_top_pooling_is_the_mean_of_the_sorted_ends(rng, fractions):
  logits = rng.normal(size=(2, 5, 10, 3)).astype(np.float32)
  model = dataclasses.replace(MODEL, pooling="top", top_fractions=fractions)
  value = pool(jnp.array(logits), model)
  for b in range(2):
    for c in range(3):
      ends = [np.sort(logits[b, :, :, c].ravel())[-max(1, round(50 * f)):].mean() for f in fractions]
      assert float(value[b, c]) == pytest.approx(np.mean(ends), abs=1e-5)


def test_average_pooling():
  logits = jnp.arange(8.0).reshape(1, 2, 2, 2)
  model = dataclasses.replace(MODEL, pooling="average")
  np.testing.assert_allclose(pool(logits, model), [[3.0, 4.0]])


def setup(method=LGAG, *, ready=True, anchor_stride=16, **changes):
  """A head of two classes with the given groups changed, its parameters, taps and a bank."""
  config = Config(model=MODEL)
  config = dataclasses.replace(config, data=dataclasses.replace(config.data, classes=("a", "b")))
  for group, values in changes.items():
    config = dataclasses.replace(
      config, **{group: dataclasses.replace(getattr(config, group), **values)}
    )
  taps = make_taps(np.random.default_rng(3), at_strides(16, 16), batch=2)
  bank = make_bank(2, ready, "sides" if method.anchor_features is sol.side_projections else "taps")
  head = Head(method, config, anchor_stride=anchor_stride)
  return head, numbers_for(head, taps, bank, jnp.ones((2, 2))), taps, bank


def run(method=LGAG, *, labels, **options):
  head, params, taps, bank = setup(method, **options)
  return jax.jit(head.apply)(params, taps, bank, labels), params["params"]


def make_bank(classes, ready, features="taps"):
  config = BankConfig(slots=4, centres=3)
  bank = memory_bank.empty(config, classes=classes + 1, dimension=WIDTH[features])
  centres = jax.random.normal(jax.random.key(9), bank.centres.shape)
  return bank.replace(centres=centres, ready=jnp.array(ready))


@pytest.mark.parametrize("method", OWN.values(), ids=OWN)
def test_outputs_have_the_documented_shapes(method):
  head, *rest = setup(method)
  outputs = jax.eval_shape(head.apply, *rest, jnp.ones((2, 2)))
  grid = (16, 16) if method.name == "segmentation" else (4, 4)  # The decoder ends at stride 4.
  width = rest[-1].centres.shape[-1]
  assert {f.name: getattr(outputs, f.name).shape for f in dataclasses.fields(outputs)} == {
    "scores": (2, 2), "logits": (2, *grid, 2), "activation": (2, *grid, 3), "seeds": (2, *grid),
    "anchors": (2, 3, width), "exists": (2, 3), "guided": (2, *grid, 3),
    "fused_logits": (2, *grid, 2),
  }


@pytest.mark.parametrize("method", [OWN["class_activation"], OWN["segmentation"]])
def test_without_sol_no_anchor_exists(method):
  outputs, _ = run(method, labels=jnp.ones((2, 2)))
  assert not jnp.any(outputs.exists)
  np.testing.assert_array_equal(outputs.guided, outputs.activation)


@pytest.mark.parametrize("method", [SOL, LGAG, LGAGNET], ids=lambda method: method.name)
def test_the_label_denies_classes(method):
  outputs, _ = run(method, labels=jnp.array([[1.0, 0.0], [0.0, 0.0]]))
  np.testing.assert_array_equal(outputs.activation[0, ..., 2], 0.0)
  np.testing.assert_array_equal(outputs.activation[1, ..., 1:], 0.0)
  assert set(np.unique(outputs.seeds[0])) <= {0, 1}
  assert set(np.unique(outputs.seeds[1])) == {0}
  np.testing.assert_array_equal(outputs.exists[1], [True, False, False])
  assert not outputs.exists[0, 2]
  np.testing.assert_array_equal(outputs.anchors[1, 1:], 0.0)
  assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(outputs))
  np.testing.assert_array_equal(outputs.guided[1, ..., 1:], 0.0)


@pytest.mark.parametrize("gate", [0.0, 1.0])
def test_without_labels_scores_decide(gate):
  outputs, _ = run(labels=None, localize={"gate": gate})
  present = jax.nn.sigmoid(outputs.scores) > gate
  np.testing.assert_array_equal(jnp.any(outputs.activation[..., 1:] > 0, axis=(1, 2)), present)
  assert bool(jnp.all(present)) == (gate == 0.0)
  assert not jnp.any(outputs.exists[:, 1:] & ~present)


def test_anchors_are_means_of_the_side_features_that_guide():
  """Recomputes seeds' means and the cosine against them from the outputs' own features."""
  method = dataclasses.replace(SOL, anchor_features=sol.side_projections)
  outputs, params = run(method, labels=jnp.ones((2, 2)))
  taps = make_taps(np.random.default_rng(3), at_strides(16, 16), batch=2)
  module = sol.SideProjections(MODEL.side_widths, 1e-5, jnp.float32)
  g = np.asarray(module.apply({"params": params["sides"]}, taps, (4, 4)), np.float64)
  for b in range(2):
    for k in range(3):
      cells = g[b][np.asarray(outputs.seeds[b]) == k]
      assert bool(outputs.exists[b, k]) == (len(cells) > 0)
      anchor = cells.mean(axis=0) if len(cells) else np.zeros(24)
      np.testing.assert_allclose(outputs.anchors[b, k], anchor, atol=1e-4)
      if len(cells):
        length = np.linalg.norm(g[b], axis=-1) * np.linalg.norm(anchor)
        cosine = np.maximum(g[b] @ anchor / length, 0.0)
        np.testing.assert_allclose(outputs.guided[b, ..., k], cosine / cosine.max(), atol=1e-3)


def test_attention_changes_the_guided_maps_only_when_the_bank_is_ready():
  labels = jnp.ones((2, 2))
  head, params, taps, bank = setup()
  apply = jax.jit(head.apply)
  ready = apply(params, taps, bank, labels)
  unready = apply(params, taps, bank.replace(ready=jnp.array(False)), labels)
  plain_head, *_ = setup(SOL)
  plain = jax.jit(plain_head.apply)(params, taps, bank, labels)
  np.testing.assert_allclose(unready.guided, plain.guided, atol=1e-5)
  assert np.abs(ready.guided - plain.guided).max() > 1e-2
  np.testing.assert_allclose(ready.anchors, plain.anchors, atol=1e-5)


def test_finer_anchors_use_the_same_parameters():
  labels = jnp.ones((2, 2))
  head, params, taps, bank = setup()
  fine = jax.jit(head.clone(anchor_stride=4).apply)(params, taps, bank, labels)
  coarse = jax.jit(head.apply)(params, taps, bank, labels)
  assert fine.guided.shape == (2, 16, 16, 3)
  assert fine.seeds.shape == (2, 16, 16)
  np.testing.assert_array_equal(fine.activation, coarse.activation)


def test_taps_serve_as_anchor_features_without_parameters():
  features = sol.TapFeatures((1, 3), 1e-5)
  taps = make_taps(np.random.default_rng(3), at_strides(16, 16))
  assert not jax.eval_shape(lambda taps: features.init(jax.random.key(0), taps, (4, 4)), taps)
  value = features.apply({}, taps, (4, 4))
  assert value.shape == (1, 4, 4, CHANNELS[0] + CHANNELS[2])
  last = np.asarray(taps[2])  # On the grid already: of unit length, and otherwise unchanged.
  np.testing.assert_allclose(
    value[..., CHANNELS[0]:], last / np.linalg.norm(last, axis=-1, keepdims=True), atol=1e-4
  )


def wrong(shape):
  return lambda *arguments: jnp.zeros(shape)


@pytest.mark.parametrize(("part", "replacement"), [
  ("locate", wrong((2, 4, 4, 2))), ("guide", wrong((2, 16))),
  ("aggregation", lambda config: wrong((2, 16, 5))),
  ("anchor_features", lambda config: wrong((2, 4, 4, 7))),
  ("classifier", lambda config: lambda taps: (jnp.zeros((2, 4, 4, 3)), taps[-1])),
])
def test_a_part_of_the_wrong_shape_is_named(part, replacement):
  _, params, taps, bank = setup()
  method = dataclasses.replace(LGAG, name="mine", **{part: replacement})
  head = Head(method, setup()[0].config, anchor_stride=16)
  with pytest.raises(ValueError, match=rf"Method 'mine': {part} returned an array of shape"):
    jax.eval_shape(head.apply, params, taps, bank, jnp.ones((2, 2)))
