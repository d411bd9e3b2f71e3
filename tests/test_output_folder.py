# ruff: noqa: F401, F811, PT012
"""An output keeps what is not lgag's, and earlier maps until new ones are whole; kills lose nothing."""

import csv
import errno
import json
import os
import pathlib

import numpy as np
import pytest

from lgag_jax.mapping import (
  judge,
  map_names,
  output_folder,
  overlay,
  predict,
  products,
  rasters,
  vectors,
)
from lgag_jax.mapping.predict import map_scenes
from lgag_jax.options.mapping import Options
from lgag_jax.reviewing import maps
from tests.test_map_names import model, write
from tests.test_mapping import batch_sizes, read

pytestmark = pytest.mark.usefixtures("batch_sizes")
PRODUCTS = (
  "mask/scene_tif.tif", "mask/scene_tif.qml", "probability/scene_tif.tif", "probability/scene_tif.qml",
  "polygons/scene_tif.gpkg", "polygons/scene_tif.geojson", "polygons/scene_tif.parquet",
  "polygons/scene_tif.qml", "overlay/scene_tif.png", "image/scene_tif.jpg", "gate/scene_tif.npz",
)
OTHERS = ("scenes/scene_tif.json", "report.html", "predictions.csv", "lock")


class Killed(BaseException):
  """Stands for SIGKILL."""


def content(folder):
  """Returns the bytes of all files in a folder by name, except its lock."""
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in folder.rglob("*") if path.is_file() and path.name != "lock"
  }


@pytest.mark.parametrize("name", [*PRODUCTS, *OTHERS])
@pytest.mark.parametrize("kind", ["file", "text", "link"])
def test_a_file_of_the_user_is_named_and_kept(model, tmp_path, name, kind):
  scene, output = write(tmp_path / "in" / "scene.tif", 1), tmp_path / "in"
  (output / name).parent.mkdir(exist_ok=True)
  if kind == "file":
    (output / name).write_text('{"precious": 1}')
  elif kind == "text":
    (output / name).write_text("precious")
  else:
    (output / name).symlink_to(tmp_path / "elsewhere")
  before = content(output)
  with pytest.raises(ValueError, match=f"{name} (would be replaced|is not a lock).*ove it, or use"):
    map_scenes(model, scene, output)
  assert content(output) == before and not (tmp_path / "elsewhere").exists()
  assert name == "lock" or (output / name).is_symlink() == (kind == "link")


@pytest.mark.parametrize("mark", ["checkpoints", "metrics.jsonl", "model.safetensors"])
def test_a_workdir_is_no_output(model, tmp_path, mark):
  scene = write(tmp_path / "in" / "scene.tif", 1)
  workdir = tmp_path / "training"
  workdir.mkdir()
  for name in ("config.json", "report.html", mark):
    (workdir / name).write_text("of the training")
  before = content(workdir)
  with pytest.raises(ValueError, match=r"training is a workdir.*use a new folder, such as .*/maps"):
    map_scenes(model, scene, workdir)
  assert content(workdir) == before
  map_scenes(model, scene, workdir / "maps")


