"""What others wrote in the folder of a review is kept: links are refused, changed files move aside."""

import contextlib
import json
import shutil
import sqlite3
import time

import pyogrio
import pytest
from starlette.testclient import TestClient

from lgag_jax.options.reviewing import Settings
from lgag_jax.reviewing import products, server
from lgag_jax.reviewing.session import Session
from tests.test_hostile_reviews import box, line, write_log
from tests.test_reviewing import SECRET, write_maps


@pytest.fixture
def maps(tmp_path):
  return write_maps(tmp_path)


def start(maps):
  return Session(Settings(input=str(maps)))


def edited(maps):
  return sorted(path.name for path in (maps / "review").glob("edited/*"))


@pytest.mark.parametrize("name", [
  "review", "review/scene_tif.jsonl", "review/scene_tif.gpkg", "review/scene_tif_reviewed.gpkg",
  "review/edited",
])
@pytest.mark.parametrize("target", ["folder", "file"])
def test_links_are_refused_and_their_targets_stay(maps, tmp_path, name, target):
  outside = tmp_path / "outside"
  outside.mkdir()
  for other in ("notes.txt", "scene_tif.jsonl", "scene_tif_reviewed.gpkg"):
    (outside / other).write_text("my notes without a last line break")
  (maps / name).parent.mkdir(exist_ok=True)
  (maps / name).symlink_to(outside if target == "folder" else outside / "notes.txt")
  with pytest.raises(ValueError, match=rf"{name} is a symbolic link"):
    start(maps)
  assert {p.read_text() for p in outside.iterdir()} == {"my notes without a last line break"}


@pytest.mark.parametrize("name", ["scene_tif.gpkg", "scene_tif_reviewed.gpkg"])
def test_a_file_of_the_user_is_kept(maps, name):
  path = maps / "review" / name
  path.parent.mkdir()
  path.write_bytes(b"the user's own inventory")
  start(maps)
  (kept,) = edited(maps)
  assert (maps / "review/edited" / kept).read_bytes() == b"the user's own inventory"
  start(maps)
  assert edited(maps) == [kept]


@pytest.mark.parametrize("text", ["my notes", "my notes\nand more", '{"my": "list"}', "{"])
def test_a_text_of_the_user_is_not_cut(maps, text):
  path = write_log(maps, text)
  path.write_text(text)
  if text == "{":  # What a kill may leave of a first line.
    start(maps)
    assert path.read_text() == ""
    return
  with pytest.raises(ValueError, match="line 1 is damaged"):
    start(maps)
  assert path.read_text() == text


@pytest.mark.parametrize("change", [
  "UPDATE landslides SET comment = 'mine'", "UPDATE landslides SET area_m2 = 5",
  "UPDATE landslides SET number = 7", "DELETE FROM landslides", "ALTER TABLE landslides ADD notes TEXT",
])
@pytest.mark.parametrize("is_running", [False, True])
def test_an_inventory_edited_in_a_gis_is_kept(maps, change, is_running):
  write_log(maps, line(1, box(1, 1, 5, 5), comment="a"), line(2, box(8, 8, 9, 9)))
  session = start(maps)
  path = maps / "review" / "scene_tif_reviewed.gpkg"
  start(maps)
  assert not edited(maps)
  with sqlite3.connect(path) as base:
    for kind in ("insert", "update", "delete"):  # They need functions of a GIS.
      for (name,) in base.execute(
        f"SELECT name FROM sqlite_master WHERE type = 'trigger' AND sql LIKE '% AFTER {kind.upper()}%'"
      ).fetchall():
        base.execute(f'DROP TRIGGER "{name}"')
    base.execute(change)
  base.close()
  before = path.read_bytes()
  if is_running:
    session._changed = {0}
    session.close()
  else:
    start(maps)
  (kept,) = edited(maps)
  assert (maps / "review/edited" / kept).read_bytes() == before


_STYLES = "CREATE TABLE layer_styles (id INTEGER PRIMARY KEY, styleqml TEXT)"
_REGISTERED = "INSERT INTO gpkg_contents (table_name, data_type, identifier) VALUES " \
  "('layer_styles', 'attributes', 'layer_styles')"


