"""What a user types and is told at once: flags, help and mistakes, before TensorFlow is loaded."""

import dataclasses
import importlib
import pathlib
import re
import sys
import textwrap
from typing import Any

from absl import flags
from ml_collections import config_flags

from lgag_jax import __version__, methods
from lgag_jax import config as configs
from lgag_jax.cli.modes import DEFAULT, FIRST_STEPS, MODES, PROGRAM
from lgag_jax.options import fields
from lgag_jax.runtime import packaged

_FLAGS = flags.FLAGS
_PROCESSES = ("distributed", "coordinator", "processes", "process")
_HELP = {f"{dash}{word}" for dash in ("-", "--") for word in ("h", "help", "helpshort")}
_WIDTH = 100
_CLOSE_FIELD = re.compile(r'Did you mean "(\w+)" instead of "(\w+)"')

config_flags.DEFINE_config_file(
  "config", None, "A config file, your own or one that comes with lgag_jax (configs/image_folder.py); "
  "--config.optim.learning_rate=0.05 changes a field.", lock_config=True,
)
flags.DEFINE_string("workdir", None, "The folder where a run keeps everything.")
flags.DEFINE_enum("mode", DEFAULT, tuple(MODES), "What to do.")
flags.DEFINE_string("input", None, "An image or scene, a folder of them, or a glob in quotes.")
flags.DEFINE_string("output", None, "The folder to write to.")
flags.DEFINE_string(
  "method_file", None, "A Python file of yours that defines a method (docs/research.md). It is run, "
  "and its digest is recorded: every mode on such a workdir needs the same file.",
)
flags.DEFINE_enum(
  "distributed", "auto", ("auto", "on", "off"),
  "Work as one of several processes: auto where srun, mpirun, Kubernetes or a TPU pod started them.",
)
flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, with the next two.")
flags.DEFINE_integer("processes", None, "How many processes there are.")
flags.DEFINE_integer("process", None, "Which of them this one is, from 0.")
fields.define({name: mode.fields for name, mode in MODES.items()})
_OURS = {"config", "workdir", *_PROCESSES}.union(*(mode.takes() for mode in MODES.values()))


def parse_flags(argv: list[str]) -> list[str]:
  """Parses the command line; help is printed, a misspelt flag or field is one line.

  Only what trains, and the doctor, execute a config file.
  """
  asked = _given(argv, "mode")
  if len(argv) == 1 or _HELP.intersection(argv):
    print(help_text(asked, _program(argv[0])))
    sys.exit(0)
  if "--version" in argv:
    print(f"lgag_jax {__version__}")
    sys.exit(0)
  if asked in MODES and "config" not in MODES[asked].needs and _given(argv, "config", inner=True):
    sys.exit(f"Error: --mode={asked} reads the workdir's config.json: leave --config out.")
  try:
    if path := _given(argv, "method_file"):  # Before the config, which may name the method.
      registry = importlib.import_module("lgag_jax.method.registry")  # JAX takes seconds.
      registry.load_file(path)
    return _FLAGS(_with_shipped(argv))
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
    sys.exit(f"Error: {_shortened(str(error))}")


def told() -> tuple[Any, ...]:
  """Returns what the mode is told: its config, or its dataclasses; raises ValueError naming a flag."""
  name = _FLAGS.mode
  mode = MODES[name]
  for flag in sorted(_OURS - mode.takes() - (set(_PROCESSES) if mode.processes else set())):
    if _FLAGS[flag].present:
      users = ", ".join(other for other in MODES if flag in MODES[other].takes()) or "several processes"
      raise ValueError(f"--{flag} means nothing to --mode={name}: it is for {users}.")
  for flag in mode.needs:
    if not _FLAGS[flag].present or not _FLAGS[flag].value:
      raise ValueError(_missing(name, flag))
  if "config" in mode.needs:
    return (_config(),)
  if name == "eval" and not _FLAGS.input:
    if _FLAGS.labels or _FLAGS.output:
      raise ValueError("--mode=eval with --labels or --output needs --input, the scenes to judge.")
    return ()
  if name == "eval" and not _FLAGS.output:
    raise ValueError("--mode=eval of --input needs --output, the folder of the maps.")
  return tuple(_read(cls) for cls in mode.fields)


def _config() -> configs.Config:
  """Returns the config, with the digest of the file that defines its method."""
  config = configs.from_mapping(_FLAGS.config)
  method, digest = config.model.method, ""
  if method not in methods.SETTINGS:
    raise ValueError(methods.unknown(method))
  if _FLAGS.method_file:
    digest = importlib.import_module("lgag_jax.method.registry").digest_of(method)
  return dataclasses.replace(config, model=dataclasses.replace(config.model, method_digest=digest))


def shipped_config() -> str:
  """Returns the config file in use where it is one that came with the package, "" otherwise."""
  path = (_FLAGS["config"].config_filename or "").partition(":")[0] if _FLAGS["config"].present else ""
  return path if path.startswith(f"{packaged.folder('configs')}/") else ""