@pytest.mark.parametrize("name", [
  ".unfinished", ".unfinished/scene_tif", "mask", "probability", "scenes", "eval",
])
def test_folders_that_are_links_are_not_followed(tmp_path, name):
  output, other = tmp_path / "maps", tmp_path / "other"
  for path in (other / "scene_tif" / "rows", other / "scene_tif.tif"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("precious")
  (output / name).parent.mkdir(parents=True)
  (output / name).symlink_to(other)
  with pytest.raises(ValueError, match=rf"maps/{name} is a symbolic link, which lgag does not follow"):
    output_folder.prepare(output, {"scene_tif": PRODUCTS})
  assert {path.read_text() for path in other.rglob("*.*")} == {"precious"}


def test_files_beside_the_maps_and_other_maps_stay(model, tmp_path):
  scene, output = write(tmp_path / "in" / "scene.tif", 1), tmp_path / "maps"
  map_scenes(model, scene, output)
  write(output / "mask" / "other_tif.tif", 2)  # The name that the map of other.tif would get.
  for name in ("mask/mine.tif", "scenes/mine.json", "mask/scene_tif.png", "notes.txt"):
    (output / name).write_text('{"classes": {}}')
  before = content(output)
  with pytest.raises(ValueError, match=r"other_tif\.tif would be replaced"):
    map_scenes(model, write(tmp_path / "in" / "other.tif", 3), output)
  assert content(output) == before
  write(scene, 4)
  map_scenes(model, scene, output)
  changed = {name for name, data in content(output).items() if before[name] != data}
  assert changed <= {*PRODUCTS, *OTHERS} and "mask/scene_tif.tif" in changed


@pytest.mark.parametrize("state", ["whole", "killed while it replaced files", "killed before the page"])
def test_an_output_of_an_earlier_release_goes_on(model, tmp_path, state):
  scene, output = write(tmp_path / "in" / "scene.tif", 1), tmp_path / "maps"
  map_scenes(model, scene, output)
  page, record = output / "report.html", output / "scenes" / "scene_tif.json"
  page.write_text("".join(line for line in page.open() if 'name="maps"' not in line))
  if state == "killed while it replaced files":  # It removed the record first.
    record.unlink()
    output_folder.working_folder(output, "scene_tif").mkdir(parents=True)
  elif state == "killed before the page":
    os.utime(record, (2e9, 2e9))
  old = page.read_text()
  map_scenes(model, scene, output)
  assert products.files.read_json(record)["files"]
  assert ('name="maps"' in page.read_text()) == (state != "whole") == (page.read_text() != old)


@pytest.mark.parametrize("step", range(1, 17))
def test_a_kill_between_any_two_files_loses_nothing(model, tmp_path, monkeypatch, step):
  scene, output = write(tmp_path / "in" / "scene.tif", 1), tmp_path / "maps"
  map_scenes(model, scene, output)
  old_mask = read(output / "mask" / "scene_tif.tif")
  write(scene, 2)
  map_scenes(model, scene, tmp_path / "expected")
  expected = content(tmp_path / "expected")
  calls, rename = iter(range(1, 1000)), pathlib.Path.rename

  def rename_or_die(path, target):
    if pathlib.Path(target).parent.parent in (output, tmp_path) and next(calls) == step:
      raise Killed
    return rename(path, target)

  with monkeypatch.context() as patch, pytest.raises(Killed):
    patch.setattr(pathlib.Path, "rename", rename_or_die)
    map_scenes(model, scene, output)
    raise Killed  # There are fewer steps.
  record = json.loads((output / "scenes" / "scene_tif.json").read_text())
  assert all((output / name).exists() for name in record["files"])
  mixed = np.array_equal(read(output / "mask" / "scene_tif.tif"), old_mask) != (step < 4)
  assert record["key"] == "" or step == 1 or not mixed or step > 11
  assert len(output_folder.read_figures(output, ("landslide",))) == (record["key"] != "")
  map_scenes(model, scene, output)
  now = content(output)
  for name in (*PRODUCTS, "report.html"):
    if name.endswith((".tif", ".png", ".jpg", ".geojson", ".qml")):
      assert now[name] == expected[name], name
  same = lambda data: {**json.loads(data), "effort": 0, "seconds": 0}
  (row,) = csv.DictReader(now["predictions.csv"].decode().splitlines())
  numbers = same(now["scenes/scene_tif.json"])
  assert float(row["landslide_share"]) == numbers["classes"]["landslide"]["share"]
  assert numbers["classes"] == same(expected["scenes/scene_tif.json"])["classes"]
  assert set(now) == set(expected)


def test_a_map_that_is_half_replaced_is_not_reported(model, tmp_path, caplog):
  output = tmp_path / "maps"
  map_scenes(model, write(tmp_path / "in" / "a.tif", 1), output)
  record = output / "scenes" / "a_tif.json"
  record.write_text(json.dumps(json.loads(record.read_text()) | {"key": ""}))
  map_scenes(model, write(tmp_path / "in" / "b.tif", 2), output)
  assert "the map of a.tif is not whole, since a run was killed" in caplog.text
  assert [row["file"] for row in csv.DictReader((output / "predictions.csv").open())] == ["b.tif"]
  assert "a.tif" not in (output / "report.html").read_text()
  with pytest.raises(ValueError, match=r"maps: the map of a\.tif is not whole.*map the scene again"):
    maps.read(output)


def test_a_record_with_wrong_values_is_named(model, tmp_path):
  output = tmp_path / "maps"
  map_scenes(model, write(tmp_path / "in" / "a.tif", 1), output)
  record = output / "scenes" / "a_tif.json"
  whole = json.loads(record.read_text())
  assert output_folder.read_figures(output, ("landslide",)) == [whole]
  for change in (
    {"path": [1]}, {"file": None}, {"classes": 5}, {"classes": None}, {"classes": ["landslide"]},
    {"classes": {"landslide": {}}}, {"valid_pixels": "many"},
  ):
    record.write_text(json.dumps(whole | change))
    map_names.MapNames(output)
    with pytest.raises(ValueError, match=r"a_tif\.json is damaged: .*Delete it, and map its scene"):
      output_folder.read_figures(output, ("landslide",))


@pytest.mark.parametrize(("module", "function"), [
  (rasters, "_convert"), (vectors, "_write_layers"), (overlay, "pictures"),
  (output_folder.files, "write_json"), (products, "_figures"),
])
def test_a_full_disk_leaves_the_earlier_map(model, tmp_path, monkeypatch, module, function):
  scene, output = write(tmp_path / "in" / "scene.tif", 1), tmp_path / "maps"
  map_scenes(model, scene, output)
  before = content(output)
  write(scene, 2)
  whole = getattr(module, function)

  def full(path, *rest, **options):
    if function == "write_json" and ".unfinished" in str(path):
      return whole(path, *rest, **options)
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(output))

  with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left on device"):
    patch.setattr(module, function, full)
    map_scenes(model, scene, output)
  after = content(output)
  assert {name: after[name] for name in before} == before
  assert not [name for name in after if name not in before and ".unfinished" not in name]
  map_scenes(model, scene, output)
  assert content(output)["mask/scene_tif.tif"] != before["mask/scene_tif.tif"]
  assert not list(output.glob(".unfinished"))


