"""What is not lgag's in an output of labelling stays as it is, and a kill loses no decision."""

import contextlib
import json
import os
import pathlib
import shutil
import sqlite3

import pytest

from lgag_jax.labelling import earlier_map, outline_layer, sheets
from lgag_jax.labelling.own_files import RECORD, OwnFiles
from lgag_jax.labelling.session import Session
from lgag_jax.runtime import files, lock
from tests.test_labelling import YES, settings
from tests.test_labelling_map import calls, give, place, wait  # noqa: F401  A fixture.
from tests.test_tile import write_scene

WEB_MAP = '{"my": "own web map"}\n'


def content(folder):
  return {
    str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes()
    for path in folder.rglob("*") if path.is_symlink() or path.is_file()
  }


@pytest.mark.parametrize("name", [
  "map.json", "tiles.log", "maps.log", "tiles/mine.shp", "run/features/mine.shp", "maps/map.qgz",
])
@pytest.mark.parametrize("is_link", [False, True])
def test_files_of_the_user_are_refused_before_anything_changes(place, name, is_link):  # noqa: F811
  folder, session = place
  labels, target = folder / "labels", folder / "target"
  path = labels / name.split("/")[0] if is_link else labels / name
  if is_link:
    target.mkdir()
    (target / "precious").write_text("mine")
    path.symlink_to(target if "/" in name else target / "precious")
  else:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(WEB_MAP)
  before = content(folder)
  session.map_job.start()
  line = wait(session, "failed")["line"]
  assert str(labels / name.split("/")[0]) in line
  assert ("is a symbolic link" if is_link else "--mode=label has not made it. Move it") in line
  assert content(folder) == before


def test_what_lgag_made_is_replaced_also_in_an_output_of_an_earlier_release(place):  # noqa: F811
  folder, session = place
  labels = folder / "labels"
  session.map_job.start()
  wait(session, "done")
  os.link(labels / "run.log", folder / "kept.log")
  before = (folder / "kept.log").read_bytes()
  (labels / RECORD).unlink()  # Which earlier releases did not write.
  session = Session(session.settings)
  give(session, {20: YES})
  session.map_job.start()
  wait(session, "done")
  assert {p.name for p in (labels / "earlier" / "1").iterdir()} == {"tiles", "run", "maps"}
  assert (folder / "kept.log").read_bytes() == before  # Another name of an older log.
  assert not (labels / "run.log").samefile(folder / "kept.log")


def test_pictures_of_the_user_are_not_replaced_by_sheets(tmp_path):
  write_scene(tmp_path / "scene.tif")
  pictures = tmp_path / "labels" / "sheets"
  pictures.mkdir(parents=True)
  for name in ("scene_overview.png", "scene_001.png"):
    (pictures / name).write_text("mine")
    with pytest.raises(ValueError, match=rf"{name} would be replaced, but --mode=label"):
      sheets.write(Session(settings(tmp_path)))
    assert content(pictures) == {name: b"mine"}
    (pictures / name).unlink()
  paths = sheets.write(Session(settings(tmp_path)))
  (tmp_path / "labels" / RECORD).unlink()  # Which earlier releases did not write.
  assert sheets.write(Session(settings(tmp_path))) == paths
  shutil.rmtree(pictures)
  pictures.symlink_to(tmp_path)
  with pytest.raises(ValueError, match="sheets is a symbolic link"):
    sheets.write(Session(settings(tmp_path)))


def write_layer(session):
  outline_layer.write(session.view.index, session.answers, session.output)


