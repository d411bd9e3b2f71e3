"""Pictures that a browser keeps by their address are never those of other tiles or other bands."""

import dataclasses

import pytest
import rasterio
from starlette.testclient import TestClient

from lgag_jax.labelling import server
from lgag_jax.labelling.session import Session
from lgag_jax.options.reviewing import Settings as ReviewSettings
from lgag_jax.reviewing.session import Session as ReviewSession
from tests.test_labelling import SECRET, settings
from tests.test_reviewing import write_maps
from tests.test_tile import write_scene


def client_of(session):
  return TestClient(
    server.make_app(session, SECRET, ""), base_url=f"http://localhost/{SECRET}/",
    headers={"Origin": "http://localhost"})


def test_a_page_of_an_earlier_size_gets_no_pictures_of_the_new_one(tmp_path):
  write_scene(tmp_path / "scene.tif")
  client = client_of(Session(settings(tmp_path)))
  version = client.get("state").json()["pictures"]
  addresses = [f"{name}?v={version}" for name in ("tile/1", "surroundings/1", "map/0/0/0/0")]
  before = [client.get(address).content for address in addresses]
  assert client.post("tile_size", json={"tile_size": 32}).status_code == 200
  for address in addresses:
    response = client.get(address)
    assert response.status_code == 409
    assert response.headers["cache-control"] == "no-store"
  assert client.post("tile_size", json={"tile_size": 16}).status_code == 200
  assert [client.get(address).content for address in addresses] == before


def test_other_bands_have_pictures_of_their_own(tmp_path):
  write_scene(tmp_path / "scene.tif")
  chosen = settings(tmp_path)
  sessions = [Session(dataclasses.replace(chosen, rgb_bands=bands)) for bands in ((1, 2, 3), (3, 2, 1))]
  states = [client_of(session).get("state").json() for session in sessions]
  assert states[0]["pictures"] != states[1]["pictures"]
  assert states[0]["version"] == states[1]["version"]  # The tiles are the same: answers still count.
  maps = str(write_maps(tmp_path))
  scenes = [
    ReviewSession(ReviewSettings(input=maps, rgb_bands=bands)).state()["scenes"][0]
    for bands in ((1, 2, 3), (3, 2, 1))
  ]
  assert scenes[0]["pictures"] != scenes[1]["pictures"]


def test_overviews_change_the_pictures_but_no_tile(tmp_path):
  write_scene(tmp_path / "scene.tif")
  states = [client_of(Session(settings(tmp_path))).get("state").json()]
  with rasterio.open(tmp_path / "scene.tif", "r+") as file:
    file.build_overviews([2])
  states.append(client_of(Session(settings(tmp_path))).get("state").json())
  assert states[0]["pictures"] != states[1]["pictures"]
  assert states[0]["version"] == states[1]["version"]  # The page saves what a killed server did not.


def test_bands_that_a_scene_lacks_are_named_at_the_start(tmp_path):
  write_scene(tmp_path / "scene.tif")
  with pytest.raises(ValueError, match="--rgb_bands=1,2,4: there are only 3 bands"):
    Session(settings(tmp_path, rgb_bands=(1, 2, 4)))
  with pytest.raises(ValueError, match="--rgb_bands=1,2,4: there are only 3 bands"):
    ReviewSession(ReviewSettings(input=str(write_maps(tmp_path)), rgb_bands=(1, 2, 4)))


def test_a_size_that_cannot_be_shown_leaves_the_tiles_and_what_is_learned(tmp_path, monkeypatch):
  write_scene(tmp_path / "scene.tif")
  session = Session(settings(tmp_path))
  client, stopped = client_of(session), []
  monkeypatch.setattr(session, "_close_view", lambda: stopped.append(True))
  monkeypatch.setattr("lgag_jax.labelling.tile_index.MAX_TILES", 20)
  response = client.post("tile_size", json={"tile_size": 8})
  assert response.status_code == 400
  assert "more than 20" in response.json()["error"]
  assert stopped == []
  assert client.post("tile_size", json={"tile_size": 32}).status_code == 200
  assert stopped == [True]
