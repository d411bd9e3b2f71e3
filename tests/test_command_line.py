"""Help, error messages and completion come before any large import."""

import dataclasses
import pathlib
import subprocess
import sys

import pytest
from absl import flags
from absl.testing import flagsaver

from lgag_jax import main
from lgag_jax.cli import command_line, completion
from lgag_jax.cli.modes import FIRST_STEPS, MODES
from lgag_jax.runtime import packaged

ROOT = pathlib.Path(__file__).parent.parent
# Runs the command line, then prints which of the slow modules it has imported.
PROGRAM = """
import runpy, sys
try:
  runpy.run_module("lgag_jax.main", run_name="__main__", alter_sys=True)
finally:
  print("LOADED", {"jax", "numpy", "rasterio", "tensorflow"} & set(sys.modules), file=sys.stderr)
"""


@pytest.mark.parametrize(
  ("arguments", "code", "words"),
  [
    ([], 0, "First steps"),
    (["--help"], 0, "--mode=NAME --help"),
    (["--mode=predict", "--helpshort"], 0, "--overlap"),
    (["--mode=predict", "--workdir=a", "--input=b", "--output=c", "--overlap=2"], 1, "--overlap=2.0"),
    (["--mode=predict", "--workdir=a", "--output=c"], 1, "needs --input"),
    (["--mode=tile", "--input=b", "--labels=c"], 1, "needs --output"),
    (["--mode=predict", "--workdir=a", "--input=b", "--output=c", "--threshold=high"], 1,
     "--threshold=high: must be numbers such as 0.6"),
    (["--mode=eval", "--workdir=a", "--labels=b"], 1, "needs --input"),
    (["--mode=datasets"], 0, "configs/gvlm.py"),
    (["--mode=report", "--workdir=a", "--overlap=0.5"], 1, "it is for predict, map, eval"),
    (["--config=configs/image_folder.py", "--config.train.epochs=0", "--workdir=a"], 1, "epochs=0"),
    (["--config=configs/image_folder.py", "--config.data.diretory=b", "--workdir=a"], 1,
     "no field 'diretory'. Did you mean 'directory'?"),
    (["--config=configs/image_folders.py", "--workdir=a"], 1, "image_folders.py does not exist"),
    (["--mode", "eval", "--config=configs/image_folder.py", "--workdir=a"], 1, "leave --config out"),
  ],
  ids=lambda value: value[0] if isinstance(value, list) and value else "",
)
def test_answers_come_before_anything_large_is_loaded(arguments, code, words):
  result = subprocess.run(
    [sys.executable, "-c", PROGRAM, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
  )
  assert result.returncode == code, result.stderr
  assert words in (result.stderr if code else result.stdout)
  assert "LOADED set()" in result.stderr
  assert "Traceback" not in result.stderr


@pytest.mark.parametrize(("words", "message"), [
  (["a.tif", "b.tif", "--output=c"], "no flag takes the file 'b.tif'.*--input='[*][.]tif'"),
  (["in/a.png", "in/b.png"], "no flag takes the file 'in/b.png'.*--input='in/[*][.]png'"),
  (["a b.JP2", "b.JP2", "c.JP2"], "no flag takes the file 'b.JP2'.*--input='[*][.]JP2'"),
  (["a.tif", "none.tif"], "'none.tif' is not a flag. Flags begin with --"),
])
def test_a_pattern_without_quotes_is_explained(tmp_path, monkeypatch, words, message):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "in").mkdir()
  for word in words:
    if not word.startswith(("--", "none")):
      (tmp_path / word).touch()
  arguments = ["lgag", "--mode=predict", "--workdir=a", "--input", *words]
  monkeypatch.setattr(sys, "argv", arguments)
  with flagsaver.flagsaver(), pytest.raises(SystemExit, match=message):
    main.main(command_line.parse_flags(arguments))


@pytest.mark.parametrize("name", MODES)
def test_the_help_of_a_mode_names_what_it_takes_and_no_more(name):
  text = command_line.help_text(name, "lgag")
  of_processes = {"distributed", "coordinator", "processes", "process"}
  every = of_processes.union(*(mode.takes() for mode in MODES.values())) - {"mode"}
  entries = {line.split()[0] for line in text.splitlines() if line.startswith("  --")}
  allowed = MODES[name].takes() - {"mode"} | (of_processes if MODES[name].processes else set())
  assert entries == {f"--{flag}" for flag in allowed}
  assert allowed <= every
  assert all(len(line) <= 100 for line in text.splitlines() if "  #" not in line)


@pytest.mark.parametrize(
  "example", [e for mode in MODES.values() if "workdir" in mode.required for e in mode.examples]
)
def test_examples_are_commands_that_are_understood(example, monkeypatch):
  arguments = ["lgag", *example.replace("'", "").split()[1:]]
  monkeypatch.setattr(sys, "argv", arguments)  # config_flags reads the fields of a config there.
  with flagsaver.flagsaver():
    assert command_line.parse_flags(arguments) == ["lgag"]
    assert all(dataclasses.is_dataclass(each) for each in command_line.mode_arguments())


def test_a_broken_line_is_the_same_command():
  for _, command in FIRST_STEPS:
    shown = command_line.help_text(None, "lgag")
    joined = " ".join(shown.replace("\\\n", " ").split())
    assert command.format(lgag="lgag") in joined


def test_own_files_come_before_packaged_ones(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  name = "configs/image_folder.py"
  assert packaged.resolve(name) == str(ROOT / name)
  assert packaged.resolve("data/synthetic_landslides") == str(ROOT / "data" / "synthetic_landslides")
  for other in ("configs/none.py", "configs/../Makefile", "mine/scene.py", "tests/conftest.py", ""):
    assert packaged.resolve(other) == other
  (tmp_path / "configs").mkdir()
  (tmp_path / name).touch()
  assert packaged.resolve(name) == name
  arguments = ["lgag", "--config=configs/scene.py:sol", "--config.data.gsd=1"]
  assert command_line._with_packaged_config(arguments) == [
    "lgag", f"--config={ROOT}/configs/scene.py:sol", "--config.data.gsd=1",
  ]


def test_packaged_configs_need_nothing_but_the_package():
  """A config that is copied elsewhere, or lies in an installed package, works alone."""
  for path in (ROOT / "configs").glob("*.py"):
    assert not {"from configs", "import configs", "from data", "import data"} & {
      " ".join(line.split()[:2]) for line in path.read_text().splitlines()
    }, path


@pytest.mark.parametrize(
  ("typed", "expected"),
  [
    (["--mode", "=", "p"], {"predict", "pseudo"}),  # bash splits words at "=".
    (["--mode=p"], {"--mode=predict", "--mode=pseudo"}),  # zsh does not.
    (["--mode", "="], set(MODES)),
    (["--config.optim.w"], {"--config.optim.weight_decay="}),
    (["--over"], {"--overlap="}),
    (["--config", "=", "configs/sc"], {"configs/scene.py"}),
    (["--workdir", "=", "ru"], set()),  # The shell completes file names itself.
  ],
)
def test_bash_completes(typed, expected):
  words = " ".join(f"'{word}'" for word in ["lgag", *typed])
  command = (
    f"{completion.script()}\nCOMP_WORDS=({words}); COMP_CWORD={len(typed)}; _lgag; "
    'printf "%s\\n" "${COMPREPLY[@]}"'
  )
  result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
  assert set(result.stdout.split()) == expected
  assert "workdir" in flags.FLAGS