@pytest.mark.parametrize(("name", "changes"), [
  ("scene_tif.gpkg", (_STYLES, _REGISTERED)), ("scene_tif_reviewed.gpkg", (_STYLES, _REGISTERED)),
  ("scene_tif.gpkg", (_STYLES,)), ("scene_tif.gpkg", ("UPDATE review SET source = 'checked by Ann'",)),
  ("scene_tif_reviewed.gpkg", ("UPDATE gpkg_contents SET description = 'checked by Ann'",)),
  ("scene_tif.gpkg", ("UPDATE originals SET number = 99",)),
])
def test_what_somebody_adds_to_a_geopackage_is_kept(maps, name, changes):
  write_log(maps, line(1, box(1, 1, 5, 5)))
  start(maps)
  path = maps / "review" / name
  with contextlib.closing(sqlite3.connect(path)) as base:
    triggers = base.execute(
      "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name NOT LIKE 'gpkg%'"
    ).fetchall()
    for trigger, _ in triggers:  # They need functions of a GIS.
      base.execute(f'DROP TRIGGER "{trigger}"')
    for change in changes:
      base.execute(change)
    for _, sql in triggers:
      base.execute(sql)
    base.commit()
  changed = path.read_bytes()
  start(maps)
  (kept,) = edited(maps)
  assert (maps / "review/edited" / kept).read_bytes() == changed


@pytest.mark.parametrize("change", [
  "UPDATE gpkg_contents SET last_change = '2030-01-01T00:00:00.000Z'", "PRAGMA journal_mode=wal",
])
def test_a_geopackage_that_was_only_looked_at_is_replaced(maps, change):
  write_log(maps, line(1, box(1, 1, 5, 5)))
  start(maps)
  for name in ("scene_tif.gpkg", "scene_tif_reviewed.gpkg"):
    with contextlib.closing(sqlite3.connect(maps / "review" / name, isolation_level=None)) as base:
      base.execute(change)
  start(maps)
  assert not edited(maps)


@pytest.mark.parametrize("stems", [
  ["s_tif"], ["s_tif", "s_tif_reviewed"], ["s_tif_reviewed", "s_tif"],
  ["a", "a_reviewed", "a_reviewed_", "a_reviewed_reviewed"],
])
def test_no_inventory_has_the_name_of_a_review(stems):
  names = products.inventory_names(stems)
  assert list(names) == stems
  assert len({*names.values(), *stems}) == 2 * len(stems)
  assert names[stems[-1]].startswith(f"{stems[-1]}_reviewed")


def test_two_maps_whose_names_nearly_clash_are_both_reviewed(maps):
  record = (maps / "scenes" / "scene_tif.json").read_text()
  other = maps / "scenes" / "scene_tif_reviewed.json"
  other.write_text(record.replace("scene_tif", "scene_tif_reviewed"))
  for path in list(maps.rglob("scene_tif.*")):
    if path.suffix != ".json":
      shutil.copy(path, path.with_stem("scene_tif_reviewed"))
  for _ in range(2):
    start(maps)
    assert not edited(maps)
  layers = {
    path.name: pyogrio.list_layers(path)[0, 0] for path in (maps / "review").glob("*.gpkg")
  }
  assert layers == {
    "scene_tif.gpkg": "review", "scene_tif_reviewed.gpkg": "review",
    "scene_tif_reviewed_.gpkg": "landslides", "scene_tif_reviewed_reviewed.gpkg": "landslides",
  }


@pytest.mark.parametrize("error", [OSError("full"), ValueError("odd"), RuntimeError("once")])
def test_an_error_while_files_are_written_ends_no_thread(maps, monkeypatch, caplog, error):
  monkeypatch.setattr("lgag_jax.reviewing.session._PAUSE", 0.01)
  session, write, calls = start(maps), products.write, []

  def fails_once(*args):
    calls.append(args)
    if len(calls) == 1:
      raise error
    write(*args)

  monkeypatch.setattr(products, "write", fails_once)
  session.start()
  for count in (1, 2):
    session._changed.add(0)
    session._wake.set()
    end = time.monotonic() + 5
    while len(calls) < count and time.monotonic() < end:
      time.sleep(0.01)
  assert session._thread.is_alive()
  assert len(calls) == 2
  assert str(error) in caplog.text
  session.close()


@pytest.mark.parametrize("comment", ["a\0b", "\x1b[31m", "\x7f"])
def test_a_comment_with_control_characters_is_refused(maps, comment):
  session = start(maps)
  client = TestClient(server.make_app(session, SECRET, ""), base_url=f"http://localhost/{SECRET}/",
                      headers={"Origin": "http://localhost"})
  given = [f"0/{next(iter(session.scenes[0].mapped))}",
           {"decision": "accepted", "class": "landslide", "comment": comment}]
  response = client.post("answers", json={"version": session.version, "answers": [given]})
  assert response.status_code == 400
  assert "control characters" in response.json()["error"]
  given[1]["comment"] = "two\nlines"
  content = json.dumps({"version": session.version, "answers": [given]})
  assert client.post("answers", content=content, headers={
    "content-type": "application/json"}).status_code == 200
