"""A set that a TFDS builder made from an archive is not taken for one of a later archive."""

import logging
import os
import types
import zipfile

import pytest

from lgag_jax.config import DataConfig
from lgag_jax.inputs import tfds_source
from lgag_jax.runtime import archive_records


def set_time(path, seconds):
  os.utime(path, (seconds, seconds))


def pack(path, text):
  with zipfile.ZipFile(path, "w") as file:
    file.writestr("set/a.txt", text)
  set_time(path, 1_700_000_000 + len(text))  # Long ago, as wget and cp -p keep times.


def prepare(root, caplog):
  """Prepares a set from root/set.zip unless it exists; returns the log."""
  data = root / "data" / "toy" / "1.0.0"
  builder = types.SimpleNamespace(
    data_dir=str(data), data_dir_root=str(root / "data"), name="toy",
    download_and_prepare=lambda **_: data.mkdir(parents=True),
  )
  caplog.clear()
  with caplog.at_level(logging.WARNING):
    tfds_source._prepare(builder, DataConfig(source="tfds", original=str(root / "set.zip")))
  return caplog.text


@pytest.mark.parametrize("text", ["first release", "another text", "x"])
def test_another_archive_than_a_set_was_built_from_is_told(tmp_path, caplog, text):
  pack(tmp_path / "set.zip", "first release")
  assert prepare(tmp_path, caplog) == prepare(tmp_path, caplog) == ""
  pack(tmp_path / "set.zip", text)
  set_time(tmp_path / "set.zip", 1_600_000_000)
  expected = text != "first release"  # The time alone changes nothing.
  for _ in range(2):
    log = prepare(tmp_path, caplog)
    assert ("1.0.0 was built from another archive than" in log) == expected


def test_a_set_of_an_earlier_release_and_one_without_its_archive(tmp_path, caplog):
  pack(tmp_path / "set.zip", "first")
  prepare(tmp_path, caplog)
  (tmp_path / "set.zip").rename(tmp_path / "moved.zip")
  assert prepare(tmp_path, caplog) == ""
  (tmp_path / "data/toy/.1.0.0.json").unlink()
  pack(tmp_path / "set.zip", "second")
  assert prepare(tmp_path, caplog) == "" and not archive_records.has_record(tmp_path / "data/toy/1.0.0")
