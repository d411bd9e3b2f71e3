"""Maps that are far too large or too small are told from the labels of images alone, on both pages."""

import json

import numpy as np
import pytest

from lgag_jax.config import Config, RefineConfig
from lgag_jax.evaluation import diagnose, metrics, tables
from lgag_jax.mapping import predict
from lgag_jax.options.mapping import Options
from tests.test_diagnose import a_map, classifier
from tests.test_map_names import model  # noqa: F401
from tests.test_mapping import batch_sizes, picture, write_scene  # noqa: F401

CONFIG = Config(refine=RefineConfig(colour_evidence=False))
# Mapped shares of positive and of negative images, and how the finding begins.
BAD = {
  "white": (0.95, 0.0, "error", "Maps are white: in 8 of 8 images called positive"),
  "black": (0.0, 0.0, "error", "Maps are black: in 8 of 8 positive images"),
  "on negatives": (0.3, 0.25, "warning", "Negative images are mapped: 25 % of their pixels"),
}


def coverage(positive, negative, count=8):
  """Returns the coverage of maps of 10 x 10 pixels without masks, of which these shares are mapped."""
  shares = np.repeat([positive, negative], count)
  labels = np.repeat([1.0, 0.0], count)
  counts = {"mapped": 100 * shares, "all": np.full(2 * count, 100.0)}
  counts |= {name: np.zeros(2 * count) for name in ("truth", "known")}
  return metrics.coverage(counts, labels, labels > 0)


def evaluation(validation, training, step=1):
  """Returns what an evaluation without masks writes."""
  values = a_map(iou=0.0, oracle=0.0, pixels=0.0, **validation)
  image = classifier(np.full(20, 0.97), np.full(20, 0.03))
  found = diagnose.findings(image, values, CONFIG, None, {"image": image, "coverage": training})
  return {"step": step, "map": "m", "classes": {"landslide": {
    "image": image, "diagnosis": found, "training_coverage": training,
    "maps": {"m": values | {"recall_by_size": []}},
  }}}


@pytest.mark.usefixtures("batch_sizes")
@pytest.mark.parametrize("split", ["validation", "training"])
@pytest.mark.parametrize("kind", BAD)
def test_bad_maps_are_told_in_report_and_page(model, tmp_path, kind, split):  # noqa: F811
  positive, negative, level, text = BAD[kind]
  parts = {name: coverage(0.3, 0.001) for name in ("validation", "training")}
  parts[split] = coverage(positive, negative)
  content = evaluation(parts["validation"], parts["training"])
  (summary,) = tables.summarise(content)
  ((found_level, found_text, remedy),) = summary.findings
  if split == "training":
    text = f"On the training images: {text[0].lower()}{text[1:]}"
  assert (found_level, found_text[: len(text)]) == (level, text)
  assert remedy
  assert summary.coverage is not None
  column = summary.coverage.columns.index(split)
  bad, rows = coverage(positive, negative), summary.coverage.rows
  assert [row[column] for row in rows] == [
    f"{bad['black']} of 8", f"{bad['white']} of 8", f"{100 * negative:.3g} %"]
  (model.workdir / "eval").mkdir()
  (model.workdir / "eval/validation.json").write_text(json.dumps(content))
  scene = write_scene(tmp_path / "a.tif", picture(64, 64))
  predict.map_scenes(model, scene, tmp_path / "maps", Options(threshold=(0.55,)))
  page = (tmp_path / "maps/report.html").read_text()
  assert text in page.split("Before you use the maps")[1]
  assert "--threshold set another threshold or gate" in page


@pytest.mark.usefixtures("batch_sizes")
def test_good_maps_and_findings_of_another_step_are_not_told(model, tmp_path):  # noqa: F811
  good = evaluation(coverage(0.3, 0.001), coverage(0.2, 0.0))
  assert good["classes"]["landslide"]["diagnosis"] == []
  scene = write_scene(tmp_path / "a.tif", picture(64, 64))
  (model.workdir / "eval").mkdir()
  for content in (good, evaluation(coverage(0.95, 0.9), coverage(0.9, 0.9), step=2), {"step": 1}):
    (model.workdir / "eval/validation.json").write_text(json.dumps(content))
    (tmp_path / "maps/report.html").unlink(missing_ok=True)
    predict.map_scenes(model, scene, tmp_path / "maps", Options())
    assert "Before you use the maps" not in (tmp_path / "maps/report.html").read_text()


@pytest.mark.usefixtures("batch_sizes")
@pytest.mark.parametrize(("level", "text"), [(20, "Every map is black"), (240, "Every map is white")])
def test_the_page_says_that_all_maps_are_blank(model, tmp_path, level, text):  # noqa: F811
  scene = write_scene(tmp_path / "a.tif", np.full((64, 64, 3), level, np.uint8))
  predict.map_scenes(model, scene, tmp_path / "maps", Options())
  assert text in (tmp_path / "maps/report.html").read_text()
