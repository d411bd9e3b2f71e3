"""The doctor examines pairs of images (data.before) from each source of them."""

import csv
import dataclasses

import numpy as np
import pytest
import rasterio
import tensorflow_datasets as tfds

from lgag_jax.doctor import estimate
from lgag_jax.inputs import tfds_source
from lgag_jax.method import network
from tests.test_doctor import COUNT, NO, SIDE, YES, folder, named, patches, save, scene, visit, worse


@pytest.fixture(autouse=True, scope="module")
def one_plan():
  """Computes the network's shapes once: it takes longer than the tests here."""
  with pytest.MonkeyPatch.context() as patch:
    known, make = [], estimate.plan

    def plan(config):
      known.extend([] if known else [make(config)])
      return dataclasses.replace(known[0], network=network.build(config))

    patch.setattr(estimate, "plan", plan)
    yield


def before_of(path):
  """Returns an image before the event: the one after, brighter."""
  with rasterio.open(path) as file:
    return np.moveaxis(np.clip(file.read().astype(int) + 40, 0, 255).astype(np.uint8), 0, -1)


def images_of(root):
  return sorted(path for name in (YES, NO, "images") for path in (root / name).glob("*.png"))


def flat_folder(root):
  folder(root, COUNT)
  for path in images_of(root):
    save(root / "before" / path.name, before_of(path))
  return {"before": "before"}


def folder_of_classes(root):
  folder(root, COUNT)
  for path in images_of(root):
    save(root / "earlier" / path.parent.name / path.name, before_of(path))
  return {"before": "earlier", "max_shift": 0.0}


def stacked(root):
  folder(root, COUNT)
  for path in images_of(root):
    with rasterio.open(path) as file:
      both = np.concatenate([file.read(), np.moveaxis(before_of(path), -1, 0)])
    with rasterio.open(path.with_suffix(".tif"), "w", driver="GTiff", height=SIDE, width=SIDE, count=6,
                       dtype="uint8", photometric="MINISBLACK") as file:
      file.write(both)
    path.unlink()
  return {"before": "stacked"}


def manifest(root):
  flat_folder(root)
  with (root / "manifest.csv").open("w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["image", "split", "before"])
    for number, path in enumerate(images_of(root)):
      split = "train" if number % 5 else "validation"
      table.writerow([path.relative_to(root).as_posix(), split, f"before/{path.name}"])
  return {"before": "manifest"}


def patches_with_masks(root):
  patches(root, 2 * COUNT)
  for path in images_of(root):
    save(root / "before" / path.name, before_of(path))
  return {"before": "before", "source": "patches"}


class Pairs(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Images of both dates."""

  name = "pairs"
  VERSION = tfds.core.Version("1.0.0")

  def _info(self):
    image = lambda: tfds.features.Image(shape=(None, None, 3), dtype=np.uint8, encoding_format="png")
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({
      "image": image(), "earlier": image(), "label": tfds.features.ClassLabel(names=[NO, YES]),
    }))

  def _split_generators(self, dl_manager):
    return {"train": self._generate_examples(0), "validation": self._generate_examples(1000)}

  def _generate_examples(self, first):
    for i in range(2 * COUNT if first == 0 else COUNT):
      yield i, {"image": scene(first + i), "earlier": scene(first + i), "label": i % 2}


def first_numbers(text):
  return [float(number) for number in text[text.index("(") + 1 : text.index(")")].split(",")]


def builder(root):
  root.mkdir()
  return {"before": "earlier", "source": "tfds", "builder": "pairs"}


@pytest.mark.parametrize("make", [
  flat_folder, folder_of_classes, stacked, manifest, patches_with_masks, builder,
])
def test_pairs_of_each_source_have_notes_only(tmp_path, monkeypatch, make):
  root = tmp_path / "data"
  fields = make(root)
  monkeypatch.setattr(tfds_source, "open_builder", lambda config: Pairs(data_dir=tmp_path / "tfds"))
  code, report = visit(root, tmp_path, **fields)
  assert (code, worse(report)) == (0, [])
  assert report["images"] == (3 if make is builder else 2) * COUNT
  (text,) = [f["what"] for f in report["findings"] if "standard deviations" in f["what"]]
  assert text.startswith("The channels of the images after the event have means (")
  np.testing.assert_allclose(first_numbers(text), [0.5, 0.5, 0.5], atol=0.03)


@pytest.mark.parametrize(("fields", "bands"), [
  ({"normalise": "given", "mean": (128.0,) * 6, "std": (45.0,) * 6}, 6), ({"normalise": "train"}, 6),
  ({"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}, 3),
])
def test_values_of_pairs_are_compared_with_each_normalisation(tmp_path, fields, bands):
  root = tmp_path / "data"
  code, report = visit(root, tmp_path, **flat_folder(root), **fields)
  assert (code, worse(report)) == (0, [])
  (text,) = [f["what"] for f in report["findings"] if "mean" in f["what"] and "(" in f["what"]]
  assert len(first_numbers(text)) == bands


def test_values_that_do_not_fit_are_named_with_settings_for_each_date(tmp_path):
  root = tmp_path / "data"
  fields = flat_folder(root) | {"mean": (0.1, 0.1, 0.1), "std": (0.02, 0.02, 0.02)}
  fault = named(visit(root, tmp_path, **fields)[1], "The trunk was trained on means of 0")
  mean = first_numbers(fault["remedy"])  # As data.mean needs it.
  np.testing.assert_allclose(mean, [0.5, 0.5, 0.5], atol=0.03)


def test_one_date_in_files_of_two_is_named(tmp_path):
  root = tmp_path / "data"
  fields = stacked(root)
  save(root / YES / "l00.png", scene(5000))
  (root / YES / "l00.tif").unlink()
  code, report = visit(root, tmp_path, **fields)
  assert code == 1
  assert named(report, "with 3 channels, not 6")["files"] == [f"{YES}/l00.png"]
