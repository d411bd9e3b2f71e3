"""Evaluation of maps against references, compared with whole arrays whose regions scipy labels."""

import dataclasses
import json
import logging

import numpy as np
import pytest
import rasterio
import scipy.ndimage
import shapely
from absl.testing import flagsaver
from affine import Affine
from PIL import Image
from rasterio.crs import CRS

from lgag_jax import main
from lgag_jax.config import Config, DataConfig
from lgag_jax.evaluation import metrics
from lgag_jax.geo import placement, scale
from lgag_jax.geo.scene import open_scene
from lgag_jax.imagery.reading import UNKNOWN
from lgag_jax.mapping import (
  judge,
  maps_table,
  predict,
  products,
  rasters,
  reference_files,
  scene_tables,
)
from lgag_jax.mapping.products import ScenePlan
from lgag_jax.mapping.row_store import RowStore
from lgag_jax.options.mapping import Options, References
from lgag_jax.runtime import files
from tests.test_reference import covered, on_earth, write_layer

NAMES = ("slide", "flow")
TRANSFORM = Affine(10, 0, 5e5, 0, -10, 3e6)
PIXEL = 100 / 0.9996**2  # Square metres: the scale on a UTM zone's central meridian is 0.9996.
RATES = ("precision", "recall", "f1", "iou", "accuracy", "kappa")


@pytest.fixture(autouse=True)
def blocks(monkeypatch):
  """Reads blocks of 32 rows, so that regions reach over several."""
  monkeypatch.setattr(rasters, "_TILE_SIDE", 32)
  monkeypatch.setattr(rasters, "PIXELS_AT_ONCE", 1)


def write_raster(path, array, crs="EPSG:32644"):
  array = array[None] if array.ndim == 2 else array
  with rasterio.open(
    path, "w", driver="GTiff", height=array.shape[1], width=array.shape[2], count=len(array),
    dtype=array.dtype, crs=CRS.from_user_input(crs), transform=TRANSFORM,
  ) as raster:
    raster.write(array)
  return path


def noise(rng, shape, cuts):
  """Returns ragged regions of two classes that touch."""
  return np.digitize(scipy.ndimage.gaussian_filter(rng.normal(size=shape), 1.5), cuts).astype(np.uint8)


def random_map(seed, shape):
  """Returns scores f32[H, W, 2], their mask at the threshold 0.5, and a truth."""
  rng = np.random.default_rng(seed)
  truth = noise(rng, shape, (0.05, 0.2))
  mine = np.where(rng.random(shape) < 0.9, np.roll(truth, 2, axis=1), noise(rng, shape, (0.1, 0.25)))
  scores = np.stack([rng.uniform(0.5 * (mine == c), 0.5 + 0.5 * (mine == c)) for c in (1, 2)], axis=-1)
  return scores.astype(np.float32), mine.astype(np.uint8), truth


def write_map(scene, output, scores, mask, options, config):
  """Writes the products of a scene from scores and mask; returns the scene's plan."""
  with open_scene(scene, 3) as opened:
    grid = opened.grid
  plan = ScenePlan(scene, scene.stem, grid, scale.WindowPlan(1, 32, 32), "key", gated=False)
  store = RowStore(
    plan.working_folder(output), "key", (0, grid.height), grid.width, scores.shape[-1], options.dtype
  )
  stored = np.round(scores * 100).astype(np.uint8) if options.probability == "percent" else scores
  stored = stored.copy()
  stored[mask == rasters.NO_DATA] = rasters.NO_DATA if options.probability == "percent" else np.nan
  store.write(0, stored, mask)
  products.write(plan, [store], scores.max((0, 1)), None, {}, output, config, options)
  return plan


def evaluate(plans, references, output, options, config, **reference_options):
  thresholds = [0.5] * len(config.data.classes)
  result = predict.MappingResult([], plans, config, 7, thresholds, {})
  paths = {plan.path: path for plan, path in zip(plans, references, strict=True) if path}
  return judge.evaluate_maps(
    result, paths, output, options, References(labels="references", **reference_options)
  )


