"""Odd names, records and headers under the pages: escaped or refused, never a crash."""

import json
import os

import numpy as np
import pytest
import rasterio
from starlette.testclient import TestClient

from lgag_jax.labelling import server, web
from lgag_jax.labelling.session import Session
from lgag_jax.options.reviewing import Settings
from lgag_jax.reviewing import server as review_server
from lgag_jax.reviewing.session import Session as ReviewSession
from lgag_jax.runtime import printable
from tests.test_labelling import SECRET, settings
from tests.test_reviewing import write_maps

ODD = [
  "plain äöü 日本", "\x1b[31m", "\u202egnp", "\x7f\x9f", "a\\u001b", "a\\\\x", "\b\f\r", '"\\"', "\0",
  "\u2028", "\udc80\ud800", "tab\tline\n", "\\", "\\\x1b", "/\u2069/",
]


@pytest.mark.parametrize("text", ODD)
def test_texts_in_json_are_escaped_as_elsewhere(text):
  content = {"name": text, "list": [text, 1.5, None, {text: text}]}
  shown = printable.text(text)
  assert json.loads(bytes(web.Json(content).body)) == {
    "name": shown, "list": [shown, 1.5, None, {shown: shown}]}


@pytest.fixture
def scene(tmp_path):
  path = tmp_path / "evil\u202egnp\x1b[31m.tif"
  with rasterio.open(path, "w", driver="GTiff", height=64, width=64, count=3, dtype="uint8") as file:
    file.write(np.full((3, 64, 64), 90, np.uint8))
  return path


def client_of(app):
  return TestClient(app, base_url=f"http://localhost/{SECRET}/", raise_server_exceptions=True)


def test_the_page_of_labels_shows_a_scene_s_name_escaped(scene, tmp_path):
  client = client_of(server.make_app(Session(settings(tmp_path)), SECRET, ""))
  assert client.get("state").json()["scenes"][0]["name"] == "evil\\u202egnp\\x1b[31m.tif"


@pytest.mark.parametrize("field", ["file", "path", "workdir"])
def test_the_page_of_a_review_shows_names_escaped(tmp_path, field):
  maps = write_maps(tmp_path)
  path = maps / "scenes" / "scene_tif.json"
  record = json.loads(path.read_text())
  path.write_text(json.dumps(record | {field: "evil\u202e\x1b[31m.tif"}))
  client = client_of(review_server.make_app(ReviewSession(Settings(input=str(maps))), SECRET, ""))
  for address in ("state", "preview/0?thresholds=0.5", "preview/0?thresholds=7"):
    text = client.get(address).text
    assert "\u202e" not in text and "u001b" not in text, address


@pytest.mark.parametrize("content", [
  "[]", "{}", '{"files": 5}', '{"files": [1]}', '{"files": ["probability/a.tif"], "path": []}', '"x"',
  '{"files": "probability/", "path": "x"}', "{", "null", '{"files": null}',
])
def test_an_odd_record_of_a_map_is_not_shown(tmp_path, scene, content, caplog):
  records = tmp_path / "labels" / "maps" / "scenes"
  records.mkdir(parents=True)
  (records.parent / "predictions.csv").touch()
  (records / "a.json").write_text(content)
  good = {"files": ["probability/b.tif"], "path": os.fspath(scene)}
  (records / "b.json").write_text(json.dumps(good))
  client = client_of(server.make_app(Session(settings(tmp_path)), SECRET, ""))
  response = client.get("make_map")
  assert response.status_code == 200
  assert response.json()["scenes"] == [0]
  assert "a.json is damaged" in caplog.text or content == '{"files": "probability/", "path": "x"}'


@pytest.mark.parametrize("origin", ["http://[x", "http://[::1", "//[", "http://]", "\xff"])
def test_an_odd_origin_is_refused(tmp_path, scene, origin):
  client = client_of(server.make_app(Session(settings(tmp_path)), SECRET, ""))
  headers = {"origin": origin.encode("latin-1"), "content-type": "application/json"}
  assert client.post("answers", content="{}", headers=headers).status_code == 403
