"""Labels given by eye: the table of answers, tiles and their pictures, and requests to the server."""

import csv
import dataclasses
import io
import pathlib
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rasterio.crs import CRS
from starlette.testclient import TestClient

from lgag_jax.geo.grid import Grid
from lgag_jax.labelling import label, server, tile_index
from lgag_jax.labelling.answer_table import COLUMNS
from lgag_jax.labelling.answers import Answers
from lgag_jax.labelling.listener import open_socket
from lgag_jax.labelling.session import Session
from lgag_jax.options.labelling import Settings
from lgag_jax.tiling import tile
from tests.page_server import PageServer
from tests.test_tile import SIDE, write_scene

YES, NO, UNSURE = "landslide", "non-landslide", "unknown"
SECRET = "s" * 32
ROOT = pathlib.Path(__file__).parent.parent


def settings(folder, **fields):
  return Settings(**{
    "input": str(folder / "*.tif"), "output": str(folder / "labels"), "tile_size": SIDE, "learn": False,
    **fields,
  })


def table(folder):
  with (folder / "labels.csv").open(newline="") as file:
    return list(csv.DictReader(file))


def latest(answers):
  return {key: answer.label for key, answer in answers.latest.items()}


@pytest.fixture
def answers(tmp_path):
  return Answers(tmp_path, settings(tmp_path).tiling(SIDE))


@pytest.fixture
def session(tmp_path):
  write_scene(tmp_path / "scene.tif")
  return Session(settings(tmp_path))


@pytest.fixture
def client(session):
  app = server.make_app(session, SECRET, "127.0.0.1")
  return TestClient(
    app, base_url=f"http://localhost:8765/{SECRET}/", headers={"Origin": "http://localhost:8765"}
  )


def test_answers_are_appended_and_the_last_one_counts(answers, tmp_path):
  places = [("a, \"b\".tif", 0, 0), ("b.tif", 3, 1)]
  for label_text in (YES, NO, "", UNSURE):
    answers.give([(places[0], label_text)], SIDE)
    assert latest(answers) == ({places[0]: label_text} if label_text else {})
  answers.give([(places[0], NO), (places[1], YES)], SIDE)
  rows = table(tmp_path)
  assert [row["label"] for row in rows] == [YES, NO, "", UNSURE, NO, YES]
  assert set(rows[0]) == set(COLUMNS)
  again = Answers(tmp_path, settings(tmp_path).tiling(SIDE))
  assert latest(again) == {places[0]: NO, places[1]: YES}
  assert again.tile_size == SIDE


def test_a_row_torn_by_a_kill_is_repaired_and_no_other_is_lost(answers, tmp_path):
  answers.give([(("a.tif", 0, c), YES) for c in range(3)], SIDE)
  whole = answers.path.read_bytes()
  last = whole.rindex(b"a.tif")
  for end in range(last, len(whole)):
    answers.path.write_bytes(whole[:end])
    found = Answers(tmp_path, settings(tmp_path).tiling(SIDE))
    kept = latest(found)
    assert set(kept) - {("a.tif", 0, 2)} == {("a.tif", 0, 0), ("a.tif", 0, 1)}
    found.give([(("a.tif", 1, 1), NO)], SIDE)  # Begins a row of its own.
    assert latest(Answers(tmp_path, settings(tmp_path).tiling(SIDE))) == {
      **kept, ("a.tif", 1, 1): NO
    }
  assert ("a.tif", 0, 2) in kept  # Without its line break the row is whole.


@pytest.mark.parametrize("header", [COLUMNS, (*COLUMNS[:5], "time")])
@pytest.mark.parametrize(("row", "is_read"), [
  (("a.tif", 0, 1, YES, SIDE), True), (("a.tif", 0, 1, YES), False), (("a.tif", 0, 1, YES[:4]), False),
])
def test_a_last_row_by_hand_is_read_or_named(tmp_path, caplog, header, row, is_read):
  path = tmp_path / "labels.csv"
  first = ",".join(map(str, ("a.tif", 5, 5, NO, SIDE)))
  rest = "," * (len(header) - 5)
  last = f"{','.join(map(str, row))}{rest if is_read else ''}"  # Without a time and a line break.
  path.write_text(f"{','.join(header)}\n{first}{rest}\n{last}")
  kept = latest(Answers(tmp_path, settings(tmp_path).tiling(SIDE)))
  assert kept == {("a.tif", 5, 5): NO} | ({("a.tif", 0, 1): YES} if is_read else {})
  named = f"removed its last row, which was not written whole: '{last}'. If you wrote it, write it"
  assert (named in caplog.text) != is_read


