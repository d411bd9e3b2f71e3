"""Paths with ~ and environment variables lead where a shell would lead, or are refused by name."""

import dataclasses
import os
import pathlib

import pytest
from absl.testing import flagsaver

import lgag_jax
from lgag_jax.cli import command_line
from lgag_jax.runtime import user_paths


@pytest.fixture
def home(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path / "home"))
  monkeypatch.setenv("DATA", str(tmp_path / "data"))
  monkeypatch.delenv("NOWHERE", raising=False)
  monkeypatch.chdir(tmp_path)
  return tmp_path


@pytest.mark.parametrize(("typed", "path"), [
  ("~", "{0}/home"), ("~/tiles", "{0}/home/tiles"), ("$HOME/a b", "{0}/home/a b"),
  ("${DATA}/*.tif", "{0}/data/*.tif"), ("$DATA/${DATA}", "{0}/data/{0}/data"), ("a/~/b", "a/~/b"),
  ("cost$.tif", "cost$.tif"), ("flight/*.tif", "flight/*.tif"), ("", ""),
  ("https://x.org/~me/$NOWHERE", "https://x.org/~me/$NOWHERE"),
])
def test_paths_are_expanded(home, typed, path):
  assert user_paths.expanded(typed, "--input") == path.format(home)


@pytest.mark.parametrize(("typed", "words"), [
  ("$NOWHERE/x", "variable NOWHERE"), ("a_${NOWHERE}.tif", "variable NOWHERE"),
  ("~/$NOWHERE/*.tif", "variable NOWHERE"), ("~nobody_of_this_name/x", "~nobody_of_this_name"),
])
def test_what_is_unknown_is_named_unless_the_file_exists(home, typed, words):
  with pytest.raises(ValueError, match=f"--input=.*{words}"):
    user_paths.expanded(typed, "--input")
  if "*" not in typed:
    pathlib.Path(typed).parent.mkdir(exist_ok=True)
    pathlib.Path(typed).touch()
    assert user_paths.expanded(typed, "--input") == typed


def parse(monkeypatch, *words):
  arguments = ["lgag", *words]
  monkeypatch.setattr("sys.argv", arguments)
  command_line.parse_flags(arguments)
  return command_line.mode_arguments()


@pytest.mark.parametrize("form", ["=", " "])
def test_every_path_of_the_command_line_is_expanded(home, monkeypatch, form):
  words = [f"--input{form}~/*.tif", f"--output{form}$HOME/tiles", f"--labels{form}${{DATA}}/l.gpkg"]
  with flagsaver.flagsaver():
    words = [part for word in words for part in word.split(" ")]
    (settings,) = parse(monkeypatch, "--mode=tile", *words)
  assert settings.input == f"{home}/home/*.tif"
  assert settings.output == f"{home}/home/tiles"
  assert settings.labels == f"{home}/data/l.gpkg"
  words = ["--workdir=w", "--input=a.tif", "--output=o", *f"--dem{form}~/dem.tif".split(" ")]
  with flagsaver.flagsaver():
    (options,) = parse(monkeypatch, "--mode=predict", *words)
  assert options.dem == f"{home}/home/dem.tif"
  fields = {
    "data.directory": "~/set", "data.manifest": "$DATA/m.csv", "data.pseudo_masks": "${DATA}/p",
    "data.feature_cache_directory": "~", "model.weights": "~/w.npz", "data.builder": "$DATA/b",
  }
  with flagsaver.flagsaver():
    (config,) = parse(
      monkeypatch, "--config=configs/image_folder.py", "--workdir=~/run",
      *(f"--config.{name}={value}" for name, value in fields.items()),
    )
    assert command_line.flags.FLAGS.workdir == f"{home}/home/run"
  data = dataclasses.asdict(config.data)
  expected = {"directory": "home/set", "manifest": "data/m.csv", "pseudo_masks": "data/p",
              "feature_cache_directory": "home", "builder": "data/b"}
  assert {name: os.path.relpath(data[name], home) for name in expected} == expected
  assert config.model.weights == f"{home}/home/w.npz"


@pytest.mark.parametrize(("words", "name"), [
  (("--mode=tile", "--input=$NOWHERE/a", "--labels=b", "--output=c"), "--input"),
  (("--mode=report", "--workdir=${NOWHERE}"), "--workdir"),
  (("--config=$NOWHERE/c.py", "--workdir=a"), "--config"),
])
def test_an_unset_variable_of_a_flag_ends_the_command(home, monkeypatch, words, name):
  with flagsaver.flagsaver(), pytest.raises(SystemExit, match=rf"Error: {name}=.*NOWHERE is not set"):
    parse(monkeypatch, *words)


def test_the_interface_of_python_expands_paths(home):
  with pytest.raises(FileNotFoundError, match=f"{home}/home/run"):
    lgag_jax.load("~/run")
  with pytest.raises(ValueError, match=r"workdir=.*NOWHERE is not set"):
    lgag_jax.load("$NOWHERE/run")
