"""Small files of a workdir: odd numbers are named by file, key and value; a changed bit is noticed."""

import dataclasses
import errno
import json
import os
import re

import numpy as np
import pytest

from lgag_jax.config import Config
from lgag_jax.evaluation import thresholds_file
from lgag_jax.geo import scale
from lgag_jax.inference.localize import map_names
from lgag_jax.inputs import normalisation, trunk_outputs
from lgag_jax.runtime import checksums, files, folders, sealed_json
from lgag_jax.settings.maps import RULES
from lgag_jax.training import examples_record, model_directory

CONFIG = Config()
TRAIN = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, normalise="train"))
LEVELS = {name: {rule: [0.5] for rule in RULES} for name in map_names(CONFIG)}
NAME = next(iter(LEVELS))
ODD = ["1e400", "-1e400", "NaN", "-1", "5", "true", "null", '"0.5"', "[0.5]", "{}", "1" + "0" * 5000]


def write_all(folder):
  """Writes the small files as a training does; returns the contents by name."""
  scale.save(scale.Scale(64, 2.5), folder)
  contents = {
    "thresholds.json": {"step": 7, "maps": LEVELS},
    "normalisation.json": {"bands": 3, "images": 1, "pixels": 9, "mean": [1.5, 2.0, 3.0],
                           "std": [1.0, 0.5, 2.0]},
    "examples.json": {"train": {"examples": 3, "digest": "ab"}},
  }
  for name, content in contents.items():
    sealed_json.write(folder / name, content)
  return {**contents, "scale.json": {"side": 64, "gsd": 2.5}}


def read(name, folder):
  """Reads a small file as the modes do."""
  if name == "scale.json":
    return scale.load(folder, CONFIG)
  if name == "thresholds.json":
    return thresholds_file.load_thresholds(folder, CONFIG, step=7)
  if name == "normalisation.json":
    return normalisation.resolve(TRAIN, folder).data.mean
  return examples_record.check({}, folder, CONFIG)


NAMES = ("scale.json", "thresholds.json", "normalisation.json", "examples.json")


@pytest.mark.parametrize("name", NAMES)
def test_whole_files_and_those_of_earlier_releases_are_read(tmp_path, name):
  content = write_all(tmp_path)[name]
  expected = read(name, tmp_path)
  files.write_json(tmp_path / name, content)  # Without a digest.
  assert read(name, tmp_path) == expected


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_bit_is_noticed(tmp_path, name):
  content = write_all(tmp_path)[name]
  path = tmp_path / name
  whole = path.read_bytes()
  noticed = 0
  for place in range(len(whole)):
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    message = error_of(name, tmp_path)
    noticed += bool(message)
    if message:
      assert name in message
    else:  # A space, or a letter of the key of the digest: the contents are the same.
      found = json.loads(path.read_text())
      assert {key: found.get(key) for key in content} == json.loads(json.dumps(content))
  assert noticed > len(whole) / 2
  path.write_bytes(re.sub(rb"\d", b"9", whole, count=1))
  words = "damaged: its contents do not have its sha256.*remove its line"
  assert re.search(words, error_of(name, tmp_path))


def error_of(name, folder):
  """Returns the words with which a file is refused, "" if it is read."""
  try:
    read(name, folder)
  except ValueError as error:
    return str(error)
  return ""


def replaced(content, key, value):
  """Returns JSON in which the value of a key is that text."""
  return json.dumps(content | {key: "HERE"}).replace('"HERE"', value)


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize(("name", "key"), [
  ("scale.json", "side"), ("scale.json", "gsd"), ("thresholds.json", "argmax"),
  ("thresholds.json", "step"), ("normalisation.json", "mean"), ("normalisation.json", "std"),
])
def test_odd_numbers_are_refused_by_file_key_and_value(tmp_path, name, key, value):
  content = write_all(tmp_path)[name]
  if key == "argmax":
    inner = replaced(LEVELS[NAME], key, f"[{value}]")
    text = json.dumps(content).replace(json.dumps(LEVELS[NAME]), inner, 1)
  else:
    text = replaced(content, key, f"[{value}, 1, 1]" if key in ("mean", "std") else value)
  (tmp_path / name).write_text(text)
  good = {"side": ("5",), "gsd": ("5", "null"), "mean": ("-1", "5"), "std": ("5",)}.get(key, ())
  if value in good:
    read(name, tmp_path)
    return
  with pytest.raises(ValueError, match=name) as raised:
    read(name, tmp_path)
  message = str(raised.value)
  shown = repr(json.loads(value)) if len(value) < 99 else "JSON"
  assert len(message) < 600 and ((key in message and shown in message) or "not valid JSON" in message
                                 or "is of step 5, not 7" in message or "its step is" in message)


def make_cache(folder, examples=5, **index):
  folder.mkdir(exist_ok=True)
  np.save(folder / "tap0.npy", np.zeros((examples, 2, 2, 3), np.float16))
  index = {"arrays": ["tap0"], "parts": 1, "run": 4, "bad": [], **index}
  files.write_json(folder / "index.json", index)
  return lambda: trunk_outputs.FeatureCache(folder, None, 64, 3, 5)


@pytest.mark.parametrize("index", [
  {"run": 0}, {"parts": 0}, {"run": True}, {"parts": -1}, {"run": 1.5}, {"parts": 10**30}, {"bad": 3},
  {"arrays": ["../tap0"]}, {"arrays": 3}, {"arrays": []},
])
def test_an_odd_index_of_trunk_outputs_is_refused(tmp_path, index):
  assert make_cache(tmp_path / "cache")().fields[0] == ("tap0", "float16", (2, 2, 3))
  with pytest.raises(ValueError, match=r"cache is damaged .*remove it"):
    make_cache(tmp_path / "cache", **index)()


@pytest.mark.parametrize("kind", ["archive", "rows", "type", "dimensions", "pickle", "short"])
def test_odd_arrays_of_trunk_outputs_are_refused(tmp_path, kind):
  cache = make_cache(tmp_path / "cache")
  path, array = tmp_path / "cache" / "tap0.npy", np.zeros((5, 2, 2, 3), np.float16)
  with path.open("wb") as file:
    if kind == "archive":
      np.savez(file, a=array)
    elif kind == "short":
      np.save(file, array)
      file.truncate(150)
    else:
      np.save(file, {
        "rows": array[:4], "type": array.astype(np.float32), "dimensions": array[0],
        "pickle": np.array([{}], object),
      }[kind])
  with pytest.raises(ValueError, match=r"cache is damaged .*remove it"):
    cache()


@pytest.mark.parametrize("name", ["config.json", "scale.json", "thresholds.json", "model.safetensors"])
def test_a_model_directory_notices_a_changed_bit(tmp_path, name):
  for file in ("config.json", "scale.json", "thresholds.json", "model.safetensors"):
    (tmp_path / file).write_text("0.5")
  checksums.write_checksums(tmp_path)
  (tmp_path / "README.md").write_text("of its readers")
  (tmp_path / name).write_text("0.7")
  with pytest.raises(ValueError, match=rf"is damaged: its {name} is damaged.*remove SHA256SUMS"):
    model_directory.read(tmp_path, CONFIG, None)


@pytest.mark.parametrize("size", [0, 1, 5])
def test_a_full_disk_leaves_no_folder_and_names_it(tmp_path, size):
  def fill():
    with folders.atomic_folder(tmp_path / "tiles") as folder:
      for i in range(size):
        (folder / str(i)).touch()
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "x.tif"))

  with pytest.raises(OSError, match=r"No space left on device, nothing was written.*tiles'"):
    fill()
  assert not list(tmp_path.iterdir())