def config_of(names):
  return Config(data=DataConfig(classes=names, image_size=32))


def expected_pixels(maps, c, *, percent):
  """Returns rates of whole arrays, and the best threshold with its IoU."""
  pairs = []
  for scores, mask, truth in maps:
    known = (mask != 255) & (truth != UNKNOWN)
    own = np.where((mask == 0) | (mask == c), scores[..., c - 1], 0.0)  # One class at most.
    pairs.append((own[known], mask[known] == c, truth[known] == c))
  score, mapped, true = (np.concatenate(part) for part in zip(*pairs, strict=True))
  tp, fp, fn = (np.sum(x) for x in (mapped & true, mapped & ~true, ~mapped & true))
  n, tn = len(true), np.sum(~mapped & ~true)
  chance = ((tp + fp) * (tp + fn) + (fn + tn) * (fp + tn)) / n**2
  rates = (
    tp / (tp + fp), tp / (tp + fn), 2 * tp / (2 * tp + fp + fn), tp / (tp + fp + fn), (tp + tn) / n,
    ((tp + tn) / n - chance) / (1 - chance),
  )
  steps = 100 if percent else metrics.BINS
  levels = np.round(score * 100) if percent else np.floor(score * steps)
  ious = [np.sum((levels >= t) & true) / np.sum((levels >= t) | true) for t in range(steps + 1)]
  return rates, np.argmax(ious) / steps, np.max(ious)


def expected_objects(maps, c, least, min_pixels):
  """Returns landslides and polygons as (pixels, share), and the number of unknown polygons."""
  landslides, polygons, unknown = [], [], 0
  for _, mask, truth in maps:
    true = (truth == c) & (mask != 255)
    kept = np.zeros(mask.shape, bool)
    labels, count = scipy.ndimage.label(mask == c)
    for i in range(1, count + 1):
      inside = labels == i
      if inside.sum() < min_pixels:
        continue
      kept |= inside
      known = inside & (truth != UNKNOWN)
      unknown += not known.any()
      if known.any():
        polygons.append((inside.sum(), true[known].mean()))
    labels, count = scipy.ndimage.label(true)
    for i in range(1, count + 1):
      landslides.append(((labels == i).sum(), kept[labels == i].mean()))
  return landslides, polygons, unknown


def check_objects(found, landslides, polygons, least, pixel):
  assert found["landslides"] == len(landslides) and found["polygons"] == len(polygons)
  detected = [n for n, share in landslides if share >= least]
  false = [n for n, share in polygons if share < least]
  assert found["detected"] == len(detected) and found["false_alarms"] == len(false)
  assert found["missed"] == len(landslides) - len(detected)
  assert found["recall"] == pytest.approx(len(detected) / len(landslides))
  assert found["precision"] == pytest.approx(1 - len(false) / len(polygons))
  assert found["detected_area"] == pytest.approx(sum(detected) * pixel, rel=1e-4)
  assert found["false_alarms_area"] == pytest.approx(sum(false) * pixel, rel=1e-4)
  edges = [row["from_area"] for row in found["sizes"]]
  for low, high, row in zip(edges, [*edges[1:], np.inf], found["sizes"], strict=True):
    of = lambda rows, low=low, high=high: [r for r in rows if low <= r[0] * pixel < high]
    assert row["landslides"] == len(of(landslides)) and row["polygons"] == len(of(polygons))
    assert row["missed"] == sum(share < least for _, share in of(landslides))
    assert row["false_alarms"] == sum(share < least for _, share in of(polygons))


