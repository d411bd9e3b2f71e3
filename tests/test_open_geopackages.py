"""GeoPackages that a GIS has open, or had when it was killed, lose nothing that was saved in them."""

import contextlib
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import threading

import pytest

from lgag_jax.geo import layer_files, sqlite_files
from lgag_jax.labelling import outline_layer
from lgag_jax.labelling.session import Session as LabellingSession
from lgag_jax.options.labelling import Settings as LabellingSettings
from lgag_jax.options.reviewing import Settings
from lgag_jax.reviewing import maps as maps_of_review
from lgag_jax.reviewing.session import Session
from lgag_jax.tiling import review_files
from tests.test_hostile_reviews import box, line, write_log
from tests.test_reviewing import write_maps
from tests.test_tile import write_scene

_EDITOR = """
import os, sqlite3, sys
path, mode, end, *statements = sys.argv[1:]
base = sqlite3.connect(path, isolation_level=None)
base.execute(f"PRAGMA journal_mode = {mode}")
base.execute("PRAGMA cache_size = 2")
for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
  base.execute(f'DROP TRIGGER "{name}"')
for statement in statements:
  base.execute(statement)
if end == "kill":
  os.kill(os.getpid(), 9)
print("saved", flush=True)
sys.stdin.read()
base.close()
"""
_FILES = {"scene_tif_reviewed.gpkg": "landslides", "scene_tif.gpkg": "review"}


@contextlib.contextmanager
def editor(path, *statements, mode="wal"):
  """Edits a file in another process, which has it open in the block."""
  command = [sys.executable, "-c", _EDITOR, str(path), mode, "close", *statements]
  with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
    assert process.stdout.readline() == b"saved\n"
    yield
    process.stdin.close()


def edit_and_die(path, *statements, mode="wal"):
  subprocess.run([sys.executable, "-c", _EDITOR, str(path), mode, "kill", *statements], check=False)


def rows(path, query):
  with contextlib.closing(sqlite3.connect(path)) as base:
    assert base.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    return base.execute(query).fetchall()


def names(folder):
  return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def maps(tmp_path):
  maps = write_maps(tmp_path)
  write_log(maps, line(1, box(1, 1, 5, 5), comment="a"), line(2, box(8, 8, 9, 9)))
  Session(Settings(input=str(maps)))
  return maps


@pytest.mark.parametrize("name", _FILES)
def test_saved_edits_of_a_killed_gis_are_kept(maps, name):
  path, layer = maps / "review" / name, _FILES[name]
  before = names(path.parent)
  comments = rows(path, f"SELECT comment FROM {layer} ORDER BY 1")
  edit_and_die(path, f"UPDATE {layer} SET comment = 'mine'")
  assert f"{name}-wal" in names(path.parent)
  Session(Settings(input=str(maps)))
  assert names(path.parent) == sorted([*before, "edited"])
  (kept,) = (path.parent / "edited").iterdir()
  assert rows(kept, f"SELECT comment FROM {layer}") == [("mine",)] * len(comments)
  assert rows(path, f"SELECT comment FROM {layer} ORDER BY 1") == comments


@pytest.mark.parametrize("name", _FILES)
@pytest.mark.parametrize(("mode", "begin"), [("wal", "SELECT 1"), ("delete", "BEGIN IMMEDIATE")])
def test_a_file_that_a_gis_has_open_stays(maps, name, mode, begin):
  path, layer = maps / "review" / name, _FILES[name]
  with editor(path, f"UPDATE {layer} SET comment = 'mine'", begin, mode=mode):
    with pytest.raises(OSError, match=f"{name} is open in another program .* close it in the GIS"):
      Session(Settings(input=str(maps)))
    assert not list(path.parent.glob(".partial*"))
    assert not list(path.parent.glob("edited/*"))
  assert set(rows(path, f"SELECT comment FROM {layer}")) == {("mine",)}
  Session(Settings(input=str(maps)))
  (kept,) = (path.parent / "edited").iterdir()
  assert set(rows(kept, f"SELECT comment FROM {layer}")) == {("mine",)}


def test_a_running_review_waits_for_the_gis(maps, caplog, monkeypatch):
  monkeypatch.setattr("lgag_jax.reviewing.session._PAUSE", 0.01)
  session = Session(Settings(input=str(maps)))
  path = maps / "review" / "scene_tif_reviewed.gpkg"
  with editor(path, "UPDATE landslides SET comment = 'mine'"):
    session._changed = {0}
    with pytest.raises(OSError, match="close it in the GIS"):
      session.write()
    assert session._changed == {0}
  with caplog.at_level(logging.WARNING):
    session.close()
  assert session._changed == set()
  (kept,) = (path.parent / "edited").iterdir()
  assert str(kept) in caplog.text
  assert set(rows(kept, "SELECT comment FROM landslides")) == {("mine",)}
  assert ("a",) in rows(path, "SELECT comment FROM landslides")


