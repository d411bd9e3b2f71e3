"""The memory bank against loops that keep lists of vectors, and Lloyd's algorithm by the book."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgag_jax.config import BankConfig
from lgag_jax.method import memory_bank

SLOTS, WIDTH, CLASSES = 5, 4, 3
push = jax.jit(memory_bank.push)
refresh = jax.jit(memory_bank.refresh, static_argnums=1)


def bank_config(**changes):
  return BankConfig(**{"slots": SLOTS, "centres": 2, "lloyd_steps": 4, **changes})


def length_one(vector):
  return vector / np.sqrt(np.sum(vector.astype(np.float64) ** 2))


def batches(rng, sizes=(3, 4, 2, 4)):
  """Anchors with per-class acceptance of different frequency, the last class never."""
  for size in sizes:
    anchors = rng.normal(size=(size, CLASSES, WIDTH)).astype(np.float32)
    accepted = rng.uniform(size=(size, CLASSES)) < np.array([0.9, 0.4, 0.0])
    yield anchors, accepted


def filled(rng, counts, config):
  """A bank with `counts[k]` random unit vectors of class k, in its first slots."""
  bank = memory_bank.empty(config, classes=len(counts), dimension=WIDTH)
  features = np.zeros(bank.features.shape, np.float32)
  valid = np.zeros(bank.valid.shape, bool)
  for k, count in enumerate(counts):
    for slot in range(count):
      features[k, slot] = length_one(rng.normal(size=WIDTH))
      valid[k, slot] = True
  return bank.replace(features=jnp.array(features), valid=jnp.array(valid))


def lloyd(points, centres, steps):
  """k-means as the textbook has it; a centre that loses all points stays where it is."""
  centres = [np.array(c, np.float64) for c in centres]
  for _ in range(steps):
    groups = [[] for _ in centres]
    for point in points:
      groups[int(np.argmin([np.sum((point - c) ** 2) for c in centres]))].append(point)
    centres = [np.mean(g, axis=0) if g else c for g, c in zip(groups, centres, strict=True)]
  return np.stack(centres)


def test_fifo_keeps_the_newest_in_a_ring(rng):
  config = bank_config()
  bank = memory_bank.empty(config, classes=CLASSES, dimension=WIDTH)
  slots = [[None] * SLOTS for _ in range(CLASSES)]
  cursor = [0] * CLASSES
  for anchors, accepted in batches(rng, (3, 4, 2, 4, 0, 5)):
    bank = push(bank, jnp.array(anchors), jnp.array(accepted))
    for image in range(len(anchors)):
      for k in range(CLASSES):
        if accepted[image, k]:
          slots[k][cursor[k]] = length_one(anchors[image, k])
          cursor[k] = (cursor[k] + 1) % SLOTS
    for k in range(CLASSES):
      for slot, expected in enumerate(slots[k]):
        assert bool(bank.valid[k, slot]) == (expected is not None)
        value = np.zeros(WIDTH) if expected is None else expected
        np.testing.assert_allclose(bank.features[k, slot], value, atol=1e-6)
    np.testing.assert_array_equal(bank.cursor, cursor)


@pytest.mark.parametrize("rows", [SLOTS, SLOTS + 1, 2 * SLOTS, 3 * SLOTS + 2])
def test_more_rows_than_slots_leave_the_last_ones(rows):
  config = bank_config()
  bank = memory_bank.empty(config, classes=1, dimension=rows)
  # Row i is the i-th axis, so that the slots say by themselves which row they hold.
  anchors = jnp.eye(rows)[:, None, :]
  bank = push(bank, anchors, jnp.ones((rows, 1), bool))
  held = np.argmax(bank.features[0], axis=-1)
  assert sorted(held) == list(range(rows - SLOTS, rows))
  assert [h % SLOTS for h in held] == list(range(SLOTS))
  assert int(bank.cursor[0]) == rows % SLOTS


def test_without_an_accepted_row_nothing_changes(rng):
  config = bank_config()
  bank = filled(rng, (SLOTS, 3, 0), config).replace(cursor=jnp.array([2, 3, 0]))
  anchors = jnp.array(rng.normal(size=(4, CLASSES, WIDTH)), jnp.float32)
  after = push(bank, anchors, jnp.zeros((4, CLASSES), bool))
  jax.tree.map(np.testing.assert_array_equal, after, bank)


def test_one_batch_is_the_same_as_its_images_one_by_one(rng):
  config = bank_config()
  whole = parts = memory_bank.empty(config, classes=CLASSES, dimension=WIDTH)
  for anchors, accepted in batches(rng):
    anchors, accepted = jnp.array(anchors), jnp.array(accepted)
    whole = push(whole, anchors, accepted)
    for i in range(len(anchors)):
      parts = push(parts, anchors[i : i + 1], accepted[i : i + 1])
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), whole, parts)


def test_no_gradient_passes_into_the_bank():
  config = bank_config()
  bank = memory_bank.empty(config, classes=1, dimension=WIDTH)

  def total(anchors):
    after = push(bank, anchors, jnp.ones((2, 1), bool))
    return jnp.sum(after.features * jnp.arange(1.0, WIDTH + 1)[None, None])

  anchors = jnp.array([[[1.0, 2, 3, 4]], [[4.0, 3, 2, 1]]])
  assert total(anchors) > 0
  np.testing.assert_array_equal(jax.grad(total)(anchors), 0.0)


def test_refresh_is_lloyds_algorithm_over_valid_slots(rng):
  config = bank_config(slots=12, centres=3, lloyd_steps=5)
  bank = filled(rng, (12, 7), config)
  # Junk in a slot that is not valid must not count.
  bank = bank.replace(features=bank.features.at[1, 7:].set(100.0))
  bank = bank.replace(centres=bank.features[:, :3], ready=jnp.array(True))
  after = refresh(bank, config)
  for k, count in enumerate((12, 7)):
    points = np.asarray(bank.features[k, :count], np.float64)
    np.testing.assert_allclose(after.centres[k], lloyd(points, points[:3], 5), atol=1e-5)
  assert bool(after.ready)


def test_first_refresh_starts_from_different_valid_slots(rng):
  config = bank_config(slots=9, centres=4, lloyd_steps=30)
  bank = filled(rng, (9, 4), config)
  valid = jnp.array([[True] * 9, [False, True] * 4 + [False]])
  bank = bank.replace(features=jnp.stack([bank.features[0]] * 2), valid=valid)
  after = refresh(bank, config)
  # As many slots as centres, all different: every slot is a centre of its own.
  expected = np.sort(bank.features[1, 1::2], axis=0)
  np.testing.assert_allclose(np.sort(after.centres[1], axis=0), expected, atol=1e-6)
  # Converged: every centre of the other class is the mean of the points nearest to it.
  points = np.asarray(bank.features[0], np.float64)
  again = lloyd(points, after.centres[0], 1)
  np.testing.assert_allclose(after.centres[0], again, atol=1e-5)
  assert len(np.unique(np.round(after.centres[0], 4), axis=0)) == 4


def test_warm_start_goes_on_where_the_last_refresh_ended(rng):
  once = bank_config(slots=20, centres=4, lloyd_steps=6)
  twice = bank_config(slots=20, centres=4, lloyd_steps=3)
  bank = filled(rng, (20, 20), once)
  long = refresh(bank, once)
  short = refresh(refresh(bank, twice), twice)
  np.testing.assert_allclose(long.centres, short.centres, atol=1e-5)


@pytest.mark.parametrize("counts", [(SLOTS, 1), (0, SLOTS), (0, 0)])
def test_a_class_with_too_few_anchors_leaves_the_bank_unready(rng, counts):
  bank = filled(rng, counts, bank_config())
  after = refresh(bank, bank_config())
  assert not bool(after.ready)
  jax.tree.map(np.testing.assert_array_equal, after, bank)


def test_exactly_enough_anchors_make_the_bank_ready(rng):
  assert bool(refresh(filled(rng, (2, 2), bank_config()), bank_config()).ready)


def test_a_centre_without_members_stays():
  config = bank_config(slots=3, centres=2)
  bank = memory_bank.empty(config, classes=1, dimension=2)
  bank = bank.replace(
    features=jnp.array([[[1.0, 0], [0.8, 0.6], [0.6, 0.8]]]), valid=jnp.ones((1, 3), bool),
    centres=jnp.array([[[0.9, 0.1], [-5.0, -5.0]]]), ready=jnp.array(True),
  )
  after = refresh(bank, config)
  np.testing.assert_allclose(after.centres[0], [[0.8, 1.4 / 3], [-5.0, -5.0]], atol=1e-6)


def test_unit_has_length_one_and_a_finite_gradient_at_zero():
  x = jnp.array([[3.0, 4.0], [0.0, 0.0], [0.0, -1e-2]])
  np.testing.assert_allclose(memory_bank.to_unit_length(x), [[0.6, 0.8], [0, 0], [0, -1]], atol=1e-5)
  gradient = jax.grad(lambda v: jnp.sum(memory_bank.to_unit_length(v)))(x)
  assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("filled", [0, 1, 3, 7, 8, 20, 39, 40])
@pytest.mark.parametrize("count", [1, 8, 39])
def test_sample_takes_valid_slots_once_each_spread_over_all_of_them(filled, count):
  config = BankConfig(slots=40, centres=2)
  bank = memory_bank.empty(config, classes=1, dimension=2)
  # Each slot holds its own number.
  features = jnp.stack([jnp.arange(40.0), jnp.zeros(40)], axis=-1)[None]
  bank = bank.replace(features=features, valid=jnp.arange(40)[None] < filled)
  seen = set()
  for seed in range(5):
    drawn = memory_bank.sample(bank, count, jax.random.key(seed))
    assert drawn.features.shape == (1, count, 2)
    slots = np.asarray(drawn.features)[0, np.asarray(drawn.valid)[0], 0]
    assert len(slots) == min(filled, count)
    assert len(set(slots)) == len(slots)
    assert all(slots < filled)
    if filled > count:
      # One from every stretch of the bank, which begins anywhere.
      gaps = np.diff(np.sort(slots), append=np.min(slots) + filled)
      assert max(gaps) < 2 * np.ceil(filled / count)
    seen |= set(slots)
  if filled <= count:
    assert seen == set(range(filled))
  else:  # Draws differ from seed to seed.
    assert len(seen) > count


def test_sample_of_a_bank_with_a_rhythm_holds_all_its_beats():
  """Balanced batches bring positive and negative images in turns: background anchors do so too."""
  slots, count = 1000, 100
  bank = memory_bank.empty(BankConfig(slots=slots, centres=2), classes=1, dimension=1)
  beats = (jnp.arange(slots) % 2.0)[None, :, None]
  bank = bank.replace(features=beats, valid=jnp.ones((1, slots), bool))
  draws = [memory_bank.sample(bank, count, jax.random.key(i)) for i in range(40)]
  shares = [float(draw.features.mean()) for draw in draws]
  assert abs(np.mean(shares) - 0.5) < 0.03
  assert all(0.25 < share < 0.75 for share in shares)


def test_sample_of_none_or_of_as_many_as_there_are_is_the_bank():
  bank = memory_bank.empty(BankConfig(slots=6, centres=2), classes=2, dimension=3)
  assert memory_bank.sample(bank, 0, jax.random.key(0)) is bank
  assert memory_bank.sample(bank, 6, jax.random.key(0)) is bank


@pytest.mark.parametrize(("filled", "count"), [(6, 4), (5, 3), (7, 7), (9, 2)])
def test_sample_takes_every_valid_slot_as_often(filled, count):
  bank = memory_bank.empty(BankConfig(slots=10, centres=2), classes=1, dimension=1)
  numbers = jnp.arange(10.0)[None, :, None]
  bank = bank.replace(features=numbers, valid=jnp.arange(10)[None] < filled)
  draw = jax.jit(jax.vmap(lambda key: memory_bank.sample(bank, count, key).features[0, :, 0]))
  drawn = np.asarray(draw(jax.random.split(jax.random.key(0), 4000)))
  shares = np.bincount(drawn.astype(int).ravel(), minlength=10)[:filled] / 4000
  np.testing.assert_allclose(shares, min(count / filled, 1.0), atol=0.04)


@pytest.mark.parametrize("count", [45_000, 49_999])
def test_sample_of_a_large_bank_takes_no_slot_twice(count):
  bank = memory_bank.empty(BankConfig(slots=50_000, centres=2), classes=1, dimension=1)
  numbers = jnp.arange(50_000.0)[None, :, None]
  bank = bank.replace(features=numbers, valid=jnp.ones((1, 50_000), bool))
  drawn = np.asarray(memory_bank.sample(bank, count, jax.random.key(0)).features)
  assert len(np.unique(drawn)) == count