def help_text(name: str | None, program: str) -> str:
  """Returns the help of a mode; without one, of them all."""
  if name not in MODES:
    steps = "\n\n".join(f"  # {what}\n  {_example(command, program)}" for what, command in FIRST_STEPS)
    modes = "\n".join(_entry(f"{other}", MODES[other].does) for other in MODES)
    return (
      f"lgag_jax {__version__}: landslide maps learned from image-level yes/no labels.\n\n"
      f"First steps:\n\n{steps}\n\nModes, --mode=NAME, by default {DEFAULT}:\n\n{modes}\n\n"
      f"{program} --mode=NAME --help shows what a mode needs and takes."
    )
  mode = MODES[name]
  title = textwrap.fill(f"--mode={name} {mode.does}.", _WIDTH)
  parts = [title, *(f"  {_example(e, program)}" for e in mode.examples)]
  if mode.notes:
    parts.append(textwrap.fill(mode.notes, _WIDTH))
  own = {
    field.name: _sentence(fields.described(field, default=field.name not in mode.needs))
    for cls in mode.fields for field in dataclasses.fields(cls) if field.metadata
  }
  for title, names in (
    ("Needed", mode.needs), ("Taken", (*mode.may, *(name for name in own if name not in mode.needs))),
    ("As one of several processes", _PROCESSES if mode.processes else ()),
  ):
    entries = [_entry(f"--{name}", own.get(name) or _FLAGS[name].help) for name in names]
    parts += [f"{title}:\n\n" + "\n".join(entries)] if entries else []
  if "config" in mode.needs:
    groups = [_entry(group, " ".join(names)) for group, names in configs.config_dict().items()]
    parts.append("Fields of the config, --config.GROUP.FIELD=VALUE:\n\n" + "\n".join(groups))
  return "\n\n".join(parts)


def _read(cls: type) -> Any:
  given = {f.name: _FLAGS[f.name].value or "" for f in dataclasses.fields(cls) if not f.metadata}
  return fields.read(cls, **given)


def _missing(mode: str, flag: str) -> str:
  if flag == "config":
    return "--config is missing: for your own images --config=configs/image_folder.py."
  if flag == "workdir":
    return f"--mode={mode} needs --workdir=<folder>: a run keeps everything there."
  return f"--mode={mode} needs --{flag}; see --mode={mode} --help."


def _given(argv: list[str], name: str, *, inner: bool = False) -> str | None:
  """Returns a flag's last value as typed, None without; with `inner` that of any of its fields too."""
  found = None
  for word, after in zip(argv[1:], [*argv[2:], ""], strict=False):
    flag, equals, value = word.lstrip("-").partition("=")
    if word.startswith("-") and (flag == name or (inner and flag.startswith(f"{name}."))):
      found = value if equals else after
  return found


def _with_shipped(argv: list[str]) -> list[str]:
  """Replaces a --config that is not there by the one of this name that came with the package."""
  path = _given(argv, "config")
  if not path:
    return argv
  file, colon, method = path.partition(":")
  found = f"{packaged.resolve(file)}{colon}{method}"
  if not pathlib.Path(packaged.resolve(file)).exists():
    raise ValueError(
      f"--config={file}: there is no such file, here or with lgag_jax. For your own images "
      "--config=configs/image_folder.py."
    )
  return [found if word == path else word.replace(f"config={path}", f"config={found}") for word in argv]


def _program(path: str) -> str:
  return "lgag" if pathlib.Path(path).stem == "lgag" else "python -m lgag_jax.main"


def _example(command: str, program: str) -> str:
  """Breaks a command at its flags, as a shell reads it."""
  lines = [""]
  for word in command.replace(PROGRAM, program).split(" --"):
    word = f"--{word}" if lines[0] else word
    if len(lines[-1]) + len(word) > _WIDTH - 6 and lines[-1]:
      lines[-1] += " \\"
      lines.append(f"    {word}")
    else:
      lines[-1] = f"{lines[-1]} {word}".lstrip() if len(lines) == 1 else f"{lines[-1]} {word}"
  return "\n".join(lines)


def _sentence(text: str) -> str:
  return text[0].upper() + text[1:]


def _entry(name: str, text: str) -> str:
  return textwrap.fill(text, _WIDTH, initial_indent=f"  {name:<22} ", subsequent_indent=" " * 25)


def _shortened(text: str) -> str:
  """Keeps what went wrong: of a config file's traceback the last line, of long lists the hint."""
  lines = [line.strip() for line in text.strip("'\"\n").splitlines() if line.strip()]
  if any(line.startswith("Traceback") for line in lines):
    return lines[-1]
  if found := _CLOSE_FIELD.search(text):  # The rest of this one is quoted twice over.
    return f"The config has no field {found[2]!r}. Did you mean {found[1]!r}?"
  hint = text[text.rindex("Did you mean") :] if "Did you mean" in text else ""
  return text if len(text) < 300 else f"{text[:200]} ... {hint}"
