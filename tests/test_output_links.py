# ruff: noqa: F401, F811
"""Links in a stranger's output lead no file of another folder into a map, nor a map into one."""

import json
import os
import resource

import numpy as np
import pytest

from lgag_jax.mapping import output_folder
from lgag_jax.mapping.predict import map_scenes
from lgag_jax.mapping.row_store import RowStore, SavedState
from tests.test_map_names import model, write
from tests.test_mapping import batch_sizes
from tests.test_partly_written_files import flat_regions

pytestmark = pytest.mark.usefixtures("batch_sizes")
WORKING = ".unfinished/scene_tif"


def content(folder):
  return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def victim(tmp_path):
  """A folder with a text and the maps of another output."""
  folder = tmp_path / "victim"
  for name in ("thesis.txt", "mask/scene_tif.tif", "polygons/scene_tif.gpkg"):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("precious " * 1000)
  return folder


@pytest.mark.parametrize("is_checked", [False, True])
@pytest.mark.parametrize(("name", "target"), [
  (f"{WORKING}/0-40.scores", "thesis.txt"), (f"{WORKING}/0-40.mask", "thesis.txt"),
  (f"{WORKING}/products", "."),
])
def test_a_link_in_an_unfinished_map_changes_no_other_file(
  model, tmp_path, victim, monkeypatch, name, target, is_checked
):
  scene, path = write(tmp_path / "in" / "scene.tif", 1), tmp_path / "maps" / name
  path.parent.mkdir(parents=True)
  path.symlink_to(victim / target)
  before = content(victim)
  if not is_checked:  # The files are at risk.
    monkeypatch.setattr(output_folder, "_require_plain_tree", lambda folder: None)
    map_scenes(model, scene, tmp_path / "maps")
    assert content(victim) != before
    return
  with pytest.raises(ValueError, match=rf"maps/{name} is a symbolic link, which lgag does not follow"):
    map_scenes(model, scene, tmp_path / "maps")
  assert content(victim) == before and path.is_symlink()


@pytest.mark.parametrize("name", [
  f"{WORKING}/flat.u8", f"{WORKING}/.rows-unfiltered.tif", f"{WORKING}/products/mask",
  f"{WORKING}/0-40-16.npz", "eval/.unfinished",
])
def test_other_links_among_files_that_are_written_are_named(tmp_path, name):
  path = tmp_path / "maps" / name
  path.parent.mkdir(parents=True)
  link, pipe = (lambda: path.symlink_to(tmp_path)), (lambda: os.mkfifo(path))
  for make, message in ((link, "is a symbolic link"), (pipe, "is not a regular file")):
    make()
    with pytest.raises(ValueError, match=f"maps/{name} {message}"):
      output_folder.prepare(tmp_path / "maps", {"scene_tif": ["mask/scene_tif.tif"]})
    path.unlink()
  output_folder.prepare(tmp_path / "maps", {"scene_tif": ["mask/scene_tif.tif"]})


def rows(folder, state=None):
  """Writes half of a map's rows, with a state if given; returns the store."""
  store = RowStore(folder, "key", (0, 4), 5, 1, "uint8")
  store.write(0, np.full((2, 5, 1), 7, np.uint8), np.ones((2, 5), np.uint8))
  if state:
    store.save(state, now=True)
  return store


def test_the_other_names_of_rows_keep_their_content(tmp_path):
  """Some backups are copies made of hard links."""
  first, backup = tmp_path / "first", tmp_path / "backup"
  rows(first, SavedState(2, np.zeros((2, 5, 1), np.float32), [0.5]))
  backup.mkdir()
  for path in first.iterdir():
    os.link(path, backup / path.name)
  before = content(backup)
  store = RowStore(first, "key", (0, 4), 5, 1, "uint8")
  assert store.load_state(4, (2, 5, 1)).next_row == 2 and (store.read(0, 2)[0] == 7).all()
  store.write(2, np.full((2, 5, 1), 9, np.uint8), np.ones((2, 5), np.uint8))
  assert content(backup) == before and (store.read(0, 4)[0][:, 0, 0] == [7, 7, 9, 9]).all()


def test_the_other_names_of_flat_pixels_keep_their_content(tmp_path):
  other, path = tmp_path / "thesis.txt", tmp_path / "work" / "flat.u8"
  path.parent.mkdir()
  other.write_text("precious")
  os.link(other, path)
  flat_regions(path.parent, 2)
  assert other.read_text() == "precious" and path.stat().st_nlink == 1


@pytest.mark.parametrize("values", [
  {"band": "../other.npz"}, {"band": "{folder}/other.npz"}, {"band": None}, {"row": None},
  {"row": "/../../other", "band": "0-4-/../../other.npz"},
])
def test_a_state_names_only_its_own_band(tmp_path, values):
  folder = tmp_path / "work"
  store = rows(folder, SavedState(2, np.zeros((2, 5, 1), np.float32), [0.5]))
  np.savez(tmp_path / "other.npz", band=np.ones((2, 5, 1), np.float32))
  (folder / "0-4-").mkdir()
  state = json.loads((folder / "0-4.json").read_text())
  assert store.load_state(4, (2, 5, 1)).next_row == 2
  values = {k: v.format(folder=tmp_path) if isinstance(v, str) else v for k, v in values.items()}
  if values.get("band"):
    assert (folder / values["band"]).exists()  # Another file would be read.
  (folder / "0-4.json").write_text(json.dumps(state | values))
  assert store.load_state(4, (2, 5, 1)) is None


@pytest.mark.parametrize("values", [
  {"row": -5, "band": "0-4--5.npz"}, {"row": 5, "band": "0-4-5.npz"}, {"found": ["a"]},
  {"found": [0.5, 0.5]}, {"found": [float("nan")]}, {"found": None}, {"brightest": "x"},
])
def test_a_state_with_odd_numbers_is_left_out(tmp_path, values):
  store = rows(tmp_path, SavedState(2, np.zeros((2, 5, 1), np.float32), [0.5]))
  state = json.loads((tmp_path / "0-4.json").read_text()) | values
  (tmp_path / "0-4.json").write_text(json.dumps(state))
  np.savez(tmp_path / state["band"], band=np.zeros((2, 5, 1), np.float32))
  assert store.load_state(4, (2, 5, 1)) is None


@pytest.mark.parametrize(("shape", "dtype"), [
  ((300 << 20,), np.uint8), ((3, 5, 1), np.float32), ((2, 5, 1), np.float64),
])
def test_a_band_of_another_shape_is_left_out(tmp_path, shape, dtype):
  store = rows(tmp_path, SavedState(2, np.zeros((2, 5, 1), np.float32), [0.5]))
  np.savez_compressed(tmp_path / "0-4-2.npz", band=np.zeros(shape, dtype))
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  assert store.load_state(4, (2, 5, 1)) is None
  assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10