@pytest.mark.parametrize("probability", ["percent", "float32"])
def test_scenes_are_evaluated_as_whole_arrays_are(tmp_path, probability):
  options = Options(probability=probability, min_area=500)
  config, output, maps, plans, references = config_of(NAMES), tmp_path / "maps", [], [], []
  for seed, shape in enumerate([(70, 50), (40, 60)]):
    scores, mask, truth = random_map(seed, shape)
    mask[20:40, 10:25] = 255
    truth[5:35, 30:48] = UNKNOWN
    scene = write_raster(tmp_path / f"s{seed}.tif", np.full((3, *shape), 90, np.uint8))
    references.append(write_raster(tmp_path / f"r{seed}.tif", truth))
    plans.append(write_map(scene, output, scores, mask, options, config))
    maps.append((scores, mask, truth))
  result = evaluate(plans, references, output, options, config, min_overlap=0.3)
  assert json.loads((output / "eval" / "scenes.json").read_text()) == result
  parts = [(result["classes"], result["pixels"], maps)]
  parts += [(s["classes"], s["pixels"], [m]) for s, m in zip(result["scenes"], maps, strict=True)]
  for classes, pixels, of in parts:
    assert pixels["no_data"] == sum(np.sum(mask == 255) for _, mask, _ in of)
    assert pixels["unknown"] == sum(np.sum((mask != 255) & (truth == UNKNOWN)) for _, mask, truth in of)
    assert sum(pixels.values()) == sum(mask.size for _, mask, _ in of)
    for c, name in enumerate(NAMES, 1):
      values = classes[name]
      rates, threshold, iou = expected_pixels(of, c, percent=probability == "percent")
      np.testing.assert_allclose([values["label_free"][rate] for rate in RATES], rates)
      assert values["label_free"]["threshold"] == 0.5
      assert values["oracle"]["iou"] == pytest.approx(iou)
      assert values["oracle"]["threshold"] == pytest.approx(threshold, abs=1e-9)
      landslides, polygons, unknown = expected_objects(of, c, 0.3, 5)
      objects = values["objects"][0] if isinstance(values["objects"], list) else values["objects"]
      assert objects["unit"] == "m2" and objects["unknown_polygons"] == unknown
      check_objects(objects, landslides, polygons, 0.3, PIXEL)
  assert any(c["objects"]["unknown_polygons"] for s in result["scenes"] for c in s["classes"].values())
  text = (output / "eval" / "scenes.md").read_text()
  assert ("101 levels" in text) == (probability == "percent")
  assert f"{result['classes']['flow']['label_free']['iou']:.3f}" in text
  assert sorted(p.name for p in (output / "eval").iterdir()) == [
    "s0.png", "s1.png", "scenes.json", "scenes.md"
  ]
  assert not result["left_out"]


def test_polygons_of_another_crs_and_the_picture(tmp_path):
  shapes = [shapely.box(5, 5, 25, 15), shapely.box(40, 20, 52, 38)]
  scene = write_raster(tmp_path / "a.tif", np.full((3, 45, 60), 100, np.uint8))
  with open_scene(scene, 3) as opened:
    grid = opened.grid
  labels = write_layer(
    tmp_path / "a.gpkg", [on_earth(x, grid, "EPSG:4326") for x in shapes], crs="EPSG:4326"
  )
  truth = np.minimum(covered(shapes, grid), 1)
  mask = np.zeros((45, 60), np.uint8)
  mask[5:15, 7:25] = 1  # All but two columns of the first, which is detected.
  mask[30:35, 5:15] = 1  # A false alarm.
  mask[37:39, 45:47] = 1  # Half of it lies on the second, too little to detect it.
  scores, options, config = mask[..., None] * 0.9, Options(min_area=0), config_of(("slide",))
  plan = write_map(scene, tmp_path / "maps", scores.astype(np.float32), mask, options, config)
  result = evaluate([plan], [labels], tmp_path / "maps", options, config)
  values = result["classes"]["slide"]
  rates, _, _ = expected_pixels([(scores, mask, truth)], 1, percent=True)
  np.testing.assert_allclose([values["label_free"][rate] for rate in RATES], rates)
  objects = values["objects"][0]
  assert (objects["detected"], objects["missed"], objects["false_alarms"]) == (1, 1, 1)
  assert objects["missed_area"] == pytest.approx(12 * 18 * PIXEL, rel=1e-4)
  picture = np.asarray(Image.open(tmp_path / "maps" / "eval" / "a.png")).astype(int)
  for (row, col), channel in (((10, 15), 1), ((25, 45), 2), ((32, 10), 0)):
    assert picture[row, col].argmax() == channel
  assert len(set(picture[2, 2])) == 1


