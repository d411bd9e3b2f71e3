"""The command line: defines the flags, prints help and checks what the user typed.

Imports neither TensorFlow nor, without --method_file, JAX: help and error messages come at once.
"""

import dataclasses
import importlib
import pathlib
import re
import sys
import textwrap
from collections.abc import Sequence
from typing import Any, cast

from absl import flags
from ml_collections import config_flags

from lgag_jax import __version__, methods
from lgag_jax import config as configs
from lgag_jax.cli.modes import DEFAULT, FIRST_STEPS, MODES, PROGRAM
from lgag_jax.options import fields
from lgag_jax.runtime import packaged, user_paths

_FLAGS = flags.FLAGS
_PROCESS_FLAGS = ("distributed", "coordinator", "processes", "process")
_PATH_FLAGS = (
  "config", "workdir", "input", "output", "labels", "negative_labels", "merge", "review",
  "method_file", "dem", "area", "before", "clouds",
)
_PATH_FIELDS = (  # Of the config's group "data".
  "directory", "builder", "original", "manifest", "pseudo_masks", "feature_cache_directory", "before",
)
_HELP_WORDS = {f"{dash}{word}" for dash in ("-", "--") for word in ("h", "help", "helpshort")}
_WIDTH = 100
_UNKNOWN_FIELD = re.compile(r'Did you mean "(\w+)" instead of "(\w+)"')

config_flags.DEFINE_config_file(
  "config", None, "A config file: your own or one of lgag_jax (configs/image_folder.py). "
  "--config.optim.learning_rate=0.05 changes a field.", lock_config=True,
)
flags.DEFINE_string("workdir", None, "The folder that holds all files of a run.")
flags.DEFINE_enum("mode", DEFAULT, tuple(MODES), "What to do.")
flags.DEFINE_string("input", None, "An image or scene, a folder of them, or a glob in quotes.")
flags.DEFINE_string("output", None, "The folder to write to.")
flags.DEFINE_string(
  "method_file", None, "A Python file of yours that defines a method (docs/research.md). It is run, "
  "and its digest is recorded: every mode on such a workdir needs the same file.",
)
flags.DEFINE_enum(
  "distributed", "auto", ("auto", "on", "off"),
  "Whether to run as one of several processes. auto: yes if srun, mpirun, Kubernetes or a TPU pod "
  "started them.",
)
flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0. Needs --processes and --process.")
flags.DEFINE_integer("processes", None, "The number of processes.")
flags.DEFINE_integer("process", None, "The number of this process, from 0.")
fields.define({name: mode.fields for name, mode in MODES.items()})
_KNOWN_FLAGS = {"config", "workdir", *_PROCESS_FLAGS}.union(*(mode.takes() for mode in MODES.values()))


def parse_flags(argv: list[str]) -> list[str]:
  """Parses the command line; prints help, or one line for a misspelt flag or field, and exits.

  Only the modes that train, and the doctor, execute a config file.
  """
  mode = _typed_value(argv, "mode")
  if len(argv) == 1 or _HELP_WORDS.intersection(argv):
    is_command = pathlib.Path(argv[0]).stem == "lgag"
    print(help_text(mode, "lgag" if is_command else "python -m lgag_jax.main"))
    sys.exit(0)
  if "--version" in argv:
    print(f"lgag_jax {__version__}")
    sys.exit(0)
  takes_config = mode not in MODES or "config" in MODES[mode].required
  if not takes_config and _typed_value(argv, "config", inner=True):
    sys.exit(f"Error: --mode={mode} reads the workdir's config.json: leave --config out.")
  try:
    argv = _with_expanded_paths(argv)
    if path := _typed_value(argv, "method_file"):  # First, since the config may name its method.
      importlib.import_module("lgag_jax.method.registry").load_file(path)  # JAX takes seconds.
    return _FLAGS(_with_packaged_config(argv))
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
    sys.exit(f"Error: {_short_message(str(error))}")