@pytest.mark.parametrize(("mark", "end", "encoding"), [
  (";", "\r\n", "utf-8-sig"), ("\t", "\n", "utf-16"), (",", "\r\n", "utf-8"),
])
def test_a_table_that_a_spreadsheet_saved_goes_on(tmp_path, mark, end, encoding):
  rows = [COLUMNS, ("a.tif", 0, 1, "Yes", SIDE, "", "2026-01-01"), ("a.tif", 0, 2, "0", SIDE, "", "")]
  text = end.join(mark.join(map(str, row)) for row in rows)  # Without a last line break.
  (tmp_path / "labels.csv").write_text(text, encoding=encoding, newline="")
  before = (tmp_path / "labels.csv").read_bytes()
  answers = Answers(tmp_path, settings(tmp_path).tiling(SIDE))
  answers.give([(("a.tif", 5, 5), NO)], SIDE)
  again = Answers(tmp_path, settings(tmp_path).tiling(SIDE))
  assert latest(again) == {("a.tif", 0, 1): YES, ("a.tif", 0, 2): NO, ("a.tif", 5, 5): NO}
  assert (tmp_path / "labels.original.csv").read_bytes() == before


def test_a_table_is_kept_before_it_is_written_again_and_each_time(tmp_path, monkeypatch):
  path, header = tmp_path / "labels.csv", ",".join(reversed(COLUMNS))
  for name in ("labels.original.csv", "labels.original_1.csv"):
    path.write_text(content := f"{header}\n2026-11-29T10:00:00,,{SIDE},{YES},1,0,{name}.tif\n")
    Answers(tmp_path, Settings(input="s", output=str(tmp_path)).tiling(SIDE))
    assert (tmp_path / name).read_text() == content
  path.write_text(content := f"{header}\n")

  def killed(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr("lgag_jax.runtime.files.write_text", killed)
  with pytest.raises(KeyboardInterrupt):
    Answers(tmp_path, Settings(input="s", output=str(tmp_path)).tiling(SIDE))
  assert (tmp_path / "labels.original_2.csv").read_text() == path.read_text() == content


def test_names_of_scenes_are_no_formulas(tmp_path):
  tiling = Settings(input="s", output=str(tmp_path)).tiling(SIDE)
  for name in ("=1+1.tif", "@a.tif", "-a.tif"):
    Answers(tmp_path, tiling).give([((name, 0, 1), YES)], SIDE)
    assert f"\n'{name},0,1," in (tmp_path / "labels.csv").read_text()
    assert Answers(tmp_path, tiling).latest[name, 0, 1].label == YES


@pytest.mark.parametrize(("row", "message"), [
  ("a.tif,x,1,landslide,16,,", "row 2 needs whole numbers"),
  ("a.tif,0,1,perhaps,16,,", "row 2 has the label 'perhaps'"), ("a.tif,0,1", "row 2 has 3 cells"),
])
def test_a_wrong_row_is_named(tmp_path, row, message):
  (tmp_path / "labels.csv").write_text(f"{','.join(COLUMNS)}\n{row}\n")
  with pytest.raises(ValueError, match=rf"labels\.csv, {message}"):
    Answers(tmp_path, settings(tmp_path).tiling(SIDE))


def test_tables_of_two_people_merge_and_disagreements_are_told(tmp_path):
  cut = settings(tmp_path).tiling(SIDE)
  places = [("a.tif", 0, c) for c in range(7)]
  own, other = (Answers(folder, cut) for folder in (tmp_path / "own", tmp_path / "other"))
  own.give(zip(places[:6], [YES, NO, YES, UNSURE, YES, UNSURE], strict=True), SIDE)
  other.give(
    [*zip(places[:5], [YES, YES, NO, NO, UNSURE], strict=True), (places[6], NO)], SIDE)
  merged = own.merge(other.path, UNSURE)
  assert (merged.added, merged.agreed) == (2, 2)
  assert merged.disputed == ((places[1], NO, YES), (places[2], YES, NO))
  expected = dict(zip(places, [YES, UNSURE, UNSURE, NO, YES, UNSURE, NO], strict=True))
  assert latest(own) == expected
  assert own.disputed(UNSURE) == {places[1], places[2]}
  own.give([(places[1], NO)], SIDE)
  again = own.merge(other.path, UNSURE)  # Settled ones are not asked for again, nor others decided.
  assert again.disputed == ()
  assert again.added == 0
  assert latest(own) == expected | {places[1]: NO}
  assert own.disputed(UNSURE) == {places[2]}
  large = Answers(tmp_path / "large", cut)
  large.give([(places[0], YES)], 2 * SIDE)
  with pytest.raises(ValueError, match=r"large.*tiles of 16 and 32 pixels"):
    own.merge(large.path, UNSURE)
  with pytest.raises(FileNotFoundError, match=r"--merge=none\.csv"):
    own.merge(pathlib.Path("none.csv"), UNSURE)


def test_tiling_reads_the_answers_unchanged(session, client, tmp_path):
  cut = session.settings.tiling(SIDE)
  tiles = [tile_place for _, tile_place in session.view.index.tiles]
  given = {n: [YES, NO, UNSURE][n % 3] for n in range(len(tiles))}
  assert client.post("answers", json={
    "version": session.view.index.version, "answers": [[n, NO] for n in range(0, len(tiles), 2)]
  }).status_code == 200  # Overruled by the next.
  for n, text in given.items():
    answer = {"version": session.view.index.version, "answers": [[n, text]]}
    assert client.post("answers", json=answer).json() == {"saved": 1}
  client.post("answers", json={"version": session.view.index.version, "answers": [[0, ""]]})
  rows, _ = tile.cut(cut)
  expected = {(t.row, t.col): given[n] for n, t in enumerate(tiles)} | {(0, 0): UNSURE}
  assert {(r.row, r.col): r.label for r in rows if r.label != "no data"} == expected
  with pytest.raises(ValueError, match=r"row 2 labels a tile of 16 pixels, but --tile_size=32"):
    tile.cut(dataclasses.replace(cut, tile_size=32, output=str(tmp_path / "other")))


@pytest.mark.parametrize("max_nodata", [0.0, 0.3, 0.5, 1.0])
def test_the_tiles_are_those_that_tiling_finds_data_in(tmp_path, max_nodata):
  write_scene(tmp_path / "scene.tif")
  write_scene(tmp_path / "two.tif", bands=4, dtype="uint16")
  (tmp_path / "two.tif").rename(tmp_path / "two.tiff")
  shown = Session(settings(tmp_path, max_nodata=max_nodata)).view.index
  (tmp_path / "t.csv").write_text("row,col,label\n0,0,1\n")
  cut = settings(tmp_path, max_nodata=max_nodata).tiling(SIDE)
  rows, _ = tile.cut(dataclasses.replace(cut, labels=str(tmp_path / "t.csv"), max_nodata=max_nodata,
                                         validation_fraction=0.0))
  expected = [("scene.tif", r.row, r.col) for r in rows if r.label != "no data"]
  assert [shown.key(n) for n in range(len(shown.tiles))] == expected


@pytest.mark.parametrize(("bands", "dtype"), [(3, "uint8"), (5, "uint16"), (1, "float32")])
def test_pictures_show_the_values_of_the_scene(tmp_path, bands, dtype):
  pixels = write_scene(tmp_path / "scene.tif", bands=bands, dtype=dtype)
  session = Session(settings(tmp_path, max_nodata=1.0))
  pictures, index = session.view.pictures, session.view.index
  valid = pixels.any(axis=-1)
  shown = pixels[..., :3].astype(float) if bands > 1 else np.repeat(pixels, 3, -1).astype(float)
  if dtype != "uint8":  # One range of values for the whole scene.
    low, high = np.percentile(shown[valid], (2, 98), axis=0)
    shown = np.clip((shown - low) / (high - low), 0, 1) * 255
  shown = np.pad(np.where(valid[..., None], shown, 232), ((16, 28), (16, 16), (0, 0)),
                 constant_values=232)
  for number in (0, 9, len(index.tiles) - 1):
    place = index.tiles[number][1]
    around = np.s_[place.row * SIDE :, place.col * SIDE :]
    picture = np.asarray(Image.open(io.BytesIO(pictures.surroundings(number)))).astype(float)
    expected = shown[around][: 3 * SIDE, : 3 * SIDE]
    assert picture.shape == (3 * SIDE, 3 * SIDE, 3)
    assert abs(picture.mean() - expected.mean()) < 4
    grey = picture.mean(axis=-1).ravel(), expected.mean(axis=-1).ravel()
    assert np.corrcoef(*grey)[0, 1] > 0.8
    assert pictures.tile(number, 256) == pictures.tile(number, SIDE)
  whole = np.asarray(Image.open(io.BytesIO(pictures.square(0, 0, 0, 0)))).astype(float)
  grey = whole[:100, :128].mean(-1).ravel(), shown[16:116, 16:144].mean(-1).ravel()
  assert np.corrcoef(*grey)[0, 1] > 0.8
  assert abs(whole[104:, 136:].mean() - 232) < 2  # Past the scene.


@pytest.mark.parametrize(("sides", "gsd", "expected"), [
  ([(3840, 3072)], 0.08, 256), ([(20000, 20000)], 0.5, 256), ([(10980, 10980)], 10.0, 64),
  ([(300, 300)], 0.1, 64), ([(30000, 30000)], 0.05, 512),
])
def test_the_default_size_suits_the_ground(sides, gsd, expected):
  place = Affine(gsd, 0, 500000, 0, -gsd, 3000000)
  grids = [Grid(*size, CRS.from_epsg(32644), place) for size in sides]
  assert tile_index.default_side(grids) == expected


def test_the_size_changes_only_before_the_first_answer(session, client):
  state = client.get("state").json()
  assert len(state["tiles"]) == len(session.view.index.tiles)
  assert client.post("tile_size", json={"tile_size": 32}).json() == {"tile_size": 32}
  old = {"version": state["version"], "answers": [[0, YES]]}
  assert client.post("answers", json=old).status_code == 409
  state = client.get("state").json()
  assert (state["tile_size"], len(state["tiles"])) == (32, 3 * 4)  # The last row has too little data.
  client.post("answers", json={"version": state["version"], "answers": [[0, YES]]})
  response = client.post("tile_size", json={"tile_size": 16})
  assert response.status_code == 400
  assert "holds answers" in response.json()["error"]
  with pytest.raises(ValueError, match=r"--tile_size=16: .* tiles of 32 pixels"):
    Session(session.settings)
  client.post("answers", json={"version": state["version"], "answers": [[0, ""]]})
  assert client.post("tile_size", json={"tile_size": 16}).status_code == 200
  assert table(session.output) == []


def test_the_state_says_what_was_answered(session, client):
  version = session.view.index.version
  given = [[2, YES], [5, UNSURE], [7, NO], [7, ""]]
  client.post("answers", json={"version": version, "answers": given})
  state = client.get("state").json()
  assert state["answers"] == {"2": YES, "5": UNSURE}
  assert state["wanted"] == {YES: 20, NO: 30}
  again = Session(session.settings)
  assert again.answered()["answers"] == {2: YES, 5: UNSURE}


@pytest.mark.parametrize(("path", "headers", "status"), [
  ("", {}, 200), ("state", {}, 200), ("tile/0?side=96", {}, 200), ("files/leaflet/leaflet.js", {}, 200),
  ("files/leaflet/LICENSE.txt", {}, 200), ("map/0/0/0/0", {}, 200), ("surroundings/3", {}, 200),
  ("", {"Host": "localhost:9999"}, 200), ("", {"Host": "[::1]:8765"}, 200),
  ("", {"Host": "evil.example:8765"}, 403), ("", {"Host": "localhost.evil.example"}, 403),
  ("", {"Host": ""}, 403), ("", {"Host": "[::1"}, 403), ("", {"Host": "192.168.1.5:8765"}, 403),
  ("", {"Sec-Fetch-Site": "cross-site"}, 403), ("state", {"Sec-Fetch-Site": "same-site"}, 403),
  ("", {"Sec-Fetch-Site": "none"}, 200),
  ("files/../server.py", {}, 404), ("files/%2e%2e/server.py", {}, 404),
  ("files//etc/passwd", {}, 404), ("files/..%2f..%2fmain.py", {}, 404), ("../../etc/passwd", {}, 403),
  ("files/nosuch.js", {}, 404), ("labels.csv", {}, 404), (".secret", {}, 404),
  ("tile/100000", {}, 400), ("tile/-1", {}, 404), ("map/7/0/0/0", {}, 400), ("map/0/9/0/0", {}, 400),
  ("map/0/0/9/9", {}, 400), ("map/0/99999999999999999999/0/0", {}, 400), ("answers", {}, 405),
])
def test_only_the_page_and_its_pictures_are_served(client, path, headers, status):
  response = client.get(path, headers=headers)
  assert response.status_code == status
  assert "default-src 'none'" in response.headers["content-security-policy"]
  assert response.headers["referrer-policy"] == "no-referrer"
  kept = status == 200 and response.headers["content-type"] == "image/jpeg"
  assert response.headers["cache-control"] == ("private, max-age=86400" if kept else "no-store")


@pytest.mark.parametrize("secret", ["", "s", "S" * 32, "s" * 33, "s" * 31 + "é", "%00"])
def test_nothing_is_served_without_the_secret(session, secret):
  client = TestClient(server.make_app(session, SECRET, "127.0.0.1"), base_url="http://localhost")
  for path in ("", "state", "files/app.js", "tile/0"):
    assert client.get(f"/{secret}/{path}").status_code == 403
  assert client.get(f"/{SECRET}").status_code == 404


@pytest.mark.parametrize(("headers", "content", "status"), [
  ({"Origin": "http://evil.example"}, b"{}", 403), ({"Origin": "null"}, b"{}", 403),
  ({"Origin": ""}, b"{}", 403), ({"Origin": "http://localhost:1"}, b"{}", 403),
  ({"Sec-Fetch-Site": "cross-site"}, b"{}", 403), ({"Host": "evil.example"}, b"{}", 403),
  ({"Content-Type": "text/plain"}, b"{}", 415),
  ({"Content-Type": "application/x-www-form-urlencoded"}, b"a=1", 415),
  ({}, b" " * ((1 << 20) + 1), 413), ({"Content-Length": "9" * 30}, b"{}", 413),
  ({"Content-Length": "-1"}, b"{}", 411), ({}, iter([b"{}"]), 411),
  *(({"Content-Length": "2", "Transfer-Encoding": e}, b"{}", 411) for e in ("chunked", "Chunked", "")),
  ({}, b"{", 400), ({}, b"[]", 400), ({}, b"\xff", 400), ({}, b"[" * 100_000, 400),
  ({}, b'{"version": 1, "answers": []}', 400), ({}, b'{"version": "a", "answers": [[0]]}', 400),
  ({}, b'{"version": "a", "answers": [[true, "landslide"]]}', 400),
  ({}, b'{"version": "a", "answers": []}', 409),
])
def test_only_the_page_can_answer(session, client, headers, content, status):
  before = (session.output / "labels.csv").read_bytes()
  response = client.post(
    "answers", content=content, headers={"Content-Type": "application/json", **headers}
  )
  assert response.status_code == status
  assert (session.output / "labels.csv").read_bytes() == before


@pytest.mark.parametrize("given", [
  [[0, "perhaps"]], [[-1, YES]], [[10**6, YES]], [[0, YES], [1, "=1+1"]],
])
def test_what_does_not_exist_cannot_be_answered(session, client, given):
  response = client.post("answers", json={"version": session.view.index.version, "answers": given})
  assert response.status_code == 400
  assert "does not exist" in response.json()["error"]
  assert table(session.output) == []


@pytest.mark.parametrize(("host", "names"), [
  ("0.0.0.0", {"10.1.2.3": 200, "localhost": 200, "evil.example": 403}),
  ("maps.example", {"maps.example": 200, "evil.example": 403}),
])
def test_another_address_is_served_only_where_it_was_asked_for(session, host, names):
  client = TestClient(server.make_app(session, SECRET, host), base_url=f"http://localhost/{SECRET}/")
  for name, status in names.items():
    assert client.get("", headers={"Host": f"{name}:8765"}).status_code == status


def test_a_full_disk_is_told_and_the_answer_does_not_count(session, client, monkeypatch):
  def full(*_, **__):
    raise OSError(28, "No space left on device", "labels.csv")

  monkeypatch.setattr("lgag_jax.labelling.answers.files.append_line", full)
  response = client.post("answers", json={"version": session.view.index.version, "answers": [[0, YES]]})
  assert response.status_code == 500
  assert "No space left" in response.json()["error"]
  assert session.answered()["answers"] == {}


@pytest.mark.parametrize(("fields", "message"), [
  ({"tile_size": 4}, "--tile_size=4"), ({"port": 70000}, "--port=70000"), ({"output": ""}, "--output"),
  ({"rgb_bands": (1, 2)}, "--rgb_bands=1,2"), ({"positives": 0}, "--positives=0"),
  ({"classes": ("unknown",)}, "--classes=unknown"), ({"max_nodata": 2.0}, "--max_nodata=2"),
])
def test_mistakes_name_their_flag(tmp_path, fields, message):
  with pytest.raises(ValueError, match=message):
    settings(tmp_path, **fields)


def test_a_port_in_use_is_named_and_the_default_gives_way(tmp_path):
  with open_socket("127.0.0.1", 0) as first, open_socket("127.0.0.1", 0) as second:
    port = first.getsockname()[1]
    assert second.getsockname()[1] != port
    with pytest.raises(OSError, match=rf"--host=127.0.0.1 --port={port}: .*in use"):
      open_socket("127.0.0.1", port)


@pytest.mark.parametrize("scenes", [("scene.tif",), ("scene.tif", "two.tif")])
def test_sheets_show_every_tile_and_the_table_has_a_row_for_each(tmp_path, scenes, capsys):
  for name in scenes:
    write_scene(tmp_path / name)
  folder = tmp_path / "labels"
  Answers(folder, settings(tmp_path).tiling(SIDE)).give([(("scene.tif", 0, 1), YES)], SIDE)
  asked = settings(tmp_path, sheets=True)
  label.label(asked)
  label.label(asked)  # Again: nothing is added, nothing lost.
  index = Session(asked).view.index
  rows = table(folder)
  assert sorted((r["scene"], int(r["row"]), int(r["col"])) for r in rows) == sorted(
    map(index.key, range(len(index.tiles))))
  assert [r["label"] for r in rows].count("") == len(index.tiles) - 1
  pictures = sorted(path.name for path in (folder / "sheets").iterdir())
  expected = [f"{name[:-4]}_{part}.png" for name in scenes for part in ("001", "overview")]
  assert pictures == sorted(expected)
  assert "--mode=tile" in capsys.readouterr().out
  sheet = np.asarray(Image.open(folder / "sheets" / "scene_001.png")).astype(float)
  view = Session(asked).view
  for number, (row, col) in ((0, (0, 0)), (9, (1, 1))):  # 8 tiles in a row of 192 pixels.
    part = sheet[34 + row * 222 :, 8 + col * 200 :][:192, :192]
    drawn = Image.fromarray(view.pictures.array(number, SIDE)).resize((192, 192), 2)
    np.testing.assert_array_equal(part, np.asarray(drawn))
  # Filled in with a spreadsheet, the table is read by tiling, and by the page.
  text = (folder / "labels.csv").read_text()
  for place, answer in (("scene.tif,0,0,", "no"), ("scene.tif,0,2,", "1")):
    text = text.replace(f"{place},", f"{place}{answer},")
  (folder / "labels.csv").write_text(text.replace(",", ";"))
  tiles, _ = tile.cut(dataclasses.replace(asked.tiling(SIDE), validation_fraction=0.0))
  used = {(r.scene, r.row, r.col): r.label for r in tiles if r.image}
  filled = {("scene.tif", 0, c): (NO, YES, YES)[c] for c in range(3)}
  assert used == filled == latest(Answers(folder, asked.tiling(SIDE)))


def labelling_server(folder, *flags):
  return PageServer(
    "--mode=label", f"--input={folder}/scene.tif", f"--output={folder}/labels", f"--tile_size={SIDE}",
    *flags)


@pytest.mark.slow
def test_a_killed_server_loses_no_answer_and_ctrl_c_ends_in_order(tmp_path):
  write_scene(tmp_path / "scene.tif")
  given = {}
  for attempt in range(2):
    server_process = labelling_server(tmp_path, "--nolearn")
    state = server_process.request("state")
    assert state["answers"] == given
    for number in range(20 * attempt, 20 * attempt + 20):
      text = [YES, NO, UNSURE][number % 3]
      content = {"version": state["version"], "answers": [[number, text]]}
      begin = time.monotonic()
      server_process.request("answers", content)
      assert time.monotonic() - begin < 2.0
      given[str(number)] = text
    server_process.end(signal.SIGKILL)
  server_process = labelling_server(tmp_path, "--nolearn")
  other = subprocess.run(
    [sys.executable, "-m", "lgag_jax.main", "--mode=label", f"--input={tmp_path}/scene.tif",
     f"--output={tmp_path}/labels", "--no_browser"], cwd=ROOT, capture_output=True, text=True,
  )
  assert other.returncode == 1
  assert "labels is in use by process" in other.stderr
  assert server_process.request("state")["answers"] == given
  assert not (tmp_path / "labels" / ".secret").exists()
  printed = server_process.end(signal.SIGINT)
  assert server_process.process.returncode == 0
  assert "holds 40 answers: 14 landslide, 13 non-landslide, 13 unknown" in printed
  assert "Traceback" not in printed
  with pytest.raises(urllib.error.URLError):
    server_process.request("state")


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_small_scales_of_the_map_agree_with_the_scene(tmp_path, dtype):
  ramp = np.add.outer(np.arange(700), np.arange(1100)).astype(float)
  pixels = (ramp / ramp.max() * (200 if dtype == "uint8" else 9000)).astype(dtype)
  with rasterio.open(
    tmp_path / "scene.tif", "w", driver="GTiff", height=700, width=1100, count=3, dtype=dtype
  ) as file:
    file.write(np.stack([pixels] * 3))
  pictures = Session(settings(tmp_path, tile_size=24)).view.pictures
  assert pictures.levels(0) == 3
  squares = [np.asarray(Image.open(io.BytesIO(pictures.square(0, 3, 0, 0)))).astype(float)]
  for level in (1, 2):  # The first reads the scene, the others its overview of 3 pixels.
    parts = [
      [np.asarray(Image.open(io.BytesIO(pictures.square(0, level, x, y))))
       for x in range(1100 // (256 << level) + 1)]
      for y in range(700 // (256 << level) + 1)
    ]
    joined = np.concatenate([np.concatenate(row, 1) for row in parts]).astype(float)
    factor = 8 >> level
    height, width = 256 * len(parts) // factor, 256 * len(parts[0]) // factor
    mean = joined.reshape(height, factor, width, factor, 3).mean((1, 3))
    inside = np.s_[: 700 // 8 - 1, : 1100 // 8 - 1]
    assert np.abs(mean[inside] - squares[0][: height, : width][inside]).max() < 6
