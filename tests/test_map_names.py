"""Names of maps: scenes of one name keep their own maps; names of any length and alphabet work."""

import csv
import errno
import json
import logging
import os
import pathlib
import shutil
import types
import warnings

import numpy as np
import pytest

from lgag_jax.geo import scale
from lgag_jax.imagery import tables
from lgag_jax.mapping import products
from lgag_jax.mapping.predict import LoadedModel, map_scenes
from lgag_jax.runtime import files, sharding
from tests.test_mapping import CONFIG, SIDE, batch_sizes, picture, read, write_scene  # noqa: F401

pytestmark = pytest.mark.usefixtures("batch_sizes")


@pytest.fixture
def model(tmp_path):
  """A model whose scores are the brightness of pixels."""
  workdir = tmp_path / "run"
  workdir.mkdir()
  (workdir / "config.json").write_text("{}")
  return LoadedModel(
    workdir, CONFIG, types.SimpleNamespace(evidence=None), types.SimpleNamespace(step=1),
    sharding.make_mesh(), [0.5], scale.Scale(SIDE, 2.0),
  )


def write(path, seed, size=40):
  path.parent.mkdir(exist_ok=True)
  return write_scene(path, picture(size, size, seed))


def table(output):
  """Returns the stems by source path, checked against predictions.csv."""
  records = [json.loads(path.read_text()) for path in (output / "scenes").glob("*.json")]
  with (output / "predictions.csv").open(newline="", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
  assert sorted(row["path"] for row in rows) == sorted(record["path"] for record in records)
  return {record["path"]: record["stem"] for record in records}


def is_map_of(output, stem, path):
  """Returns whether the mask of this stem is that of a scene."""
  bright = read(path)[0] >= 128
  mask = read(output / "mask" / f"{stem}.tif")[0]
  return np.mean((mask == 1) == bright) > 0.99


@pytest.mark.parametrize("together", [False, True])
def test_scenes_of_one_name_never_replace_each_other(model, tmp_path, monkeypatch, together):
  monkeypatch.chdir(tmp_path)
  paths = [write(tmp_path / folder / "odm.tif", seed) for seed, folder in enumerate("abc")]
  output = tmp_path / "maps"
  if together:
    assert len(map_scenes(model, "?/odm.tif", output).rows) == 3
  for path in paths:
    (row,) = map_scenes(model, path.relative_to(tmp_path), output).rows
    assert row["path"] == str(path)
  stems = table(output)
  assert set(stems) == {str(path) for path in paths} and len(set(stems.values())) == 3
  assert stems[str(paths[0])] == "odm_tif"
  assert all(is_map_of(output, stem, path) for path, stem in stems.items())
  page = (output / "report.html").read_text()
  assert all(str(path) in page for path in paths)


def test_the_same_scene_is_updated_under_its_name(model, tmp_path, monkeypatch):
  first, second = (write(tmp_path / folder / "odm.tif", seed) for seed, folder in enumerate("ab"))
  for path in (first, second):
    map_scenes(model, path, tmp_path / "maps")
  stems = table(tmp_path / "maps")
  write(second, 7, size=60)
  monkeypatch.chdir(second.parent)
  map_scenes(model, "../b/odm.tif", tmp_path / "maps")
  assert table(tmp_path / "maps") == stems
  assert all(is_map_of(tmp_path / "maps", stem, path) for path, stem in stems.items())


@pytest.mark.parametrize("change", ["nothing", "the content", "the scene"])
def test_maps_of_a_release_without_paths_are_updated_or_kept(model, tmp_path, change):
  path, output = write(tmp_path / "a" / "odm.tif", 1), tmp_path / "maps"
  map_scenes(model, path, output)
  record = output / "scenes" / "odm_tif.json"
  content = json.loads(record.read_text())
  del content["path"]
  files.write_json(record, content)
  if change == "the content":
    write(path, 2)
  elif change == "the scene":
    path = write(tmp_path / "b" / "odm.tif", 3, size=72)
  map_scenes(model, path, output)
  stems = {p.stem for p in (output / "scenes").iterdir()}
  assert "odm_tif" in stems and len(stems) == (2 if change == "the scene" else 1)
  (new,) = stems if len(stems) == 1 else stems - {"odm_tif"}
  assert is_map_of(output, new, path)
  assert not (output / "scenes" / f"{new}.json").read_text().count('"path": ""')


NAMES = {
  "Cyrillic": "ж" * 98, "Chinese": "a" + "滑" * 70, "a byte before": "1" + "ж" * 120,
  "emoji": "🏔" * 61, "combined": "e\u0301" * 80, "ASCII": "a" * 250, "short": "Übersicht 2.1 %20#?",
  "semicolon": "a;b", "archive": "a.zip!b", "line": "a\nb", "tab": "a\tb", "return": "a\rb",
  "escape": "\x1b[31mred", "address": "https:a", "spreadsheet": "=1+1", "C1": "a\x9bb",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_names_of_any_length_and_alphabet_give_every_product(model, tmp_path, name):
  path, output = write(tmp_path / "in" / f"{name}.tif", 5), tmp_path / "maps"
  other = write(tmp_path / "in" / f"{name[:-1]}x.tif", 6)
  assert len(map_scenes(model, tmp_path / "in", output).rows) == 2
  stems = table(output)
  assert len(set(stems.values())) == 2
  for source in (path, other):
    stem = stems[str(source)]
    assert is_map_of(output, stem, source)
    for product in ("polygons/{}.gpkg", "polygons/{}.geojson", "probability/{}.tif", "overlay/{}.png"):
      assert (output / product.format(stem)).stat().st_size > 0
    longest = max((len(os.fsencode(p.name)) for p in output.rglob("*")), default=0)
    assert longest + len("-journal") <= 255


@pytest.fixture
def silence(capfd):
  """Drops what a test prints and logs: xdist cannot send a name that is not UTF-8."""
  logging.disable(logging.CRITICAL)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    yield
  logging.disable(logging.NOTSET)
  capfd.readouterr()


@pytest.mark.parametrize("name", ["a;b", "a!b", "a.zip!b", "a\nb", "zip:a", "s3:a"])
@pytest.mark.parametrize("relative", [False, True])
def test_an_output_may_have_any_name(model, tmp_path, monkeypatch, name, relative):
  scene = write(tmp_path / "in" / "scene.tif", 5)
  monkeypatch.chdir(tmp_path)
  output = pathlib.Path(name) if relative else tmp_path / name
  map_scenes(model, scene, output / "maps")
  assert (output / "maps/polygons/scene_tif.gpkg").stat().st_size > 0
  assert (output / "maps/polygons/scene_tif.geojson").stat().st_size > 0


@pytest.mark.usefixtures("silence")
def test_an_output_that_is_no_text_is_refused(model, tmp_path):
  scene = write(tmp_path / "in" / "scene.tif", 5)
  output = pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b"/m\xe4ps"))
  with pytest.raises(ValueError, match=r"--output=.*is not valid UTF-8\. Rename"):
    map_scenes(model, scene, output)
  assert not output.exists()


