"""Shell completion: a script with the modes, flags and config fields."""

import string

from absl import flags

from lgag_jax import config as configs
from lgag_jax.cli import command_line  # noqa: F401  Defines the flags.
from lgag_jax.runtime import packaged

# bash splits words at "=", zsh does not; in both, `flag` holds the text before it. If nothing matches,
# -o default completes file names.
_SCRIPT = string.Template("""\
_lgag() {
  local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" flag="" prefix=""
  if [ "$word" = "=" ]; then flag="$before"; word=""
  elif [ "$before" = "=" ]; then flag="${COMP_WORDS[COMP_CWORD-2]}"
  else case "$word" in --*=*) flag="${word%%=*}"; prefix="$flag="; word="${word#*=}" ;; esac
  fi
  case "$flag" in
$CASES
    "") COMPREPLY=($(compgen -W "$FLAGS" -- "$word")) ;;
    *) COMPREPLY=() ;;
  esac
}
complete -o default -o nospace -F _lgag lgag
""")


def script() -> str:
  """Returns the completion script of `lgag` for bash, and for zsh with bashcompinit."""
  names, cases = [], []
  for name, flag in flags.FLAGS.flags_by_module_dict().items():
    if name.startswith("lgag_jax."):
      names += [f"--{f.name}=" for f in flag]
      cases += [_case(f.name, f.parser.enum_values) for f in flag if isinstance(f, flags.EnumFlag)]
  fields = [f"--config.{g}.{n}=" for g, group in configs.config_dict().items() for n in group]
  cases.append(_case("config", packaged.config_files()))
  return _SCRIPT.safe_substitute(CASES="\n".join(cases), FLAGS=" ".join([*sorted(names), *fields]))


def _case(name: str, values: list[str]) -> str:
  words = " ".join(values)
  return f'    --{name}) COMPREPLY=($(compgen -P "$prefix" -W "{words}" -- "$word")) ;;'