def mode_arguments() -> tuple[Any, ...]:
  """Returns the mode's config, or its dataclasses of flags; raises ValueError naming a wrong flag."""
  mode = MODES[name := _FLAGS.mode]
  for flag in sorted(_KNOWN_FLAGS - mode.takes() - (set(_PROCESS_FLAGS) if mode.processes else set())):
    if _FLAGS[flag].present:
      users = ", ".join(other for other in MODES if flag in MODES[other].takes()) or "several processes"
      raise ValueError(f"--mode={name} does not use --{flag}: it is for {users}.")
  for flag in mode.required:
    if not _FLAGS[flag].present or not _FLAGS[flag].value:
      raise ValueError(_missing(name, flag))
  if "config" in mode.required:
    return (_config(),)
  if name == "eval" and not _FLAGS.input:
    if _FLAGS.labels or _FLAGS.output:
      raise ValueError("--mode=eval with --labels or --output needs --input, the scenes to evaluate.")
    return ()
  if name == "eval" and not _FLAGS.output:
    raise ValueError("--mode=eval with --input needs --output, the folder for the maps.")
  return tuple(_read(cls) for cls in mode.fields)


def _config() -> configs.Config:
  """Returns the config, with the digest of the file that defines its method."""
  config = _with_expanded_fields(configs.from_mapping(_FLAGS.config))
  method, digest = config.model.method, ""
  if method not in methods.SETTINGS:
    raise ValueError(methods.unknown(method))
  if _FLAGS.method_file:
    digest = importlib.import_module("lgag_jax.method.registry").digest_of(method)
  return dataclasses.replace(config, model=dataclasses.replace(config.model, method_digest=digest))


def _with_expanded_fields(config: configs.Config) -> configs.Config:
  """Returns the config with ~ and environment variables replaced in its paths."""
  def expanded(group: Any, label: str, names: Sequence[str]) -> Any:
    return dataclasses.replace(group, **{
      name: user_paths.expanded(getattr(group, name), f"--config.{label}.{name}") for name in names
    })

  return dataclasses.replace(
    config, data=expanded(config.data, "data", _PATH_FIELDS),
    model=expanded(config.model, "model", ("weights",)),
  )


def packaged_config() -> str:
  """Returns the path of the config file if it is one of the package's, "" otherwise."""
  flag = cast(Any, _FLAGS["config"])  # A flag of ml_collections, which absl's types do not know.
  path = (flag.config_filename or "").partition(":")[0] if flag.present else ""
  return path if path.startswith(f"{packaged.folder('configs')}/") else ""


def help_text(name: str | None, program: str) -> str:
  """Returns the help of a mode, or an overview of all modes if `name` is not one of them."""
  if name not in MODES:
    steps = "\n\n".join(f"  # {what}\n  {_example(command, program)}" for what, command in FIRST_STEPS)
    modes = "\n".join(_entry(f"{other}", MODES[other].purpose) for other in MODES)
    return (
      f"lgag_jax {__version__}: landslide maps learned from image-level yes/no labels.\n\n"
      f"First steps:\n\n{steps}\n\nModes, --mode=NAME, by default {DEFAULT}:\n\n{modes}\n\n"
      f"{program} --mode=NAME --help shows the flags of a mode."
    )
  mode = MODES[name]
  title = textwrap.fill(f"--mode={name} {mode.purpose}.", _WIDTH)
  parts = [title, *(f"  {_example(e, program)}" for e in mode.examples)]
  if mode.notes:
    parts.append(textwrap.fill(mode.notes, _WIDTH))
  own = {
    field.name: fields.help_text(field, default=field.name not in mode.required)
    for cls in mode.fields for field in dataclasses.fields(cls) if field.metadata
  }
  for title, names in (
    ("Required", mode.required),
    ("Optional", (*mode.optional, *(name for name in own if name not in mode.required))),
    ("As one of several processes", _PROCESS_FLAGS if mode.processes else ()),
  ):
    texts = {name: own.get(name) or _FLAGS[name].help for name in names}
    entries = [_entry(f"--{name}", text[0].upper() + text[1:]) for name, text in texts.items()]
    parts += [f"{title}:\n\n" + "\n".join(entries)] if entries else []
  if "config" in mode.required:
    groups = [_entry(group, " ".join(names)) for group, names in configs.config_dict().items()]
    parts.append("Fields of the config, --config.GROUP.FIELD=VALUE:\n\n" + "\n".join(groups))
  return "\n\n".join(parts)


