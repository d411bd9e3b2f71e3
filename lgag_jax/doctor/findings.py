"""What the doctor says: findings with a severity, how many, which files and what to do."""

import dataclasses
from collections.abc import Sequence

ERROR, WARNING, NOTE = SEVERITIES = ("error", "warning", "note")
# What scripts get: the worst finding decides.
EXIT_CODES = {ERROR: 1, WARNING: 2, NOTE: 0}
MOST_FILES = 10  # Named in a finding.


@dataclasses.dataclass(frozen=True)
class Finding:
  """One sentence about the data; `pictures` are groups of positions of examples to look at."""

  severity: str
  what: str
  count: int = 0
  files: tuple[str, ...] = ()
  remedy: str = ""
  pictures: tuple[tuple[int, ...], ...] = ()


def finding(
  severity: str, what: str, remedy: str, files: Sequence[str] = (), *, count: int | None = None,
  pictures: Sequence[tuple[int, ...]] = (),
) -> Finding:
  """Makes a finding that names the first few of `files`; `count` is their number by default."""
  return Finding(
    severity, what, len(files) if count is None else count, tuple(files[:MOST_FILES]), remedy,
    tuple(pictures[:MOST_FILES]),
  )


def sort(findings: Sequence[Finding]) -> list[Finding]:
  """Returns the worst first, else as they came."""
  return sorted(findings, key=lambda f: SEVERITIES.index(f.severity))


def exit_code(findings: Sequence[Finding]) -> int:
  """Returns 1 with errors, 2 with warnings, 0 with nothing worse than notes."""
  return EXIT_CODES[sort(findings)[0].severity] if findings else 0


def images(count: int) -> str:
  """Returns "1 image", "2 images"."""
  return plural(count, "image")


def plural(count: int, noun: str) -> str:
  return f"{count:,} {noun}{'' if count == 1 else 's'}"


def have(count: int) -> str:
  return "has" if count == 1 else "have"


def are(count: int) -> str:
  return "is" if count == 1 else "are"


def as_text(findings: Sequence[Finding]) -> str:
  """Returns the findings for a terminal."""
  lines = []
  for f in findings:
    lines.append(f"{f.severity.upper()}: {f.what}")
    lines += [f"    {name}" for name in f.files]
    if f.count > len(f.files) > 0:
      lines.append(f"    ... and {f.count - len(f.files):,} more")
    if f.remedy:
      lines.append(f"  What to do: {f.remedy}")
    lines.append("")
  return "\n".join(lines)


def unless_all(names: list[str], examples: Sequence) -> list[str]:
  """What is so of every image needs no names."""
  return names if len(names) < len(examples) else []
