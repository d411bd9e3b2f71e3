"""Programs for machines that are not here: exported for TPU and GPU, partitioned, and read."""

import functools
import re

import jax
import jax.numpy as jnp
import pytest
from jax import export

from benchmarks import hlo
from benchmarks.programs import batch_shapes, lower_step, named, state_shapes
from lgag_jax.evaluation import threshold_rules
from lgag_jax.inference import localize
from lgag_jax.method import network as networks
from lgag_jax.runtime import sharding
from lgag_jax.training import fill_trunk_outputs, optimizer, train_step

DEVICES = 8
METHODS = (("image_folder", "lgag"), ("lgagnet_resnet50", "lgagnet"))
# Products that stay in float32 in half precision: the contrast, a loss, and resampling.
CONTRAST, RESAMPLING = "bkd,cld->bkcl", "dot_general"
# What losses and norms are made of.
PRECISE = re.compile(
  r"stablehlo\.(exponential|exponential_minus_one|log|log_plus_one|logistic|rsqrt|sqrt) .*bf16"
)


def abstract_mesh():
  """Returns a mesh of devices that need not exist, to lower a program but not to run it."""
  return sharding.make_mesh().abstract_mesh.update(axis_sizes=(DEVICES,))


def small(file, method, **changes):
  return named(file, method, {
    "data.image_size": 64, "train.batch_size": 8, "train.accumulate": 1, "localize.batch_size": 8,
    "model.weights": "random", "bank.slots": 2000, **changes,
  })


def functions_on(platform, config):
  """The network, and what is made of it: step, maps and refresh."""
  network = networks.build(config, platform)
  return network, *functions(network, config)


@functools.cache  # TPU and GPU have the same network: it is traced once for both.
def functions(network, config):
  mesh, transform = abstract_mesh(), optimizer.make_optimizer(config, 100)
  step = train_step.make_train_step(network, config, transform, mesh, steps_per_epoch=1)
  maps = localize.make_localize(network, config, mesh)
  return step, maps, train_step.make_refresh(config, mesh)


def products(lowered):
  """Yields (operand types, name, whether in full precision) of every product and convolution."""
  text = lowered.as_text(debug_info=True)
  names = dict(re.findall(r'^(#loc\d+) = loc\("([^"]*)"', text, re.M))
  for line in text.splitlines():
    if re.search(r"stablehlo\.(dot_general|convolution)", line):
      operands = re.search(r": \((.*?)\) ->", line)[1]
      name = names.get(re.search(r"loc\((#loc\d+)\)", line)[1], "")
      yield tuple(re.findall(r"[x<]([a-z]+\d+)>", operands)), name, "HIGHEST" in line


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize(("file", "method"), METHODS)
def test_step_exports_for_eight_devices_with_its_state_aliased(file, method, platform):
  config = small(file, method)
  _, step, *_ = functions_on(platform, config)
  shapes = state_shapes(config)
  exported = export.export(step, platforms=[platform])(shapes, batch_shapes(config))
  assert exported.nr_devices == DEVICES
  assert exported.platforms == (platform,)
  text = exported.mlir_module()
  # Every array of the state but the constant statistics is written where it was read.
  changed = len(jax.tree.leaves(shapes)) - len(jax.tree.leaves(shapes.statistics))
  assert len(re.findall(r"tf\.aliasing_output|jax\.buffer_donor", text)) >= changed


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_maps_and_global_anchors_export_for_eight_devices(platform):
  config = small(*METHODS[0])
  image = {"image": batch_shapes(config)["image"]}
  _, _, run, refresh = functions_on(platform, config)
  exported = export.export(run, platforms=[platform])(state_shapes(config), image)
  assert exported.nr_devices == DEVICES
  exported = export.export(refresh, platforms=[platform])(state_shapes(config).bank)
  assert exported.nr_devices == DEVICES


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize(("file", "method"), METHODS)
def test_products_run_in_the_precision_asked_for(file, method, platform):
  for precision, kind in (("float32", "f32"), ("bfloat16", "bf16")):
    config = small(file, method, **{"model.precision": precision})
    _, step, *_ = functions_on(platform, config)
    trace = step.trace(state_shapes(config), batch_shapes(config))
    lowered = trace.lower(lowering_platforms=(platform,))
    found = list(products(lowered))
    assert len(found) > 90
    for types, name, full in found:
      assert types == (kind, kind) or (types == ("f32", "f32") and name_is_precise(name))
      assert full or "f32" not in types
    assert any(CONTRAST in name for _, name, _ in found)
    assert not PRECISE.search(lowered.as_text())


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize(("file", "method"), METHODS)
def test_products_outside_the_step_run_in_full_precision_too(file, method, platform):
  """Those of kept trunk outputs, of maps, of thresholds and of global anchors."""
  config = small(file, method)
  mesh = abstract_mesh()
  network, _, localize_maps, refresh = functions_on(platform, config)
  state, image = state_shapes(config), batch_shapes(config)["image"]
  size = config.train.batch_size
  maps = jax.eval_shape(localize_maps, state, {"image": image})
  labels = {
    "label": jax.ShapeDtypeStruct((size, 1), jnp.float32),
    "weight": jax.ShapeDtypeStruct((size,), jnp.float32),
  }
  programs = {
    "frozen": (
      fill_trunk_outputs.make_frozen(network, mesh), (state.params, state.statistics, image), 1,
    ),
    "maps": (localize_maps, (state, {"image": image}), 50),
    "thresholds": (threshold_rules.make_histograms(config, mesh), (maps, labels), 0),
    "refresh": (refresh, (state.bank,), 2),
  }
  for name, (function, arguments, least) in programs.items():
    found = list(products(function.trace(*arguments).lower(lowering_platforms=(platform,))))
    assert len(found) >= least, name
    assert all(full for _, _, full in found), name