@pytest.mark.parametrize("error", [
  ValueError("odd"), UnicodeError("not text"), OSError(errno.ENAMETOOLONG, "File name too long"),
])
def test_a_scene_whose_map_cannot_be_written_costs_itself_alone(model, tmp_path, monkeypatch, error):
  for seed, name in enumerate(("bad", "good")):
    write(tmp_path / "in" / f"{name}.tif", seed)
  pictures = products.overlay.pictures

  def fail(scene, *rest):
    if scene.path.stem == "bad":
      raise error
    return pictures(scene, *rest)

  monkeypatch.setattr(products.overlay, "pictures", fail)
  result = map_scenes(model, tmp_path / "in", tmp_path / "maps")
  assert [row["file"] for row in result.rows] == ["good.tif"] and len(result.skipped) == 1
  page = (tmp_path / "maps" / "report.html").read_text()
  assert "bad.tif" in page and "good.tif" in page


@pytest.mark.usefixtures("silence")
def test_a_name_that_is_no_text_costs_its_own_scene_alone(model, tmp_path):
  good = write(tmp_path / "in" / "good.tif", 5)
  shutil.copy(good, os.fsencode(tmp_path / "in") + b"/b\xe4d.tif")
  result = map_scenes(model, tmp_path / "in", tmp_path / "maps")
  rows = [row["file"] for row in result.rows]
  assert rows == ["good.tif"]
  assert "the name is not valid UTF-8. Rename the file" in next(iter(result.skipped.values()))
  assert "good.tif" in (tmp_path / "maps" / "report.html").read_text()
  assert "good.tif" in (tmp_path / "maps" / "predictions.csv").read_text()


@pytest.mark.parametrize("max_bytes", range(20, 40))
def test_a_name_is_cut_between_characters(max_bytes):
  for name in ("滑坡" * 20, "aж" * 30, "🏔" * 15):
    short = files.fitting_name(name, max_bytes, name)
    assert len(short.encode()) <= max_bytes
    assert name.startswith(short.rpartition("_")[0])
    assert short != files.fitting_name(f"{name}x", max_bytes, f"{name}x")


@pytest.mark.parametrize("pattern", ["in/**/*", "in/*/*", "in/**/*.*", "in/{}"])
def test_a_glob_over_an_output_maps_no_maps(model, tmp_path, pattern, caplog):
  scene, output = write(tmp_path / "in" / "a.tif", 1), tmp_path / "in"
  write(output / "mask" / "own.tif", 2)  # A scene of the user's that only lies there.
  map_scenes(model, scene, output)
  files.write_text(output / "eval" / "scenes.md", "")
  shutil.copy(output / "overlay" / "a_tif.png", output / "eval")
  written = {path for path in output.rglob("*") if path.is_file()}
  if pattern == "in/{}":
    for path in written - {scene, output / "mask" / "own.tif"}:
      with pytest.raises(FileNotFoundError, match="only files that lgag wrote"):
        map_scenes(model, path, output)
    return
  result = map_scenes(model, tmp_path / pattern, output)
  expected = {"own.tif"} if pattern == "in/*/*" else {"a.tif", "own.tif"}
  assert {row["file"] for row in result.rows} == expected and not result.skipped
  assert "are no scenes, since lgag wrote them" in caplog.text


def test_the_table_of_a_prediction_holds_no_formula(model, tmp_path):
  names = ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "'=1", " =1", "\t=1", "plain", "'quoted"]
  for seed, name in enumerate(names):
    write(tmp_path / "in" / f"{name}.tif", seed)
  map_scenes(model, tmp_path / "in", tmp_path / "maps")
  path = tmp_path / "maps" / "predictions.csv"
  with path.open(newline="") as file:
    rows = list(csv.DictReader(file))
  assert not [row["file"] for row in rows if row["file"].strip()[0] in "=+-@"]
  assert {row["file"][1:] for row in rows} > {"=HYPERLINK(1).tif", "+1.tif", "-1.tif", "@SUM(A1).tif"}
  assert {f"{name}.tif" for name in names} == {line["file"] for _, line in tables.read_table(path, ())}
  assert all(0 <= float(row["landslide_share"]) <= 1 for row in rows)