def test_half_saved_changes_of_a_killed_gis_are_undone(maps):
  path = maps / "review" / "scene_tif_reviewed.gpkg"
  edit_and_die(
    path, "UPDATE landslides SET comment = 'mine'", "CREATE TABLE mine (x TEXT)",
    "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) "
    "INSERT INTO mine SELECT hex(zeroblob(1500)) FROM n",
    "BEGIN IMMEDIATE", "UPDATE mine SET x = hex(randomblob(1200))", "DELETE FROM mine WHERE rowid % 2",
    mode="delete")
  assert path.with_name(f"{path.name}-journal").stat().st_size
  Session(Settings(input=str(maps)))
  (kept,) = (path.parent / "edited").iterdir()
  assert rows(kept, "SELECT count(*), sum(length(x)) FROM mine") == [(100, 300_000)]
  assert set(rows(kept, "SELECT comment FROM landslides")) == {("mine",)}


def test_a_journal_that_names_another_file_is_refused(maps, tmp_path):
  path, precious = maps / "review" / "scene_tif_reviewed.gpkg", tmp_path / "precious"
  precious.write_text("mine")
  edit_and_die(path, "BEGIN IMMEDIATE", "UPDATE landslides SET comment = hex(randomblob(20000))",
               "CREATE TABLE more (x TEXT)", mode="delete")
  journal, name = path.with_name(f"{path.name}-journal"), bytes(precious)
  page = (1 << 30) // 4096 + 1
  journal.write_bytes(
    journal.read_bytes() + page.to_bytes(4, "big") + name + len(name).to_bytes(4, "big")
    + sum(name).to_bytes(4, "big") + bytes.fromhex("d9d505f920a163d7"))
  before = path.read_bytes(), journal.read_bytes()
  with pytest.raises(OSError, match=r"-journal names another file, .* move both elsewhere"):
    Session(Settings(input=str(maps)))
  assert precious.read_text() == "mine"
  assert (path.read_bytes(), journal.read_bytes()) == before
  for other in (path, journal):
    shutil.move(other, tmp_path / other.name)
  Session(Settings(input=str(maps)))


def test_a_file_of_another_format_moves_with_those_beside_it(maps):
  path = maps / "review" / "scene_tif.gpkg"
  path.write_bytes(b"my own")
  path.with_name("scene_tif.gpkg-wal").write_bytes(b"my notes")
  Session(Settings(input=str(maps)))
  kept = sorted((path.parent / "edited").iterdir())
  assert [part.read_bytes() for part in kept] == [b"my own", b"my notes"]
  assert kept[1].name == f"{kept[0].name}-wal"
  assert not sqlite_files.side_files(path)


@pytest.mark.parametrize("dies", [False, True])
def test_outlines_of_tiles_are_not_written_beside_an_old_log(tmp_path, dies):
  write_scene(tmp_path / "scene.tif")
  path = tmp_path / "labels" / "tiles.gpkg"

  def write(size):
    session = LabellingSession(LabellingSettings(
      input=str(tmp_path / "scene.tif"), output=str(path.parent), tile_size=size))
    outline_layer.write(session.view.index, session.answers, session.output)

  write(32)
  changes = "UPDATE tiles SET label = 'x'", "UPDATE tiles SET label = ''"
  if dies:
    edit_and_die(path, *changes)
  else:
    with editor(path, *changes), pytest.raises(OSError, match="close it in the GIS"):
      write(16)
    assert rows(path, "SELECT DISTINCT tile_size FROM tiles") == [(32,)]
  write(16)
  assert rows(path, "SELECT DISTINCT tile_size FROM tiles") == [(16,)]
  assert not sqlite_files.side_files(path)


@pytest.mark.parametrize("name", [
  "review/other_tif.gpkg", "review/scene_tif.gpkg", "polygons/scene_tif.gpkg",
  "polygons/scene_tif.gpkg-journal", "polygons/scene_tif.gpkg-wal", "polygons/scene_tif.gpkg-shm",
])
def test_a_pipe_is_never_waited_for(tmp_path, name):
  maps = write_maps(tmp_path)
  Session(Settings(input=str(maps)))
  pipe, review, layer = maps / name, maps / "review", maps / "polygons/scene_tif.gpkg"
  pipe.unlink(missing_ok=True)
  os.mkfifo(pipe)
  ender = threading.Timer(5, lambda: os.close(os.open(pipe, os.O_RDWR)))  # Ends the wait of a reader.
  ender.start()
  if name.startswith("review"):
    if name.endswith("other_tif.gpkg"):
      assert [found.scene for found in review_files.find(review)] == ["scene.tif"]
      assert review_files.require_readable(review, tmp_path / "scene.tif") is None
    else:
      with pytest.raises(ValueError, match=r"scene_tif\.gpkg is not a regular file"):
        review_files.require_readable(review, tmp_path / "scene.tif")
  else:
    with pytest.raises(ValueError, match=f"{pipe.name} .*is not a regular file"):
      maps_of_review.read(maps)
    with pytest.raises(ValueError, match=r"scene_tif\.gpkg"):
      layer_files.source(layer)
  assert ender.is_alive()
  ender.cancel()