def test_a_scene_without_crs_is_measured_in_pixels(tmp_path):
  _, mask, truth = random_map(3, (70, 60))
  mask, truth = np.minimum(mask, 1), np.minimum(truth, 1)
  scores = (0.2 + 0.6 * mask[..., None]).astype(np.float32)
  Image.fromarray(np.full((70, 60, 3), 80, np.uint8)).save(tmp_path / "a.png")
  Image.fromarray(truth * 255).save(tmp_path / "truth.png")
  options, config = Options(min_area=6), config_of(("slide",))
  plan = write_map(tmp_path / "a.png", tmp_path / "maps", scores, mask, options, config)
  result = evaluate(
    [plan], [tmp_path / "truth.png"], tmp_path / "maps", options, config, mask_ignore=-1
  )
  objects = result["classes"]["slide"]["objects"][0]
  landslides, polygons, _ = expected_objects([(scores, mask, truth)], 1, 0.1, 6)
  assert objects["unit"] == "pixels"
  check_objects(objects, landslides, polygons, 0.1, 1)


def test_missing_and_empty_references_and_names_that_are_markup(tmp_path, caplog):
  output, options, config = tmp_path / "maps", Options(min_area=0), config_of(("<i>s",))
  plans = []
  for name in ("<b>a|b", "other"):
    scene = write_raster(tmp_path / f"{name}.tif", np.full((3, 40, 40), 90, np.uint8))
    mask = np.zeros((40, 40), np.uint8)
    mask[5:9, 5:9] = 1
    plans.append(write_map(scene, output, mask[..., None] * np.float32(0.8), mask, options, config))
  empty = write_raster(tmp_path / "empty.tif", np.zeros((40, 40), np.uint8))
  with caplog.at_level(logging.WARNING):
    result = evaluate(plans, [empty, None], output, options, config)
  assert "other.tif" in result["left_out"] and "other.tif" in caplog.text
  objects = result["classes"]["<i>s"]["objects"][0]
  assert objects["recall"] is None and objects["f1"] is None
  assert (objects["precision"], objects["false_alarms"]) == (0.0, 1)
  assert result["classes"]["<i>s"]["label_free"]["iou"] == 0.0
  page, text = (output / "report.html").read_text(), (output / "eval" / "scenes.md").read_text()
  for written in (page, text):
    assert "&lt;b&gt;a" in written and "<b>a" not in written and "<i>s" not in written
    assert "No reference shows the class" in written
  assert "a\\|b.tif" in text
  assert page.count("data:image/jpeg") == 5  # Two maps with their images, one map evaluated.
  with pytest.raises(ValueError, match="no reference of this name"):
    evaluate(plans, [None, None], output, options, config)


