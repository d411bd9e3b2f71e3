"""A training whose data change between two starts is refused; changed validation images are told."""

import logging

import numpy as np
import pytest
from PIL import Image

from lgag_jax import config as configs
from lgag_jax.inputs.sources import make_source
from lgag_jax.training import examples_record, loop
from tests.conftest import make_small_config
from tests.untrained import make_workdir

YES, NO = "landslide", "non-landslide"


def write(path):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(path)


def sources(config):
  return {split: make_source(config.data, split) for split in ("train", "validation")}


@pytest.fixture
def config(tmp_path):
  for folder in (YES, NO):
    for i in range(10):
      write(tmp_path / "set" / folder / f"m{i}.png")
  return configs.from_mapping(make_small_config(tmp_path / "set"))


def claim(config, workdir, *, started):
  loop._claim(config, sources(config), workdir, started=started)


def add_first(root):
  write(root / YES / "a0.png")


def remove(root):
  (root / NO / "m3.png").unlink()


def relabel(root):
  (root / YES / "m2.png").rename(root / NO / "m2b.png")


def rename(root):
  (root / YES / "m2.png").rename(root / YES / "m2b.png")


@pytest.mark.parametrize(("change", "words"), [
  (add_first, "had 16 examples, 8 of them positive; now it has 17, 9 of them"),
  (remove, "had 16 examples, 8 of them positive; now it has 15, 8 of them"),
  (relabel, "had 16 examples, 8 of them positive; now it has 16, 7 of them"),
  (rename, "still has 16 examples, but other names or labels"),
])
def test_training_examples_that_changed_are_refused(config, tmp_path, change, words):
  workdir = tmp_path / "wd"
  claim(config, workdir, started=False)
  claim(config, workdir, started=True)  # The same data resume.
  change(tmp_path / "set")
  with pytest.raises(ValueError, match=rf"wd was trained: the train split {words}.*new --workdir"):
    claim(config, workdir, started=True)
  claim(config, workdir, started=False)  # Nothing was trained yet, so the record is written anew.
  claim(config, workdir, started=True)


def test_an_older_workdir_without_a_record_is_not_checked(config, tmp_path):
  claim(config, tmp_path / "wd", started=True)
  add_first(tmp_path / "set")
  claim(config, tmp_path / "wd", started=True)
  assert not (tmp_path / "wd" / examples_record.FILE).exists()


def test_validation_examples_that_changed_are_told(config, tmp_path, caplog):
  root = tmp_path / "set"
  (root / "manifest.csv").write_text("image,split\n" + "".join(
    f"{k}/{k[:3]}{i}.png,{'validation' if i > 7 else 'train'}\n" for k in (YES, NO) for i in range(10)
  ))
  for folder in (YES, NO):
    for path in (root / folder).iterdir():
      path.rename(path.with_name(folder[:3] + path.name[1:]))
  claim(config, tmp_path / "wd", started=False)
  (root / YES / "lan9.png").unlink()
  with caplog.at_level(logging.WARNING):
    claim(config, tmp_path / "wd", started=True)
  assert "the validation split had 4 examples, 2 of them positive; now it has 3, 1 of" in caplog.text


def test_a_damaged_record_is_named(config, tmp_path):
  claim(config, tmp_path / "wd", started=False)
  (tmp_path / "wd" / examples_record.FILE).write_text("[]")
  with pytest.raises(ValueError, match=r"examples\.json is damaged"):
    claim(config, tmp_path / "wd", started=True)


def test_evaluation_refuses_changed_training_images(config, tmp_path):
  workdir = make_workdir(tmp_path / "wd", config)
  examples_record.write(sources(config), workdir)
  add_first(tmp_path / "set")
  with pytest.raises(ValueError, match=r"now it has 17, .*new --workdir"):
    loop.evaluate_workdir(workdir)


@pytest.mark.parametrize(("name", "content"), [
  ("report.html", "precious"), ("metrics.jsonl", "{}"), ("eval/validation.json", "{}"),
  ("config.json", '{"mine": 1}'), ("config.json", "[]"),
  ("scenes/a_tif.json", '{"stem": "a_tif", "files": ["mask/a_tif.tif"]}'),
])
def test_a_training_replaces_no_file_of_another_origin(config, tmp_path, name, content):
  workdir = tmp_path / "wd"
  (workdir / name).parent.mkdir(parents=True)
  (workdir / name).write_text(content)
  with pytest.raises(ValueError, match=rf"wd/{name[:6]}.* is not of a training.*--workdir"):
    claim(config, workdir, started=False)
  assert [p.read_text() for p in workdir.rglob("*.*")] == [content]
