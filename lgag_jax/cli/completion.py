"""Shell completion: a static script of what the command line takes."""

import string

from absl import flags

from lgag_jax import config as configs
from lgag_jax.cli import command_line  # noqa: F401  Defines the flags.
from lgag_jax.runtime import packaged

# bash parts words at "=", zsh does not: what comes before it is in `flag` either way. Where nothing
# fits, -o default completes files.
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
  """Returns what bash, and zsh with bashcompinit, complete `lgag` by."""
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