@pytest.mark.parametrize("change", ["a scene", "one more scene", "a scene that cannot be read"])
def test_the_page_is_written_anew_after_a_kill_before_it(model, tmp_path, monkeypatch, change):
  scene, output = write(tmp_path / "in" / "scene.tif", 1), tmp_path / "maps"
  map_scenes(model, tmp_path / "in", output)
  old = (output / "report.html").read_text()
  write(scene if change == "a scene" else scene.with_name("more.tif"), 2, size=56)
  if change == "a scene that cannot be read":
    scene.with_name("more.tif").write_bytes(b"II*\0")

  def die(*_, **__):
    raise Killed

  with monkeypatch.context() as patch, pytest.raises(Killed):
    patch.setattr(predict, "write_page", die)
    map_scenes(model, tmp_path / "in", output)
  assert (output / "report.html").read_text() == old
  result = map_scenes(model, tmp_path / "in", output)
  page = (output / "report.html").read_text()
  assert "56 x 56" in page or (result.skipped and "more.tif" in page)
  (output / "report.html").write_text(page.replace("<h1>", "<h1>Kept: "))
  map_scenes(model, tmp_path / "in", output)  # Nothing has changed: it may hold an evaluation.
  assert "<h1>Kept: " in (output / "report.html").read_text()


def test_partial_files_of_killed_runs_are_removed_and_no_others(model, tmp_path):
  scene, output = write(tmp_path / "in" / "scene.tif", 1), tmp_path / "maps"
  map_scenes(model, scene, output)
  mark = ".partial-0123456789abcdef"
  left = [
    f"{mark}.html", f"mask/{mark}.tif", f"mask/{mark}.tif.aux.xml", f"scenes/{mark}.json",
    f"polygons/{mark}.gpkg-journal", "probability/.rows-scene_tif.tif", f"eval/{mark}.png",
  ]
  own = [".partial-notes.txt", "mask/.rows", "eval/partial.png"]
  (output / "eval").mkdir()
  for name in left + own:
    (output / name).write_text("x")
  map_scenes(model, scene, output)
  assert [name for name in left + own if (output / name).exists()] == own


def test_an_evaluation_replaces_no_picture_of_the_user(model, tmp_path):
  scene, output = write(tmp_path / "in" / "scene.tif", 1), tmp_path / "maps"
  result = map_scenes(model, scene, output)
  references = judge.References(labels=str(output / "mask" / "scene_tif.tif"))
  evaluate = lambda: judge.evaluate_maps(
    result, {scene: output / "mask" / "scene_tif.tif"}, output, Options(), references
  )
  (output / "eval").mkdir()
  for name in ("scene_tif.png", "scenes.md", "scenes.json"):
    (output / "eval" / name).write_text("precious")
    with pytest.raises(ValueError, match=f"eval/{name} would be replaced"):
      evaluate()
    assert (output / "eval" / name).read_text() == "precious"
    (output / "eval" / name).unlink()
  evaluate()
  (output / "eval" / "scenes.json").unlink()  # As after a kill before it was written.
  (output / "eval" / "scenes.md").unlink()
  evaluate()
  write(scene, 2)
  result = map_scenes(model, scene, output)
  evaluate()
