"""Maps from answers: the commands that make them, how they resume, and the layer over the scene."""

import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import rasterio
from absl.testing import flagsaver
from PIL import Image
from starlette.testclient import TestClient

from lgag_jax.cli import command_line
from lgag_jax.labelling import left_process, map_job, server
from lgag_jax.labelling.map_layer import MapLayer
from lgag_jax.labelling.own_files import MAP_FILES
from lgag_jax.labelling.session import Session
from lgag_jax.runtime import packaged
from tests.test_labelling import NO, SECRET, SIDE, UNSURE, YES, labelling_server, settings
from tests.test_tile import write_scene

# Stands in for the command line: notes its flags, and writes what each mode would.
FAKE = """
import json, os, pathlib, signal, sys, time
flags = dict(f.removeprefix("--").partition("=")[::2] for f in sys.argv[1:])
root = pathlib.Path(__file__).parent
with (root / "calls").open("a") as file:
  file.write(json.dumps(sys.argv[1:]) + "\\n")
print("step: 3/4 steps, 1.0/s, 0:01 left", flush=True)
print("W1129 09:51:25.562066 140397041032064 dealing.py:48] A warning.", flush=True)
if "config" in flags:
  run = pathlib.Path(flags["workdir"])
  run.mkdir(exist_ok=True)
  (run / "features").mkdir(exist_ok=True)
  if (root / "slow").exists():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    (root / "reached").touch()
    time.sleep(60)
  if (root / "broken").exists():
    sys.exit("Error: data.directory has too few images.")
elif flags["mode"] == "tile":
  folder = pathlib.Path(flags["output"])
  folder.mkdir()
  (folder / "manifest.csv").touch()
else:
  (pathlib.Path(flags["output"]) / "scenes").mkdir(parents=True)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
  """A folder with a scene, 16 answers, and a stand-in for the command line."""
  write_scene(tmp_path / "scene.tif")
  (tmp_path / "fake.py").write_text(FAKE)
  monkeypatch.setattr(map_job, "_COMMAND", (str(tmp_path / "fake.py"),))
  session = Session(settings(tmp_path))
  give(session, {n: [YES, NO, YES, NO, UNSURE][n % 5] for n in range(20)})
  return tmp_path, session


def give(session, labels):
  session.answer(session.view.index.version, list(labels.items()))


def calls(folder):
  return [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


def wait(session, state):
  end = time.monotonic() + 30
  while session.map_state()["state"] != state:
    assert time.monotonic() < end, session.map_state()
    time.sleep(0.05)
  return session.map_state()


def test_a_map_takes_three_commands_that_are_understood(place, monkeypatch):
  folder, session = place
  client = TestClient(server.make_app(session, SECRET, ""), base_url=f"http://localhost/{SECRET}/",
                      headers={"Origin": "http://localhost"})
  assert client.get("make_map").json()["state"] == "none"
  assert client.post("make_map", json=[]).status_code == 400
  response = client.post("make_map", json={})
  assert response.json()["state"] == "running"
  assert client.post("make_map", json={}).status_code == 400  # One at a time.
  state = wait(session, "done")
  assert not state["outdated"]
  assert state["line"] == "A warning."
  tile_call, train_call, predict_call = calls(folder)
  assert f"--labels={session.answers.path}" in tile_call
  assert f"--tile_size={SIDE}" in tile_call
  assert f"--config.data.directory={folder}/labels/tiles" in train_call
  assert f"--workdir={folder}/labels/run" in train_call
  assert predict_call[0] == "--mode=predict"
  for call in (tile_call, train_call, predict_call):
    arguments = ["lgag", *call]
    monkeypatch.setattr(sys, "argv", arguments)
    with flagsaver.flagsaver():
      assert command_line.parse_flags(arguments) == ["lgag"]
      assert command_line.mode_arguments()
  give(session, {20: YES})
  assert session.map_state()["outdated"]


def test_a_config_file_of_the_current_folder_does_not_run(place, monkeypatch):
  folder, session = place
  (folder / "configs").mkdir()
  (folder / "configs" / "image_folder.py").write_text("raise RuntimeError")
  monkeypatch.chdir(folder)
  assert packaged.resolve("configs/image_folder.py") == "configs/image_folder.py"  # It would run.
  session.map_job.start()
  wait(session, "done")
  (config,) = [word for call in calls(folder) for word in call if word.startswith("--config=")]
  assert config == f"--config={packaged.PACKAGE.parent}/configs/image_folder.py"


def test_other_answers_set_the_earlier_map_aside(place):
  folder, session = place
  for number in range(3):
    session.map_job.start()
    wait(session, "done")
    give(session, {20 + number: YES})
  assert len(calls(folder)) == 9
  earlier = folder / "labels" / "earlier"
  assert {p.name for p in earlier.iterdir()} == {"1", "2"}
  assert {p.name for p in (earlier / "2").iterdir()} == {"tiles", "run", "maps"}
  assert not (earlier / "1" / "run" / "features").exists()


def test_decisions_on_the_map_count_for_the_next_one(place):
  folder, session = place
  review = folder / "labels" / "maps" / "review"
  session.map_job.start()
  wait(session, "done")
  review.mkdir()
  (review / "scene_tif.jsonl").touch()
  assert not session.map_state()["outdated"]  # Nothing was decided.
  (review / "scene_tif.jsonl").write_text("{}\n")
  assert session.map_state()["outdated"]
  session.map_job.start()
  assert not wait(session, "done")["outdated"]
  first, second = calls(folder)[:3], calls(folder)[3:]
  flags = f"--review={review}", "--config.loss.drawn_pixel_weight=1.0"
  assert [flag in call for flag, call in zip(flags, second, strict=False)] == [True, True]
  assert not any(flag in call for flag in flags for call in first)
  for place_of_map in (review, folder / "labels" / "earlier" / "1" / "maps" / "review"):
    assert (place_of_map / "scene_tif.jsonl").read_text() == "{}\n"


def test_a_stopped_map_is_resumed_by_a_new_server(place):
  folder, session = place
  (folder / "slow").touch()
  session.map_job.start()
  while not (folder / "reached").exists():
    time.sleep(0.05)
  begin = time.monotonic()
  session.close()
  assert time.monotonic() - begin < 10
  assert session.map_state()["state"] == "stopped"
  (folder / "slow").unlink()
  again = Session(session.settings)
  assert again.map_state()["state"] == "stopped"
  again.map_job.start()
  wait(again, "done")
  modes = [call[0] for call in calls(folder)]
  assert modes == ["--mode=tile", modes[1], modes[1], "--mode=predict"]  # Tiles are not cut again.
  assert Session(session.settings).map_state()["state"] == "done"


@pytest.mark.parametrize("is_stopped", [False, True])
def test_a_server_takes_over_what_a_killed_one_left_running(place, caplog, is_stopped):
  """The process of the killed server is a child of this test here, which it finds by its number."""
  folder, session = place
  (folder / "slow").touch()
  labels = folder / "labels"
  session.own_files.claim(MAP_FILES)
  (labels / "tiles").mkdir()
  (labels / "tiles" / "manifest.csv").touch()
  (labels / "run.log").write_text("step: 3/4 steps, 1.0/s, 0:01 left\n")
  flags = "--config=c", f"--workdir={labels / 'run'}"
  process = subprocess.Popen([sys.executable, str(folder / "fake.py"), *flags], start_new_session=True)
  threading.Thread(target=process.wait, daemon=True).start()  # As init would.
  while not (folder / "reached").exists():
    time.sleep(0.05)
  record = {"answers": session.map_job._digest(), "done": False, "step": 1}
  record["process"] = left_process.identify(process.pid)
  (labels / "map.json").write_text(json.dumps(record))
  (folder / "slow").unlink()
  again = Session(session.settings)
  again.start()
  assert f"left a map in the making (process {process.pid})" in caplog.text
  assert again.map_state()["state"] == "running"
  with pytest.raises(ValueError, match="being made already"):
    again.map_job.start()
  while "Begun by an earlier server. step: 3/4" not in again.map_state()["line"]:
    time.sleep(0.05)
  if is_stopped:
    again.close()
    assert again.map_state()["state"] == "stopped"
    assert process.poll() == 143
    return
  process.terminate()
  wait(again, "done")
  assert len(calls(folder)) == 3
  assert calls(folder)[-1][0] == "--mode=predict"
  gone = record["process"] | {"started": record["process"]["started"] + 1}  # Another of this number.
  for mark in (record["process"], gone, {"pid": os.getpid()}, None, {"pid": "x", "started": 1}):
    assert not left_process.is_running(mark, map_job._COMMAND[-1], labels)


@pytest.mark.parametrize("command", [
  ["sleep", "60"], ["lgag_jax.main", "--output={}/other/tiles"], ["lgag_jax.main", "{}/labels/tiles"],
  ["other", "--output={}/labels/tiles"], ["lgag_jax.main", "--output={}/labels/tiles"],
  ["lgag_jax.main", "--mode=train", "--workdir=labels/run"],
])
@pytest.mark.parametrize("kind", [int, str])
def test_only_a_process_that_makes_the_map_is_stopped(tmp_path, command, kind):
  words = [word.format(tmp_path) for word in command]
  if words[0] != "sleep":
    words = [sys.executable, "-c", "import time; time.sleep(60)", *words]
  (tmp_path / "labels").mkdir()
  process = subprocess.Popen(words, cwd=tmp_path)
  is_own = command[0] == "lgag_jax.main" and "labels" in command[-1] and (
    command[-1].startswith("--"))
  command_line = pathlib.Path("/proc", str(process.pid), "cmdline")
  try:
    while os.fsencode(words[-1]) not in command_line.read_bytes():  # It is starting.
      time.sleep(0.01)
    record = left_process.identify(process.pid)
    record["pid"] = kind(record["pid"])
    left_process.stop(record, "lgag_jax.main", tmp_path / "labels")
    if is_own:
      assert process.wait(5) == -signal.SIGTERM
    else:
      with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.1)
  finally:
    process.kill()
    process.wait()


def test_a_failed_step_says_why(place):
  folder, session = place
  (folder / "broken").touch()
  session.map_job.start()
  state = wait(session, "failed")
  assert state["line"] == "Train failed: Error: data.directory has too few images."
  (folder / "broken").unlink()
  session.map_job.start()
  wait(session, "done")


def test_a_map_needs_answers_of_each_kind(tmp_path):
  write_scene(tmp_path / "scene.tif")
  session = Session(settings(tmp_path))
  give(session, {0: YES, 1: YES, 2: YES, 3: NO})
  message = "A map needs more answers: 1 landslide, 3 non-landslide."
  assert session.map_state()["missing"] == message
  with pytest.raises(ValueError, match=message):
    session.map_job.start()


def write_map(folder, scene, probability):
  for name in ("probability", "scenes"):
    (folder / name).mkdir(parents=True)
  height, width = probability.shape[-2:]
  with rasterio.open(
    folder / "probability" / "a.tif", "w", driver="GTiff", height=height, width=width,
    count=len(probability), dtype="uint8",
  ) as file:
    file.write(probability)
  figures = {"path": os.path.abspath(scene), "files": ["probability/a.qml", "probability/a.tif"]}
  (folder / "scenes" / "a.json").write_text(json.dumps(figures))
  (folder / "predictions.csv").touch()


def test_the_layer_is_as_opaque_as_the_map_is_sure(tmp_path):
  probability = np.zeros((1, 100, 120), np.uint8)
  probability[0, 20:40, 30:70], probability[0, 60:80, 30:70] = 100, 40
  probability[0, 80:] = 255  # No data.
  layer = MapLayer(tmp_path)
  assert layer.version() == ""
  write_map(tmp_path, tmp_path / "scene.tif", probability)
  assert layer.version() != ""
  picture = np.asarray(Image.open(io.BytesIO(
    layer.draw(tmp_path / "scene.tif", (-10, -10, 150, 150), 150))))
  assert picture.shape == (150, 150, 4)
  expected = np.zeros((150, 150))
  expected[30:50, 40:80], expected[70:90, 40:80] = 0.6 * 255, 0.4 * 0.6 * 255
  np.testing.assert_allclose(picture[..., 3], expected, atol=1)
  assert (picture[35, 45, :3] == (0xD8, 0x1B, 0)).all()
  half = np.asarray(Image.open(io.BytesIO(layer.draw(tmp_path / "scene.tif", (0, 0, 256, 256), 128))))
  np.testing.assert_allclose(half[10:20, 15:35, 3], 153, atol=1)
  assert half[50:].max() == half[:, 60:].max() == 0
  with pytest.raises(ValueError, match=r"no map of other\.tif"):
    layer.draw(tmp_path / "other.tif", (0, 0, 9, 9), 9)


def test_the_server_shows_the_layer(place):
  folder, session = place
  write_map(folder / "labels" / "maps", folder / "scene.tif", np.full((2, 100, 128), 90, np.uint8))
  client = TestClient(server.make_app(session, SECRET, ""), base_url=f"http://localhost/{SECRET}/")
  state = client.get("make_map").json()
  assert state["scenes"] == [0]
  assert state["version"]
  for path in ("map_layer/0/0/0/0", "map_layer/3", "map_layer/3?surroundings"):
    response = client.get(path)
    assert response.headers["content-type"] == "image/png"
    assert np.asarray(Image.open(io.BytesIO(response.content)))[..., 3].max() > 130
  for path in ("map_layer/1/0/0/0", "map_layer/0/0/5/0", "map_layer/9999"):
    assert client.get(path).status_code == 400
  (folder / "labels" / "maps" / "probability" / "a.tif").write_bytes(b"II*\0damaged")
  assert client.get("map_layer/3").status_code == 500


@pytest.mark.slow
def test_ctrl_c_in_the_middle_of_a_map(tmp_path):
  write_scene(tmp_path / "scene.tif")
  process = labelling_server(tmp_path, "--nolearn")
  version = process.request("state")["version"]
  process.request("answers", {
    "version": version, "answers": [[n, YES if n % 2 else NO] for n in range(30)]})
  assert process.request("make_map", {})["state"] == "running"
  while process.request("make_map")["step"] < 1:  # The tiles are cut.
    time.sleep(0.3)
  process.end(signal.SIGINT)
  assert process.process.returncode == 0
  assert (tmp_path / "labels" / "tiles" / "manifest.csv").exists()
  assert not json.loads((tmp_path / "labels" / "map.json").read_text())["done"]
