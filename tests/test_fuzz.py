"""A short fuzzing of every reader, and that the fuzzing itself would see a fault."""

import os

import numpy as np
import pytest

from benchmarks import fuzz, fuzz_inputs, fuzz_seeds
from benchmarks.fuzz_readers import READERS, Reader

INPUTS = 150


def crash(path):
  if path.read_bytes() != b"valid":
    os.abort()


def take_all(path):
  if path.read_bytes() != b"valid":
    np.ones(8 << 30, np.uint8)


def raise_key_error(path):
  if path.read_bytes() != b"valid":
    raise KeyError(str(path))


def name_nothing(path):
  if path.read_bytes() != b"valid":
    raise ValueError("bad")


def refuse(path):
  if path.read_bytes() != b"valid":
    raise ValueError(f"{path} is bad")


CRASHING, GREEDY, WRONG, UNNAMED, SOUND = (
  Reader("x", read, lambda: [b"valid"])
  for read in (crash, take_all, raise_key_error, name_nothing, refuse)
)


@pytest.mark.parametrize("name", sorted(READERS))
def test_readers_read_or_refuse(name, tmp_path):
  row = fuzz.run(name, INPUTS, tmp_path)
  assert row["messages"] == {} and not list(tmp_path.iterdir())
  assert row["crashes"] == row["faults"] == 0
  assert row["inputs"] == INPUTS == row["read"] + row["refused"]
  assert row["read"] > 0 and row["refused"] > 0  # Both sides of each reader are met.
  assert row["slowest_ms"] < 1000 * fuzz.SECONDS and row["peak_mib"] < fuzz.PEAK_MIB


@pytest.mark.parametrize("name", sorted(READERS.keys() - {"archive-tar-gz"}))
def test_what_the_inputs_begin_as_is_read(name, tmp_path):
  reader = READERS[name]
  reader.prepare(tmp_path)
  for data in reader.seeds():
    (tmp_path / reader.name).write_bytes(data)
    reader.read(tmp_path / reader.name)
    if reader.repair:  # Nothing to mend in what is valid.
      assert reader.repair(data) == data


@pytest.mark.parametrize(("reader", "outcome", "message"), [
  ("CRASHING", "crashes", "exit -6"), ("GREEDY", "faults", "MemoryError"),
  ("WRONG", "faults", "KeyError"), ("UNNAMED", "faults", "ValueError: bad"),
])
def test_faults_are_seen_and_kept(reader, outcome, message, tmp_path):
  row = fuzz.run(f"tests.test_fuzz:{reader}", 2, tmp_path)
  assert row[outcome] > 0 and row["refused"] == 0
  assert any(message in text for text in row["messages"])
  kept = [path for path in tmp_path.rglob("*") if path.is_file()]
  assert kept and all(path.read_bytes() != b"valid" for path in kept)


def test_a_sound_reader_has_no_faults_and_inputs_are_the_same_each_time(tmp_path):
  rows = [fuzz.run("tests.test_fuzz:SOUND", 50, tmp_path) for _ in range(2)]
  assert rows[0]["faults"] == rows[0]["crashes"] == 0
  assert [row["refused"] for row in rows] == [rows[0]["refused"]] * 2
  assert "tests.test_fuzz:SOUND | 50 |" in fuzz.table(rows)


def test_repairs_make_changed_files_whole(tmp_path):
  png = fuzz_seeds.pngs()[0].replace(b"IHDR\0\0\0\x18\0\0\0\x18", b"IHDR\0\0\0\x18\0\0\0\x08")
  (tmp_path / "x.png").write_bytes(png)
  with pytest.raises(ValueError, match="CRC"):
    READERS["image-png"].read(tmp_path / "x.png")
  (tmp_path / "x.png").write_bytes(fuzz_inputs.repair_png(png))
  READERS["image-png"].read(tmp_path / "x.png")
  (tmp_path / "x.png").unlink()
  tar = fuzz_seeds.tars()[0].replace(b"landslide/a.png", b"landslide/c.png", 1)
  path = tmp_path / "x.tar"
  path.write_bytes(tar)
  with pytest.raises(ValueError, match="damaged"):
    READERS["archive-tar"].read(path)
  path.write_bytes(fuzz_inputs.repair_tar(tar))
  READERS["archive-tar"].read(path)
  packed = fuzz_inputs.repacked(fuzz_inputs.repair_tar)(tar)
  path.unlink()
  (tmp_path / "x.tar.gz").write_bytes(packed)
  READERS["archive-tar-gz"].read(tmp_path / "x.tar.gz")
