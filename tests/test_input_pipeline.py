"""The input pipeline: order of examples, resuming, padding, bad images, and scaling."""

import logging

import jax
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from lgag_jax.config import Config, DataConfig, TrainConfig
from lgag_jax.imagery import scaling
from lgag_jax.imagery.reading import UNKNOWN, ImageError
from lgag_jax.inputs import sources
from lgag_jax.inputs.pipeline import Reader, epoch_order, eval_batches, train_batches

SIDE = 8


class Memory:
  """A source whose images hold their example's number; images in `bad` cannot be read."""

  def __init__(self, positives, negatives, *, bad=(), side=SIDE):
    count = positives + negatives
    self.ids = [f"example-{i}" for i in range(count)]
    self.labels = np.array([[1.0]] * positives + [[0.0]] * negatives, np.float32)
    self._bad, self._side, self.reads = set(bad), side, []

  def read(self, index):
    self.reads.append(index)
    if index in self._bad:
      raise ImageError(f"{self.ids[index]} is damaged")
    rng = np.random.default_rng(index)
    image = rng.integers(0, 256, (self._side, self._side, 3), np.uint8)
    image[..., 0] = index
    return image, (image[..., 1] > 127).astype(np.uint8)


def make_config(*, batch=4, epochs=3, seed=0, min_steps=0, **data):
  return Config(
    data=DataConfig(image_size=SIDE, **data),
    train=TrainConfig(batch_size=batch, epochs=epochs, seed=seed, min_steps=min_steps),
  )


def batches_of(source, config, start=0):
  return list(train_batches(source, Reader(source, config.data), config, start_step=start))


def assert_same(a, b):
  assert a.keys() == b.keys()
  for name in a:
    np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_order_is_a_function_of_seed_and_epoch():
  labels = Memory(10, 17).labels
  order = epoch_order(labels, make_config(), 2)
  np.testing.assert_array_equal(order, epoch_order(labels, make_config(), 2))
  assert order.dtype == np.int32
  assert not np.array_equal(order, epoch_order(labels, make_config(), 3))
  assert not np.array_equal(order, epoch_order(labels, make_config(seed=1), 2))
  # Epochs have different permutations.
  plain = make_config(balance=False)
  first, second = (epoch_order(Memory(8, 8).labels, plain, epoch) for epoch in (0, 1))
  assert sorted(first) == sorted(second) == list(range(16))
  assert not np.array_equal(first, second)


def test_an_epoch_repeats_few_examples():
  source, config = Memory(3, 5), make_config(epochs=3, min_steps=16)
  batches = batches_of(source, config)
  assert len(batches) == 18  # Three epochs of six batches: at least sixteen.
  drawn = np.bincount(np.concatenate([b["index"] for b in batches]))
  np.testing.assert_array_equal(drawn[:3], [12, 12, 12])
  np.testing.assert_array_equal(np.sort(drawn[3:]), [7, 7, 7, 7, 8])
  assert len(batches_of(source, make_config(epochs=3, min_steps=4))) == 6