def name_is_precise(name):
  return CONTRAST in name or name == RESAMPLING


@pytest.mark.parametrize(("file", "method"), METHODS)
def test_devices_exchange_gradients_and_anchors_and_nothing_large(file, method):
  config = small(file, method)
  shapes = state_shapes(config)
  compiled = lower_step(config).compile()
  found = hlo.collectives(compiled.as_text())
  # The state is written where it was read: the old bank is not kept beside the new one.
  size = lambda tree: sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
  aliased = compiled.memory_analysis().alias_size_in_bytes
  assert aliased >= size(shapes) - size(shapes.statistics)
  trained = {"frozen": 0, "trunk": 0, "new": 0}
  for path, leaf in jax.tree_util.tree_leaves_with_path(shapes.params):
    trained[optimizer.group(path, config)] += leaf.size * 4
  gradients = trained["trunk"] + trained["new"]
  classes, _, dimension = shapes.bank.features.shape
  anchors = config.train.batch_size * classes * dimension * 4

  gathered = sorted(c.bytes for c in found if c.kind == "all-gather")
  reduced = sorted(c.bytes for c in found if c.kind == "all-reduce")
  assert {c.kind for c in found} <= {"all-gather", "all-reduce"}
  assert gathered[-1] == anchors
  # All else is a few numbers an example: which anchors are accepted, and where they go.
  assert all(size < anchors / 8 for size in gathered[:-1])
  # One reduction of gradients and metrics, and a few counts. It is less than the parameters where
  # attention's gradient is summed before it is spread over queries, keys and values.
  assert reduced[-1] > 0.999 * sum(reduced)
  assert 0.6 * gradients <= reduced[-1] <= 1.01 * gradients
  assert all(size < shapes.bank.features.size * 4 for size in gathered)


def test_collectives_are_read_from_text():
  text = """
    %a = (f32[3,4]{1,0}, bf16[2]{0}) all-reduce(%x, %y), channel_id=7, to_apply=%add
    %b = (f32[2,2]{1,0}, f32[8,2]{1,0}) all-gather-start(%z), channel_id=9
    %b.1 = f32[8,2]{1,0} all-gather(%z), channel_id=9
    %c = f32[9]{0} add(%p, %q)
    %d = ((f32[2]{0}, u16[2]{0}), (f32[8]{0}, u16[8]{0})) all-gather-start(%p, %q), channel_id=10
    %e = f32[8]{0} all-gather-done(%d)
    %f = (f32[3], f32[3], u32[], u32[]) collective-permute-start(%p), channel_id=11
    %g = (f32[3], f32[5]) all-reduce-start(%p, %q), channel_id=12
  """
  assert hlo.collectives(text) == [
    hlo.Collective("all-reduce", 2, 52), hlo.Collective("all-gather", 1, 64),
    hlo.Collective("all-gather", 2, 48), hlo.Collective("collective-permute", 1, 12),
    hlo.Collective("all-reduce", 2, 32),
  ]
  with pytest.raises(KeyError, match="f4e2m1"):
    hlo.collectives("%a = f4e2m1[8]{0} all-gather(%z)")
  assert jnp.dtype(jnp.bfloat16).itemsize * 6 == hlo.array_bytes("bf16", "2,3")