def test_references_are_found_by_name(tmp_path):
  find = reference_files.find
  scenes = [tmp_path / "in" / f"{name}.tif" for name in "abc"]
  labels = tmp_path / "labels"
  for path in (*scenes, *(labels / n for n in ("a.gpkg", "c.png", "c.dbf", "d.gpkg", "a.txt"))):
    path.parent.mkdir(exist_ok=True)
    path.touch()
  assert find(scenes, str(labels)) == {scenes[0]: labels / "a.gpkg", scenes[2]: labels / "c.png"}
  assert find(scenes, f"{labels}/*.png") == {scenes[2]: labels / "c.png"}
  assert find(scenes, str(labels / "d.gpkg")) == dict.fromkeys(scenes, labels / "d.gpkg")
  assert find(scenes[:1], str(labels / "c.png")) == {scenes[0]: labels / "c.png"}
  for path, words in (
    (labels / "c.png", "one mask for 3 scenes"), (tmp_path / "in", "no file with a scene's name"),
    (tmp_path / "none", "it would be a.gpkg"),
  ):
    with pytest.raises(ValueError, match=words):
      find(scenes, str(path))
  (labels / "a.shp").touch()
  with pytest.raises(ValueError, match="both references of a"):
    find(scenes, str(labels))


@pytest.mark.parametrize(("first", "second", "reference", "refused"), [
  ("in/a.tif", "more/a.tif", "a.png", True), ("in/a.tif", "in/a.png", "a.tif", True),
  ("in/a.tif", "more/a.tif", "a.gpkg", True), ("in/a.tif", "in/a.png", "a.shp", True),
  ("in/a.tif", "more/á.tif", "a.gpkg", False), ("in/a.tif", "in/b.tif", "a.png", False),
])
def test_two_scenes_never_share_a_reference_by_name(tmp_path, first, second, reference, refused):
  scenes = [tmp_path / first, tmp_path / second]
  for path in (*scenes, tmp_path / "labels" / reference):
    path.parent.mkdir(exist_ok=True)
    path.touch()
  if refused:
    words = rf"would both have the reference .*labels/{reference}: give .* Or name one layer"
    with pytest.raises(ValueError, match=words):
      reference_files.find(scenes, str(tmp_path / "labels"))
    layer = tmp_path / "labels/all.gpkg"
    layer.touch()
    assert reference_files.find(scenes, str(layer)) == dict.fromkeys(scenes, layer)  # The remedy.
  else:
    assert reference_files.find(scenes, str(tmp_path / "labels"))[scenes[0]].name == reference


def test_bad_references_are_reported_before_anything_is_mapped(tmp_path, monkeypatch):
  scene = write_raster(tmp_path / "a.tif", np.full((3, 24, 30), 90, np.uint8))
  monkeypatch.setattr(judge.configs, "load", lambda path: config_of(("landslide",)))
  monkeypatch.setattr(predict, "map_scenes", lambda *_: pytest.fail("mapped"))
  points = write_layer(tmp_path / "points.gpkg", [shapely.Point(5e5 + 20, 3e6 - 20)])
  small = tmp_path / "small.png"
  Image.fromarray(np.zeros((4, 4), np.uint8)).save(small)
  for labels, words in ((points, "points.gpkg holds points"), (small, r"small.png is \(4, 4\)")):
    reference_options = References(labels=str(labels))
    with pytest.raises(ValueError, match=words):
      judge.evaluate(tmp_path, scene, tmp_path / "out", Options(), reference_options)
  for field, value in (("min_overlap", 0.0), ("labels", "")):
    with pytest.raises(ValueError, match=f"--{field}"):
      dataclasses.replace(References(labels="x"), **{field: value})


def test_an_evaluation_does_not_replace_a_map_of_more_flags(tmp_path, monkeypatch):
  """It would drop the slopes and the event of the polygons, and map flat ground again."""
  scene = write_raster(tmp_path / "a.tif", np.full((3, 24, 30), 90, np.uint8))
  labels = write_raster(tmp_path / "labels.tif", np.zeros((1, 24, 30), np.uint8))
  made = Options(dem=str(tmp_path / "dem.tif"), min_slope=10, event="A b", threshold=(0.6,))
  record = {"stem": "a_tif", "path": str(scene), "flags": made.flags()}
  files.write_json(tmp_path / "maps/scenes/a_tif.json", record)
  monkeypatch.setattr(judge.configs, "load", lambda path: config_of(("landslide",)))
  monkeypatch.setattr(predict, "map_scenes", lambda *_: pytest.fail("mapped"))
  references = References(labels=str(labels))
  words = r"made with --dem=\S+ --min_slope=10\.0 '--event=A b'\. Give the same flags"
  with pytest.raises(ValueError, match=words):
    judge.evaluate(tmp_path, scene, tmp_path / "maps", Options(threshold=(0.5,)), references)
  for output, options in (("maps", made), ("other", Options())):
    with pytest.raises(pytest.fail.Exception, match="mapped"):
      judge.evaluate(tmp_path, scene, tmp_path / output, options, references)