def _read(cls: type) -> Any:
  shared = {f.name: _FLAGS[f.name].value or "" for f in dataclasses.fields(cls) if not f.metadata}
  return fields.read(cls, **shared)


def _missing(mode: str, flag: str) -> str:
  if flag == "config":
    return "--config is missing. For your own images add --config=configs/image_folder.py."
  if flag == "workdir":
    return f"--mode={mode} needs --workdir=<folder>, which holds all files of a run."
  return f"--mode={mode} needs --{flag}; see --mode={mode} --help."


def _typed_value(argv: list[str], name: str, *, inner: bool = False) -> str | None:
  """Returns a flag's last value as typed, or None; `inner` counts fields too (--config.data.gsd)."""
  last = None
  for word, after in zip(argv[1:], [*argv[2:], ""], strict=False):
    flag, equals, value = word.lstrip("-").partition("=")
    if word.startswith("-") and (flag == name or (inner and flag.startswith(f"{name}."))):
      last = value if equals else after
  return last


def _with_expanded_paths(argv: list[str]) -> list[str]:
  """Replaces ~ and environment variables in the paths of flags; raises ValueError naming a flag."""
  words = list(argv)
  for i, word in enumerate(argv[1:], 1):
    flag, equals, value = word.lstrip("-").partition("=")
    if not word.startswith("-") or flag not in _PATH_FLAGS:
      continue
    if equals:
      words[i] = f"{word.partition('=')[0]}={user_paths.expanded(value, f'--{flag}')}"
    elif i + 1 < len(argv):
      words[i + 1] = user_paths.expanded(argv[i + 1], f"--{flag}")
  return words


def _with_packaged_config(argv: list[str]) -> list[str]:
  """Replaces a --config that does not exist by the package's config file of the same name."""
  path = _typed_value(argv, "config")
  if not path:
    return argv
  file, colon, method = path.partition(":")
  full = f"{packaged.resolve(file)}{colon}{method}"
  if not pathlib.Path(packaged.resolve(file)).exists():
    raise ValueError(
      f"--config={file} does not exist, neither here nor in lgag_jax. For your own images use "
      "--config=configs/image_folder.py."
    )
  return [full if word == path else word.replace(f"config={path}", f"config={full}") for word in argv]


def _example(command: str, program: str) -> str:
  """Returns a command broken into lines at its flags, which a shell still reads as one command."""
  lines = [""]
  for word in command.replace(PROGRAM, program).split(" --"):
    word = f"--{word}" if lines[0] else word
    if len(lines[-1]) + len(word) > _WIDTH - 6 and lines[-1]:
      lines[-1] += " \\"
      lines.append(f"    {word}")
    else:
      lines[-1] = f"{lines[-1]} {word}".lstrip() if len(lines) == 1 else f"{lines[-1]} {word}"
  return "\n".join(lines)


def _entry(name: str, text: str) -> str:
  return textwrap.fill(text, _WIDTH, initial_indent=f"  {name:<22} ", subsequent_indent=" " * 25)


def _short_message(text: str) -> str:
  """Returns the last line of a config file's traceback, and the hint at the end of a long message."""
  lines = [line.strip() for line in text.strip("'\"\n").splitlines() if line.strip()]
  if any(line.startswith("Traceback") for line in lines):
    return lines[-1]
  if match := _UNKNOWN_FIELD.search(text):  # The rest of this message repeats itself.
    return f"The config has no field {match[2]!r}. Did you mean {match[1]!r}?"
  if "".join(lines).isidentifier():  # A KeyError of a name that is like no other.
    return f"The config has no field {lines[0]!r}. Its fields are those of lgag_jax/settings."
  hint = text[text.rindex("Did you mean") :] if "Did you mean" in text else ""
  return text if len(text) < 300 else f"{text[:200]} ... {hint}"