@pytest.mark.parametrize("name", ["labels.csv", "disagreements.csv", RECORD, "tiles.gpkg"])
def test_links_in_place_of_tables_are_refused(tmp_path, name):
  write_scene(tmp_path / "scene.tif")
  (tmp_path / "labels").mkdir()
  (tmp_path / "precious").write_text("mine")
  (tmp_path / "labels" / name).symlink_to(tmp_path / "precious")
  with pytest.raises(ValueError, match=f"{name} is a symbolic link"):
    write_layer(Session(settings(tmp_path)))
  assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize("changes", [
  ("ALTER TABLE tiles ADD remark TEXT", "UPDATE tiles SET remark = 'ask Ann' WHERE fid = 3"),
  ("CREATE TABLE layer_styles (id INTEGER PRIMARY KEY, styleqml TEXT)",),
  ("CREATE TABLE notes (note TEXT)", "INSERT INTO notes VALUES ('mine')",
   "INSERT INTO gpkg_contents (table_name, data_type, identifier) VALUES ('notes', 'attributes', 'n')"),
  ("ALTER TABLE tiles ADD remark TEXT",), (),
])
def test_what_somebody_adds_to_the_outlines_of_tiles_stays(tmp_path, changes):
  write_scene(tmp_path / "scene.tif")
  session = Session(settings(tmp_path))
  write_layer(session)
  path = tmp_path / "labels" / "tiles.gpkg"
  with contextlib.closing(sqlite3.connect(path)) as base:
    for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
      base.execute(f'DROP TRIGGER "{name}"')
    for change in changes:
      base.execute(change)
    base.commit()
  before = path.read_bytes()
  write_layer(session)
  is_kept = len(changes) > 1 or "CREATE" in "".join(changes)  # An empty field holds nothing.
  assert (path.read_bytes() == before) == is_kept


@pytest.mark.parametrize("is_dangling", [False, True])
def test_features_are_not_written_through_a_link(tmp_path, is_dangling):
  write_scene(tmp_path / "scene.tif")
  learner = Session(settings(tmp_path, learn=True)).view.learner
  assert learner is not None
  path, target = learner._features_path(), tmp_path / "precious"
  path.symlink_to(target)
  if not is_dangling:
    target.write_text("mine")
  with pytest.raises(ValueError, match="is a symbolic link"):
    learner._features_path()
  assert target.exists() != is_dangling


@pytest.mark.parametrize("text", ["[]", "{", '{"names": [1]}', '{"names": "map.json"}'])
def test_a_damaged_record_is_an_error(tmp_path, text):
  (tmp_path / RECORD).write_text(text)
  with pytest.raises(ValueError, match=RECORD):
    OwnFiles(tmp_path)


@pytest.fixture
def reviewed(place):  # noqa: F811
  """A map with decisions, and an answer since."""
  folder, session = place
  session.map_job.start()
  wait(session, "done")
  (folder / "labels" / "maps" / "review").mkdir()
  (folder / "labels" / "maps" / "review" / "scene_tif.jsonl").write_text("{}\n")
  give(session, {20: YES})
  return folder, session


@pytest.mark.parametrize("name", ["run", "maps"])
def test_a_folder_in_use_is_not_moved(reviewed, name):
  folder, session = reviewed
  labels = folder / "labels"
  with lock.acquire(labels / name):
    before = content(labels)
    for action in (session.map_job.start, lambda: earlier_map.prepare(labels, OwnFiles(labels), "")):
      with pytest.raises(ValueError, match=f"labels/{name} is in use by process"):
        action()
    after = content(labels)
    assert {k: v for k, v in after.items() if k in before} == before
    assert not (labels / "earlier").exists()
    assert session.map_state()["state"] == "done"
  session.map_job.start()
  wait(session, "done")


class Killed(BaseException):
  """Stands in for a kill: no handler of errors sees it."""


@pytest.mark.parametrize("moment", range(8))
def test_a_kill_at_any_moment_loses_no_decision(reviewed, monkeypatch, moment):
  folder, session = reviewed
  labels, steps = folder / "labels", []

  def dies_at_moment(function):
    def call(*args, **options):
      steps.append(function)
      if len(steps) == moment + 1:
        raise Killed
      return function(*args, **options)
    return call

  with monkeypatch.context() as patch:
    for owner, name in ((pathlib.Path, "rename"), (shutil, "copytree"), (shutil, "rmtree"),
                        (files, "write_json")):
      patch.setattr(owner, name, dies_at_moment(getattr(owner, name)))
    with pytest.raises(Killed):
      session.map_job._run([], session.map_job._digest())
  again = Session(session.settings)
  again.map_job.start()
  wait(again, "done")
  assert (labels / "maps" / "review" / "scene_tif.jsonl").read_text() == "{}\n"
  assert f"--review={labels}/maps/review" in calls(folder)[-1]
  assert json.loads((labels / "map.json").read_text())["done"]
  assert not list(labels.glob(".partial-*"))