@pytest.mark.parametrize(("value", "text"), [
  (0, "0 m²"), (0.00123, "0.0012 m²"), (0.5, "0.5 m²"), (1.4, "1 m²"), (9000, "9,000 m²"),
  (12000, "1.20 ha"), (3e6, "3.00 km²"),
])
def test_small_areas_are_no_zero(value, text):
  assert scene_tables.area(value) == text
  if value:
    assert maps_table.rounded(value, 2) > 0
    assert maps_table.rounded(value, 1) == pytest.approx(value, abs=0.05)


def test_an_unknown_area_is_not_zero_square_metres(tmp_path):
  """A scene whose coordinates lie nowhere on the Earth, since its CRS is not its own."""
  scene = write_raster(tmp_path / "a.tif", np.full((3, 20, 20), 90, np.uint8), crs="EPSG:4326")
  mask = np.zeros((20, 20), np.uint8)
  mask[5:9, 5:9] = 1
  truth = write_raster(tmp_path / "truth.tif", mask, crs="EPSG:4326")
  options, config = Options(min_area=0), config_of(("slide",))
  plan = write_map(scene, tmp_path / "maps", mask[..., None] * np.float32(0.8), mask, options, config)
  assert "lie nowhere on the Earth" in placement.warnings(plan.grid, scene)[0]
  result = evaluate([plan], [truth], tmp_path / "maps", options, config)
  objects = result["classes"]["slide"]["objects"][0]
  assert (objects["landslides"], objects["detected"]) == (1, 1)
  text = (tmp_path / "maps" / "eval" / "scenes.md").read_text()
  assert "1 (area unknown) | 1 (area unknown) | 0 (0 m²) | 1 (area unknown)" in text


@pytest.mark.parametrize("reasons", [{}, {"/b.tif": "/b.tif is <i>damaged</i>."}])
def test_a_scene_that_could_not_be_mapped_is_no_success(tmp_path, monkeypatch, reasons):
  output, options, config = tmp_path / "maps", Options(min_area=0), config_of(("slide",))
  scene = write_raster(tmp_path / "a.tif", np.full((3, 40, 40), 90, np.uint8))
  mask = np.pad(np.ones((4, 4), np.uint8), 18)
  plan = write_map(scene, output, mask[..., None] * np.float32(0.8), mask, options, config)
  reference = write_raster(tmp_path / "reference.tif", mask)
  result = predict.MappingResult([], [plan], config, 7, [0.5], reasons)
  content = judge.evaluate_maps(result, {scene: reference}, output, options, References(labels="r"))
  assert content["unmapped"] == [*reasons.values()] and len(content["scenes"]) == 1
  text = (output / "eval" / "scenes.md").read_text()
  assert text.count("Not mapped, and so not evaluated: /b.tif is &lt;i&gt;damaged") == len(reasons)
  monkeypatch.setattr(judge, "evaluate", lambda *_: content)
  with flagsaver.flagsaver():
    main._FLAGS(["lgag", f"--output={output}", "--input=in"])
    if not reasons:
      main._evaluate(tmp_path, options, References(labels="r"))
      return
    with pytest.raises(SystemExit) as ended:
      main._evaluate(tmp_path, options, References(labels="r"))
  assert ended.value.code == 2
