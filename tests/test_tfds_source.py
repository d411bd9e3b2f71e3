"""TFDS builders: images of any type and number of channels, several classes per image."""

import hashlib
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

from lgag_jax.config import Config, DataConfig
from lgag_jax.imagery.reading import UNKNOWN, ImageError
from lgag_jax.inputs import image_bytes, tfds_masks, tfds_source
from lgag_jax.training import examples_record

CLASSES = ("fall", "flow", "scar")


def image_of(number, dtype):
  rng = np.random.default_rng(number)
  if dtype == np.uint16:
    return rng.integers(0, 1 << 16, (6, 5 + number, 14), dtype, endpoint=False)
  return rng.normal(-50, 300, (6, 5 + number, 14)).astype(dtype)


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Four images; image i shows the first i classes, and one pixel of each image misses a band."""

  name = "many_bands"
  VERSION = tfds.core.Version("1.0.0")
  kind = np.float32

  def _info(self):
    tensor = lambda shape, dtype: tfds.features.Tensor(shape=shape, dtype=dtype, encoding="zlib")
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({
      "image": tensor((None, None, 14), self.kind), "mask": tensor((None, None), np.uint8),
      "label": tfds.features.Sequence(tfds.features.ClassLabel(names=CLASSES)),
    }))

  def _split_generators(self, dl_manager):
    return {"train": self._generate_examples()}

  def _generate_examples(self):
    for i in range(4):
      image = image_of(i, self.kind)
      if self.kind == np.float32:
        image[2, 3, 9] = np.nan
      mask = np.full(image.shape[:2], i, np.uint8)
      yield i, {"image": image, "mask": mask, "label": list(range(i))}


class Integers(Builder):
  name = "many_integers"
  kind = np.uint16


@pytest.mark.parametrize("builder", [Builder, Integers])
def test_images_of_many_bands_come_back_in_their_own_type(tmp_path, monkeypatch, builder):
  monkeypatch.setattr(tfds_source, "open_builder", lambda config: builder(data_dir=tmp_path))
  config = DataConfig(source="tfds", builder="toy", channels=14, classes=CLASSES[::-1])
  source = tfds_source.TfdsSource(config, "train")
  order = (source.labels.sum(axis=1)).astype(int)  # TFDS shuffles.
  assert sorted(order) == [0, 1, 2, 3]
  np.testing.assert_array_equal(source.labels, np.arange(3)[::-1] < order[:, None])
  for index, number in enumerate(order):
    (image, mask), (same, valid) = source.read(index), source.read_valid_pixels(index)
    expected, missing = image_of(number, builder.kind), np.zeros(image.shape[:2], bool)
    missing[2, 3] = builder.kind == np.float32
    assert image.dtype == same.dtype == builder.kind
    np.testing.assert_array_equal(image, same)
    np.testing.assert_array_equal(valid, ~missing)
    np.testing.assert_array_equal(image[valid], expected[valid])
    if missing.any():
      np.testing.assert_allclose(image[2, 3], expected[valid].mean(axis=0), rtol=1e-4)
    np.testing.assert_array_equal(mask, np.where(missing, UNKNOWN, number))
  with pytest.raises(ImageError, match="has 14 channels, not 3"):
    tfds_source.TfdsSource(DataConfig(source="tfds", classes=CLASSES), "train").read(0)
  with pytest.raises(ValueError, match=r"data\.classes names 'slide'.*choose from \['fall'"):
    tfds_source.TfdsSource(DataConfig(source="tfds", classes=("slide",)), "train")


class Rebuilt(Builder):
  """The same set, built anew from other pixels."""

  name = Builder.name

  def _generate_examples(self):
    for i, example in super()._generate_examples():
      yield i, example | {"image": example["image"] + np.float32(i == 2)}


def test_a_set_built_anew_under_the_same_version_is_noticed(tmp_path, monkeypatch):
  def source(builder, folder):
    monkeypatch.setattr(tfds_source, "open_builder", lambda _: builder(data_dir=tmp_path / folder))
    return tfds_source.TfdsSource(config.data, "train")

  config = Config(data=DataConfig(source="tfds", builder="toy", channels=14, classes=CLASSES))
  first = source(Builder, "a")
  examples_record.write({"train": first}, tmp_path, config)
  shutil.copytree(tmp_path / "a", tmp_path / "copy")  # With other times, or elsewhere: no change.
  copy = source(Builder, "copy")
  examples_record.check({"train": copy}, tmp_path, config)
  shutil.rmtree(tmp_path / "a")
  again = source(Builder, "again")  # The files' bytes differ.
  examples_record.check({"train": again}, tmp_path, config)
  rebuilt = source(Rebuilt, "a")
  assert rebuilt.ids == first.ids and rebuilt.keys != first.keys != copy.keys  # Cached outputs differ.
  with pytest.raises(ValueError, match="other pixels in images of the same names"):
    examples_record.check({"train": rebuilt}, tmp_path, config)
  earlier = dict.fromkeys(("state", "content"), hashlib.sha256().hexdigest())
  assert not image_bytes.has_changed(earlier, rebuilt)  # Of a release that recorded no such files.


@pytest.mark.parametrize(("ignore", "masks", "expected"), [
  (-2, [(True, [0, 255]), (False, [0, 0])], [0, 1]),  # As people draw them.
  (-2, [(True, [0, 255]), (False, [0, 0]), (True, [0, 1])], [0, UNKNOWN]),
  (-2, [(True, [255, 255]), (False, [0, 0])], [UNKNOWN, UNKNOWN]),  # No landslide is drawn.
  (-2, [(True, [0, 0]), (False, [0, 255])], [0, UNKNOWN]),
  (7, [(True, [0, 255]), (True, [7, 0])], [0, 1]),
  (255, [(True, [0, 255]), (False, [0, 0])], [0, UNKNOWN]),
  (-1, [(True, [0, 255]), (True, [0, 1])], [0, 1]),
])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_masks_of_a_set_decide_what_255_means(ignore, masks, expected, dtype):
  arrays = [(positive, np.array([values], dtype)) for positive, values in masks]
  first = next(array for _, array in arrays if 255 in array)
  found = tfds_masks.as_classes(
    first, "a", classes=1, ignore=ignore, is_unknown=lambda: tfds_masks.is_unknown_code(arrays, ignore)
  )
  assert found.dtype == np.uint8 and found.tolist() == [expected]


def two_classes(values):
  return tfds_masks.as_classes(values, "x", classes=2, ignore=-2, is_unknown=lambda: False)


@pytest.mark.parametrize(("values", "expected"), [
  (np.array([[0, np.nan, 1, np.inf]], np.float32), [[0, UNKNOWN, 1, UNKNOWN]]),
  (np.array([[[0, 0], [2, 2]]], np.uint8), [[0, 2]]), (np.array([[True, False]]), [[1, 0]]),
  (np.array([[1, 255]], np.uint8), [[1, UNKNOWN]]),
])
def test_masks_of_several_classes(values, expected):
  assert two_classes(values).tolist() == expected


@pytest.mark.parametrize(("values", "message"), [
  (np.array([[0, 0.3, 0.6, 1]], np.float32), "holds 0.3 between classes.*nearest"),
  (np.array([[[0, 1], [1, 0]]], np.uint8), "has 2 bands, and bands 1 and 2 differ"),
  (np.array([[0, 128]], np.uint8), "holds class 128, but data.classes has only 2.*mask_ignore"),
])
def test_masks_without_a_clear_meaning_are_refused(values, message):
  with pytest.raises(ImageError, match=f"The mask of x {message}"):
    two_classes(values)


class Drawn(Builder):
  """Masks of 0 and 255, as drawing programs save them."""

  name = "drawn"

  def _split_generators(self, dl_manager):
    return {"train": self._generate_examples(), "rest": self._generate_examples()}

  def _generate_examples(self):
    for i, example in super()._generate_examples():
      mask = np.zeros_like(example["mask"])
      mask[0] = 255 * (i > 0)
      yield i, example | {"mask": mask}


def test_masks_of_0_and_255_show_landslides(tmp_path, monkeypatch):
  monkeypatch.setattr(tfds_source, "open_builder", lambda config: Drawn(data_dir=tmp_path))
  source = tfds_source.TfdsSource(DataConfig(source="tfds", channels=14, classes=CLASSES[:1]), "train")
  for index in range(4):
    image, mask = source.read(index)
    expected = np.zeros(image.shape[:2], np.uint8)
    expected[0] = source.labels[index, 0]
    expected[2, 3] = UNKNOWN  # The image has no data there.
    np.testing.assert_array_equal(mask, expected)
