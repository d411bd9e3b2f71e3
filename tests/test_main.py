"""The command line as a user meets it: in a process of its own."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent


def call(*arguments):
  return subprocess.run(
    [sys.executable, "-m", "lgag_jax.main", *arguments], cwd=ROOT, text=True, capture_output=True,
    env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}, timeout=300, check=False,
  )


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    (["--config=configs/image_folder.py", "--workdir={tmp}"], "data.directory is not set"),
    (["--config=configs/image_folder.py", "--workdir={tmp}", "--config.optim.learning_rat=1"],
     "learning_rate"),
    (["--config=configs/image_folder.py", "--workdir={tmp}", "--config.train.epochs=many"], "epochs"),
    (["--config=configs/image_folder.py:solo", "--workdir={tmp}"], "'solo' is unknown"),
    (["--mode=eval", "--workdir={tmp}/none"], "config.json is missing"),
    (["--mode=eval", "--workdir=README.md"], "README.md"),
    (["--mode=predict", "--workdir={tmp}"], "needs --input"),
    (["--mode=eval", "--workdir={tmp}", "--config=configs/image_folder.py"], "leave --config out"),
    (["--workdir={tmp}"], "--config is missing"),
  ],
  ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes_are_answered_in_words(tmp_path, arguments, words):
  result = call(*(a.format(tmp=tmp_path) for a in arguments))
  assert result.returncode != 0
  assert words in result.stderr + result.stdout
  assert "Traceback" not in result.stderr


def test_only_training_executes_a_config_file(tmp_path):
  marker = tmp_path / "executed"
  path = tmp_path / "config.py"
  path.write_text(f"open({str(marker)!r}, 'w')\ndef get_config():\n  return None\n")
  for mode in ("eval", "predict", "report"):
    result = call(f"--mode={mode}", f"--workdir={tmp_path}", f"--config={path}")
    assert result.returncode != 0
    assert not marker.exists()
  assert "Traceback" not in call(f"--config={path}", f"--workdir={tmp_path}/run").stderr
  assert marker.exists()


def test_training_from_the_command_line(tmp_path, image_folder):
  result = call(
    "--config=configs/image_folder.py:sol", f"--workdir={tmp_path}/run",
    f"--config.data.directory={image_folder}", "--config.data.image_size=64",
    "--config.train.epochs=1", "--config.train.batch_size=8", "--config.localize.batch_size=8",
    "--config.model.head_width=8", "--config.train.min_steps=0",
  )
  assert result.returncode == 0, result.stderr
  assert (tmp_path / "run" / "report.html").exists()
  assert "Report:" in result.stdout
  assert "Traceback" not in result.stderr
