"""The command line in processes of its own, as a user runs it."""

import pytest

from lgag_jax import config as configs
from tests.commands import call, flags_of


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    (["--config=configs/image_folder.py", "--workdir={tmp}"], "data.directory is not set"),
    (["--config=configs/image_folder.py", "--workdir={tmp}", "--config.optim.learning_rat=1"],
     "learning_rate"),
    (["--config=configs/image_folder.py", "--workdir={tmp}", "--config.mesh.data=3"],
     "The config has no field 'mesh'"),
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
def test_mistakes_give_a_short_message(tmp_path, arguments, words):
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


def test_training_from_the_command_line(tmp_path, small_config):
  """Uses the config of test_train.py and the tests' settings, to reuse the compiled programs."""
  flags = flags_of(configs.from_mapping(small_config))
  result = call(
    *flags, f"--workdir={tmp_path}/run", JAX_NUM_CPU_DEVICES="4", JAX_DISABLE_MOST_OPTIMIZATIONS="1"
  )
  assert result.returncode == 0, result.stderr
  assert configs.load(tmp_path / "run" / "config.json") == configs.from_mapping(small_config)
  assert (tmp_path / "run" / "report.html").exists()
  assert "Report:" in result.stdout
  assert "Traceback" not in result.stderr
