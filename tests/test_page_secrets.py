"""The secret of a page is the user's own, and the only picture that is served is a PNG of the map."""

import os
import stat

import pytest
from starlette.testclient import TestClient

from lgag_jax.labelling import listener
from lgag_jax.options.reviewing import Settings
from lgag_jax.reviewing import server
from lgag_jax.reviewing.session import Session
from lgag_jax.runtime import files
from tests.test_reviewing import SECRET, write_maps

PLANTED = "K" * 32


@pytest.fixture
def state(tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
  return tmp_path / "state" / "lgag_jax" / "secrets"


def test_a_secret_is_kept_by_place_and_for_its_user_only(tmp_path, state):
  outputs = [tmp_path / name for name in "ab"]
  for output in outputs:
    output.mkdir()
  first, second = map(listener.secret_of, outputs)
  assert first != second
  (tmp_path / "c").symlink_to(outputs[0])
  assert listener.secret_of(tmp_path / "c") == listener.secret_of(outputs[0]) == first
  assert {stat.S_IMODE(path.stat().st_mode) for path in state.iterdir()} == {0o600}
  assert stat.S_IMODE(state.stat().st_mode) == 0o700
  assert not list(outputs[0].iterdir())


@pytest.mark.parametrize("kind", ["planted", "readable", "link", "pipe", "no secret", "open folder"])
def test_a_secret_that_others_may_know_is_not_used(tmp_path, state, kind):
  output = tmp_path / "maps"
  output.mkdir()
  (output / ".secret").write_text(PLANTED)
  (output / ".secret").chmod(0o600)
  known = PLANTED
  if kind != "planted":
    known = listener.secret_of(output)
    (path,) = state.iterdir()
    if kind == "readable":
      path.chmod(0o644)
    elif kind == "open folder":
      state.chmod(0o777)
    else:
      path.unlink()
      {"link": lambda: path.symlink_to(output / ".secret"), "pipe": lambda: os.mkfifo(path, 0o600),
       "no secret": lambda: path.write_text("short")}[kind]()
  secret = listener.secret_of(output)
  assert secret not in (known, PLANTED)
  assert len(secret) == 32
  assert (output / ".secret").read_text() == PLANTED


def test_without_a_state_folder_each_start_has_a_secret_of_its_own(tmp_path, monkeypatch):
  (tmp_path / "file").touch()
  monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
  assert len({listener.secret_of(tmp_path) for _ in range(3)}) == 3


@pytest.mark.parametrize(("kind", "message"), [
  ("link", "is a symbolic link"), ("pipe", "is not a regular file"), ("large", "MiB allowed"),
  ("text", "is not a PNG"),
])
def test_only_a_png_of_the_map_is_served(tmp_path, kind, message):
  maps = write_maps(tmp_path)
  (tmp_path / "scene.tif").unlink()
  path = maps / "overlay" / "scene_tif.png"
  content = path.read_bytes()
  path.unlink()
  if kind == "link":
    (tmp_path / "secret.png").write_bytes(content)
    path.symlink_to(tmp_path / "secret.png")
  elif kind == "pipe":
    os.mkfifo(path)
  elif kind == "large":
    path.write_bytes(content)
    os.truncate(path, 3 << 30)
  else:
    path.write_text("root:x:0")
  app = server.make_app(Session(Settings(input=str(maps))), SECRET, "127.0.0.1")
  response = TestClient(app, base_url=f"http://localhost:8765/{SECRET}/").get("picture/0")
  assert response.status_code == 500
  assert message in response.json()["error"]


@pytest.mark.parametrize("kind", ["pipe", "large", "folder", "device"])
def test_plain_reads_end_and_take_no_memory(tmp_path, kind):
  path = tmp_path / "text.json"
  if kind == "pipe":
    os.mkfifo(path)
  elif kind == "large":
    path.touch()
    os.truncate(path, 3 << 30)
  elif kind == "folder":
    path.mkdir()
  else:
    path.symlink_to("/dev/zero")
  with pytest.raises((ValueError, IsADirectoryError), match=r"text\.json"):
    files.read_json(path)
