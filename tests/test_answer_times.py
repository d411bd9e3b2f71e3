"""The latest answer to a tile counts, also in a table that a spreadsheet has sorted."""

import datetime

import pytest

from lgag_jax.labelling import answer_table
from lgag_jax.labelling.answers import Answers
from lgag_jax.options.tiling import Settings
from lgag_jax.tiling import label_rows, tile
from lgag_jax.tiling.label_rows import LabelRow
from tests.test_tile import NO, SIDE, YES, write_scene

HEADER = ",".join(answer_table.COLUMNS)
FIRST = [("s.tif", 0, col, NO, SIDE, "", f"2026-11-29T10:00:0{col}.000+00:00") for col in range(4)]
SECOND = [
  ("s.tif", 0, 1, YES, SIDE, "", "2026-11-29T11:00:00.000+00:00"),
  ("s.tif", 0, 2, "", SIDE, "", "2026-11-29T11:30:00.000+00:00"),  # Taken back.
  ("s.tif", 0, 3, YES, SIDE, "", "2026-11-29T11:40:00.000+00:00"),
  ("s.tif", 0, 3, NO, SIDE, "", "2026-11-29T11:50:00.000+00:00"),
]
EXPECTED = {(0, 0): NO, (0, 1): YES, (0, 3): NO}
ORDERS = {
  "as written": lambda rows: rows, "newest first": lambda rows: rows[::-1],
  "by label": lambda rows: sorted(rows, key=lambda row: row[3]),
  "by label, Z to A": lambda rows: sorted(rows, key=lambda row: row[3], reverse=True),
}


def settings(folder, **fields):
  return Settings(**{
    "input": str(folder / "s.tif"), "output": str(folder / "tiles"), "tile_size": SIDE,
    "labels": str(folder / "labels.csv"), "validation_fraction": 0.0, **fields,
  })


def write(path, rows):
  path.write_text("\n".join([HEADER, *(",".join(map(str, row)) for row in rows)]) + "\n")


@pytest.mark.parametrize("order", ORDERS)
def test_the_order_of_the_rows_does_not_matter(tmp_path, order):
  write_scene(tmp_path / "s.tif")
  write(tmp_path / "labels.csv", ORDERS[order](FIRST + SECOND))
  rows, _ = tile.cut(settings(tmp_path))
  assert {(row.row, row.col): row.label for row in rows if row.label in (YES, NO)} == EXPECTED
  latest = Answers(tmp_path, settings(tmp_path)).latest
  assert {key[1:]: answer.label for key, answer in latest.items()} == EXPECTED


@pytest.mark.parametrize(("times", "counting"), [
  (("", "", ""), 2), (("2026-01-01", "2026-01-01T00:00", ""), 2), (("", "2026-01-01", ""), 2),
  (("2026-01-02", "", "2026-01-01"), 1), (("2026-01-01", "2026-01-01", "2025-12-31"), 1),
  (("2026-01-01T12:00+02:00", "2026-01-01T11:00", "2026-01-01T10:30Z"), 1),
  (("2026-01-01T12:00", "2026-01-01T13:30+02:00", ""), 2),
])
def test_equal_and_missing_times_keep_the_order(times, counting):
  rows = [LabelRow(f"row {number}", {"time": time}) for number, time in enumerate(times)]
  assert label_rows.latest(rows, lambda _: 0) == {0: rows[counting]}


@pytest.mark.parametrize("time", ["yesterday", "29.11.2026 10:00", "46355.4"])
def test_a_time_that_cannot_be_read_is_named(tmp_path, time):
  write_scene(tmp_path / "s.tif")
  write(tmp_path / "labels.csv", [*FIRST, (*SECOND[0][:6], time)])
  for read in (tile.cut, lambda settings: Answers(tmp_path, settings)):
    with pytest.raises(ValueError, match=rf"labels\.csv, row 6 has the time '{time}'.*write it as"):
      read(settings(tmp_path))


@pytest.mark.parametrize("days", [-1, 1])
def test_a_new_answer_counts_after_one_of_a_clock_that_was_fast(tmp_path, days):
  earlier = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days)
  write(tmp_path / "labels.csv", [(*FIRST[0][:6], earlier.isoformat())])
  Answers(tmp_path, settings(tmp_path)).give([(("s.tif", 0, 0), YES)], SIDE)
  assert Answers(tmp_path, settings(tmp_path)).latest["s.tif", 0, 0].label == YES