@pytest.mark.parametrize("balance", [True, False])
@pytest.mark.parametrize(("positives", "negatives"), [(3, 17), (17, 3), (10, 10), (1, 1)])
def test_several_epochs_use_every_example(positives, negatives, balance):
  labels = Memory(positives, negatives).labels
  config = make_config(balance=balance)
  drawn = np.concatenate([epoch_order(labels, config, epoch) for epoch in range(9)])
  assert len(drawn) == 9 * -(-len(labels) // 4) * 4
  # Positives and negatives come in whole permutations, so counts differ by at most one.
  counts = np.bincount(drawn, minlength=len(labels))
  for kind in ([labels[:, 0] > 0, labels[:, 0] == 0] if balance else [labels[:, 0] >= 0]):
    assert counts[kind].min() >= 1
    assert counts[kind].max() - counts[kind].min() <= 1


@pytest.mark.parametrize("batch", [2, 4, 6])
def test_balanced_batches_have_equal_numbers_of_positives_and_negatives(batch):
  labels = Memory(3, 30).labels
  for epoch in range(3):
    order = epoch_order(labels, make_config(batch=batch), epoch).reshape(-1, batch)
    np.testing.assert_array_equal(labels[order, 0].sum(axis=1), batch / 2)


@pytest.mark.parametrize(
  "data", [{}, {"balance": False}, {"augment": "image", "colour_jitter": 0.2, "scale_jitter": 0.3}]
)
@pytest.mark.parametrize("start", [1, 5, 8])
def test_resumed_batches_are_the_tail_of_the_whole(start, data):
  source, config = Memory(6, 9), make_config(**data)
  whole, tail = batches_of(source, config), batches_of(source, config, start)
  assert len(whole) == 12
  assert len(tail) == 12 - start
  for a, b in zip(whole[start:], tail, strict=True):
    assert_same(a, b)


def test_batches_have_the_documented_arrays():
  source, config = Memory(6, 9), make_config()
  for batch in batches_of(source, config):
    assert {name: (a.shape, a.dtype.name) for name, a in batch.items()} == {
      "index": ((4,), "int32"), "weight": ((4,), "float32"), "label": ((4, 1), "float32"),
      "image": ((4, SIDE, SIDE, 3), "float32"), "mask": ((4, SIDE, SIDE), "uint8"),
    }
    for row, index in enumerate(batch["index"]):
      image, mask = source.read(int(index))
      np.testing.assert_allclose(batch["image"][row], image / 255.0, atol=1e-6)
      np.testing.assert_array_equal(batch["mask"][row], mask)
      np.testing.assert_array_equal(batch["label"][row], source.labels[index])
    assert np.all(batch["weight"] == 1)


def test_augmentation_differs_from_example_to_example_and_epoch_to_epoch():
  source = Memory(1, 1)
  first = batches_of(source, make_config(batch=2, epochs=20, augment="image"))
  forms = {batch["image"][i].tobytes() for batch in first for i in (0, 1)}
  assert len(forms) > 8  # Of two images' eight forms each.
  for batch in first:
    np.testing.assert_array_equal(batch["image"][..., 1] * 255 > 127, batch["mask"])


def test_evaluation_is_not_augmented_and_pads_without_loss():
  source, config = Memory(4, 6), make_config(augment="image", scale_jitter=0.5)
  batches = list(eval_batches(source, Reader(source, config.data), config, 4))
  assert [len(b["index"]) for b in batches] == [4, 4, 4]
  index = np.concatenate([b["index"] for b in batches])
  weight = np.concatenate([b["weight"] for b in batches])
  np.testing.assert_array_equal(index, [*range(10), -1, -1])
  np.testing.assert_array_equal(weight, [1] * 10 + [0] * 2)
  images = np.concatenate([b["image"] for b in batches])
  for i in range(10):
    np.testing.assert_allclose(images[i], source.read(i)[0] / 255.0, atol=1e-6)


@pytest.mark.parametrize(("count", "steps"), [(1, 1), (4, 1), (5, 2), (8, 2)])
def test_evaluation_counts_every_example_once(count, steps):
  source, config = Memory(1, count - 1), make_config()
  batches = list(eval_batches(source, Reader(source, config.data), config, 4))
  assert sum(b["weight"].sum() for b in batches) == count
  assert len(batches) == steps


def test_processes_divide_a_batch_in_order(monkeypatch):
  source, config = Memory(6, 9), make_config(augment="image")
  whole = batches_of(source, config)
  read = Reader(source, config.data)
  evaluated = list(eval_batches(source, read, config, 4))
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  for process in (0, 1):
    monkeypatch.setattr(jax, "process_index", lambda process=process: process)
    rows = slice(2 * process, 2 * process + 2)
    for a, b in zip(whole, batches_of(source, config), strict=True):
      assert_same({name: array[rows] for name, array in a.items()}, b)
    for a, b in zip(evaluated, eval_batches(source, read, config, 4), strict=True):
      assert_same({name: array[rows] for name, array in a.items()}, b)
  with pytest.raises(ValueError, match=r"batch of 5.*2 processes"):
    list(eval_batches(source, read, config, 5))


def test_a_bad_image_stops_training_and_is_named():
  source, config = Memory(4, 4, bad=[2]), make_config()
  with pytest.raises((ImageError, tf.errors.OpError), match="example-2 is damaged"):
    batches_of(source, config)


def test_skipped_images_have_no_weight_and_say_why(caplog):
  source, config = Memory(4, 4, bad=[2, 5]), make_config(on_bad_image="skip")
  read = Reader(source, config.data)
  with caplog.at_level(logging.WARNING):
    batches = list(train_batches(source, read, config, start_step=0))
  for batch in batches:
    bad = np.isin(batch["index"], [2, 5])
    np.testing.assert_array_equal(batch["weight"], np.where(bad, 0.0, 1.0))
    assert np.all(batch["mask"][bad] == UNKNOWN)
    assert np.all(batch["image"][bad] == 0)
  assert set(read.skipped) == {"example-2", "example-5"}
  assert "damaged" in read.skipped["example-2"]
  # Once each, however many epochs.
  assert sum("example-2" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("limit", [0, 1, 2, 3])
def test_more_bad_images_than_the_limit_are_an_error(limit):
  source = Memory(4, 4, bad=[1, 3, 6])
  read = Reader(source, make_config(on_bad_image="skip", max_bad_images=limit).data)
  refused = []
  for index in (1, 1, 1, 3, 3, 6, 0):
    try:
      read(index)
    except ImageError as error:
      refused.append(str(error))
  assert bool(refused) == (limit < 3)
  assert all(f"data.max_bad_images={limit}" in text and "damaged" in text for text in refused)


def test_a_truncated_file_is_named_through_the_pipeline(tmp_path):
  for folder in ("landslide", "non-landslide"):
    (tmp_path / folder).mkdir()
    for i in range(5):
      image = np.random.default_rng(i).integers(0, 256, (16, 16, 3), np.uint8)
      Image.fromarray(image).save(tmp_path / folder / f"{i}.png")
  path = tmp_path / "landslide" / "1.png"
  path.write_bytes(path.read_bytes()[:300])
  config = make_config(directory=str(tmp_path))
  source = sources.open_source(config.data, "train")
  with pytest.raises((ImageError, tf.errors.OpError), match=r"landslide/1\.png"):
    batches_of(source, config)


@pytest.mark.parametrize(("gib", "reads"), [(1.0, 1), (0.0, 3)])
def test_decoded_images_are_cached_up_to_the_limit(gib, reads):
  source = Memory(2, 2)
  read = Reader(source, make_config(decoded_cache_gib=gib).data)
  results = [read(1)[0] for _ in range(3)]
  assert len(source.reads) == reads
  np.testing.assert_array_equal(results[0], results[-1])


@pytest.mark.parametrize("side", [4, 16, 24])
def test_images_are_resized_and_masks_keep_their_values(side):
  source = Memory(1, 1, side=side)
  image, mask, weight = Reader(source, make_config().data)(1)
  assert (image.shape, image.dtype) == ((SIDE, SIDE, 3), np.float32)
  assert (mask.shape, mask.dtype) == ((SIDE, SIDE), np.uint8)
  assert weight == 1
  np.testing.assert_allclose(image[..., 0], 1 / 255, atol=1e-6)
  assert set(np.unique(mask)) <= {0, 1}
  raw = source.read(1)[0] / 255.0
  assert image.mean() == pytest.approx(raw.mean(), abs=0.02)
  if side > SIDE:  # Shrinking averages.
    assert image[..., 1].std() < 0.8 * raw[..., 1].std()


@pytest.mark.parametrize(
  ("dtype", "value", "max_value", "expected"),
  [(np.uint8, 255, 0.0, 1.0), (np.uint8, 51, 0.0, 0.2), (np.uint16, 65535, 0.0, 1.0),
   (np.uint16, 1000, 0.0, 1000 / 65535), (np.uint16, 1000, 10000.0, 0.1),
   (np.float32, 0.25, 0.0, 0.25), (np.float32, 30.0, 120.0, 0.25), (np.int16, 32767, 0.0, 1.0)],
)
def test_scaling_to_the_unit_range(dtype, value, max_value, expected):
  scaled = scaling.normalise(np.full((2, 2, 3), value, dtype), DataConfig(max_value=max_value))
  assert scaled.dtype == np.float32
  np.testing.assert_allclose(scaled, expected, rtol=1e-6)
