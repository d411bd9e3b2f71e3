"""Few labelled tiles are dealt to training and validation: none is lost, and both get every label."""

import collections
import dataclasses
import logging

import numpy as np
import pytest

from lgag_jax.tiling import dealing, tile
from tests.test_labelling import settings
from tests.test_tile import SIDE, write_scene


@pytest.mark.parametrize("positives", [2, 5, 10, 16, 60])
@pytest.mark.parametrize("layout", ["anywhere", "one corner", "two scenes"])
def test_both_splits_get_every_label(positives, layout, rng):
  rows = cols = 12
  places = [tuple(p) for p in rng.permutation([*np.ndindex(rows, cols)]).tolist()]
  if layout == "one corner":  # All positives in neighbouring tiles.
    places.sort(key=lambda place: max(place))
  labels = {}
  for i, (row, col) in enumerate(places[: positives + 30]):
    scene = "b.tif" if layout == "two scenes" and col % 2 else "a.tif"
    labels[scene, row, col] = "landslide" if i < positives else "none"
  chosen = dealing.held_out(labels, 0.2)
  counts = collections.Counter((label, place in chosen) for place, label in labels.items())
  for label, total in (("landslide", positives), ("none", 30)):
    assert 1 <= counts[label, True] <= max(1, 0.3 * total)
    assert counts[label, False] >= 0.5 * total
  assert chosen == dealing.held_out(dict(reversed(labels.items())), 0.2)


def test_a_label_with_one_tile_stays_in_training():
  labels = {("a.tif", 0, c): "none" for c in range(9)} | {("a.tif", 5, 5): "landslide"}
  assert ("a.tif", 5, 5) not in dealing.held_out(labels, 0.2)


def answered(folder, count, text="row,col,label,scene,tile_size,time\n"):
  cells = [(r, c) for r in range(7) for c in range(8)][:count]
  for r, c in cells:
    text += f"{r},{c},{'landslide' if c % 3 == 0 else 'non-landslide'},scene.tif,{SIDE},\n"
  (folder / "labels").mkdir(exist_ok=True)
  (folder / "labels" / "labels.csv").write_text(text)
  return settings(folder).tiling(SIDE)


def test_no_answer_is_left_out_without_a_word(tmp_path, caplog):
  write_scene(tmp_path / "scene.tif")
  cut = dataclasses.replace(answered(tmp_path, 40), max_nodata=1.0)
  with caplog.at_level(logging.INFO):
    rows, _ = tile.cut(cut)
  assert "Only 40 tiles are labelled, so none is left out" in caplog.text
  used = collections.Counter((row.label, row.split) for row in rows if row.image)
  assert sum(used.values()) == 40
  assert all(used[label, split] for label in ("landslide", "non-landslide")
             for split in ("train", "validation"))
  assert "WARNING" not in tile.output.summary(rows, cut)
  # Asked for, tiles are left out, and named.
  buffered = dataclasses.replace(cut, block_buffer=SIDE, output=str(tmp_path / "other"))
  rows, _ = tile.cut(buffered)
  unused = [row for row in rows if row.label in ("landslide", "non-landslide") and not row.split]
  assert unused
  text = tile.output.summary(rows, buffered)
  assert f"the labels of {len(unused)} tiles near a border" in text
  assert f"scene.tif {unused[0].row},{unused[0].col}" in text
  assert "--block_buffer=0" in text


def test_other_tables_are_split_by_blocks_as_before(tmp_path, caplog):
  write_scene(tmp_path / "scene.tif")
  cut = answered(tmp_path, 40)
  table = tmp_path / "labels" / "labels.csv"
  text = table.read_text().replace(f",{SIDE},\n", "\n").replace(",tile_size,time", "")
  table.write_text(text)
  with caplog.at_level(logging.INFO):
    rows, _ = tile.cut(cut)
  assert "so none is left out" not in caplog.text
  assert any(not row.split for row in rows)
