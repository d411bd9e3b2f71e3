"""The training step: pure, jitted over the mesh, its state donated."""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from lgag_jax.config import Config
from lgag_jax.method import losses, memory_bank
from lgag_jax.method.method import Method, Outputs
from lgag_jax.method.network import Network, full_precision
from lgag_jax.runtime import random_streams, sharding
from lgag_jax.state import MemoryBank, TrainState
from lgag_jax.trunks import pretrained
from lgag_jax.trunks.layers import turned


def init_state(
  network: Network, config: Config, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
  """Makes the state of step 0, the trunk's weights loaded: whole on every device, or split."""
  key = random_streams.key(config.train.seed, "trunk")
  init_trunk = partial(network.init_trunk, channels=len(config.trunk_bands))
  if config.model.weights == "random":
    trunk = jax.jit(init_trunk)(key)
  else:
    path = config.model.weights
    path = pretrained.packaged_weights(config.model.trunk) if path == "packaged" else path
    shapes = jax.eval_shape(init_trunk, key)
    trunk = pretrained.load_trunk(config.model.trunk, path, shapes, config.trunk_rgb_bands)

  init = partial(fresh_state, network, config, optimizer)
  shardings = sharding.state_sharding(jax.eval_shape(init, trunk), mesh, config.train.shard_state)
  trunk = jax.device_put(trunk, sharding.replicated_sharding(mesh))
  return jax.jit(init, out_shardings=shardings)(trunk)


def state_shapes(
  network: Network, config: Config, optimizer: optax.GradientTransformation
) -> TrainState:
  """Returns the shapes and types of the state of step 0; no array is made and no weight read."""
  init_trunk = partial(network.init_trunk, channels=len(config.trunk_bands))
  trunk = jax.eval_shape(init_trunk, jax.random.key(0))
  return jax.eval_shape(partial(fresh_state, network, config, optimizer), trunk)


def fresh_state(
  network: Network, config: Config, optimizer: optax.GradientTransformation, trunk: dict
) -> TrainState:
  """Returns the state of step 0 around a trunk's variables, the head at random, the bank empty."""
  dimension = network.anchor_dimension(len(config.trunk_bands))
  bank = memory_bank.empty(config.bank, classes=len(config.data.classes) + 1, dimension=dimension)
  key = random_streams.key(config.train.seed, "head")
  head = network.init_head(key, len(config.trunk_bands), bank)
  params = {"trunk": trunk["params"], "head": head}
  return TrainState(
    step=jnp.zeros((), jnp.int32), params=params, statistics=trunk.get("batch_stats", {}),
    opt_state=optimizer.init(params), bank=bank,
  )


def make_train_step(
  network: Network, config: Config, optimizer: optax.GradientTransformation, mesh: Mesh, *,
  steps_per_epoch: int,
) -> Callable[[TrainState, dict], tuple[TrainState, dict]]:
  """Returns the jitted step: (state, global batch) to the next state and metrics.

  Metrics are sums over the batch's examples, with their number (weight) as "examples". A step whose
  loss or gradient is not finite is "skipped": it changes nothing but the step's number.
  """
  method = network.method

  @full_precision
  def step(state: TrainState, batch: dict) -> tuple[TrainState, dict]:
    batch = _with_frozen(network, state, batch)
    key = partial(random_streams.key, config.train.seed, step=state.step)
    if config.data.augment == "features":
      batch = turn(batch, jax.random.randint(key("turn"), (), 0, 8))
    entries = memory_bank.sample(state.bank, config.loss.contrast_samples, key("bank entries"))
    epoch = state.step / steps_per_epoch
    total_weight = jnp.maximum(jnp.sum(batch["weight"]), 1.0)

    def loss(params, part):
      outputs = network(params, state.statistics, part["taps"], state.bank, part["label"])
      terms = loss_terms(method, outputs, part, entries, config, epoch)
      sums = {name: jnp.sum(term * part["weight"]) for name, term in terms.items()}
      accepted = method.accept(outputs, part, config) if method.accept else outputs.exists
      return sums["loss"] / total_weight, (sums, outputs.anchors, accepted)

    grads, (sums, anchors, accepted) = _gradient(loss, config)(state.params, batch)
    norm = optax.tree.norm(grads)
    sound = jnp.isfinite(norm) & jnp.isfinite(sums["loss"])
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    keep = lambda new, old: jax.tree.map(partial(jnp.where, sound), new, old)
    metrics = {
      **sums, "examples": jnp.sum(batch["weight"]), "gradient_norm": norm,
      "anchors": jnp.sum(accepted, dtype=jnp.float32),
    }
    metrics = keep(metrics, jax.tree.map(jnp.zeros_like, metrics))
    # That the push waits for the loss lets XLA write the donated bank in place.
    bank = method.push(state.bank, anchors, accepted & sound) if method.push else state.bank
    state = dataclasses.replace(
      state, step=state.step + 1, bank=bank, opt_state=keep(opt_state, state.opt_state),
      params=keep(optax.apply_updates(state.params, updates), state.params),
    )
    shardings = sharding.state_sharding(state, mesh, config.train.shard_state)
    state = jax.lax.with_sharding_constraint(state, shardings)
    return state, {**metrics, "skipped": 1.0 - sound}

  whole, split = sharding.replicated_sharding(mesh), sharding.batch_sharding(mesh)
  of_state = None if config.train.shard_state else whole  # None: as init_state laid it out.
  return jax.jit(
    step, in_shardings=(of_state, split), out_shardings=(of_state, whole), donate_argnums=0
  )


def make_refresh(config: Config, mesh: Mesh) -> Callable[[MemoryBank], MemoryBank]:
  """Returns the jitted refresh of the global anchors."""
  whole = sharding.replicated_sharding(mesh)
  return jax.jit(
    full_precision(partial(memory_bank.refresh, config=config.bank)),
    in_shardings=whole, out_shardings=whole,
  )


def _with_frozen(network: Network, state: TrainState, batch: dict) -> dict:
  if "taps" in batch:
    return batch
  taps = network.frozen(state.params, state.statistics, batch["image"])
  return {**{k: v for k, v in batch.items() if k != "image"}, "taps": taps}


def _gradient(loss: Callable, config: Config) -> Callable:
  """Returns the gradient of a loss(params, batch), taken in `train.accumulate` parts of the batch.

  Part i takes examples i, i + parts, ...: each device keeps its examples, and anchors come back in
  batch order.
  """
  kinds, parts = optax.microbatching.AccumulationType, config.train.accumulate
  return optax.microbatch(
    jax.grad(loss, has_aux=True), argnums=1,
    accumulator=(kinds.SUM, (kinds.SUM, kinds.CONCAT, kinds.CONCAT)),
    microbatch_size=config.train.batch_size // parts if parts > 1 else None,
  )


def loss_terms(
  method: Method, outputs: Outputs, batch: dict, bank: MemoryBank, config: Config,
  epoch: jax.Array | float,
) -> dict[str, jax.Array]:
  """Returns the method's terms before weighting, f32[B] each, and their weighted sum as "loss"."""
  listed = losses.of_method(method, config)
  terms = {term.name: term.value(outputs, batch, bank, config) for term in listed}
  for name, value in terms.items():
    if value.shape != batch["weight"].shape:
      raise ValueError(
        f"Method {method.name!r}: the loss term {name!r} returned an array of shape "
        f"{list(value.shape)}, but one number per image is needed: {list(batch['weight'].shape)}."
      )
  weighted = (term.weight(config, epoch) * terms[term.name] for term in listed)
  total = sum(weighted, jnp.zeros(()))
  return {"loss": total, **terms}


def turn(batch: dict, number: jax.Array) -> dict:
  """Applies flip or quarter turn `number`, i32[] in [0, 8), to the spatial fields of a batch."""
  spatial = {name: batch[name] for name in ("taps", "mask")}
  branches = [partial(jax.tree.map, partial(turned, number=k)) for k in range(8)]
  return {**batch, **jax.lax.switch(number, branches, spatial)}
