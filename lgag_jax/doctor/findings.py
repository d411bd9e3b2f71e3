"""Findings of the doctor, with a severity, a count, the files and a remedy."""

import dataclasses
from collections.abc import Sequence

ERROR, WARNING, NOTE = SEVERITIES = ("error", "warning", "note")
_EXIT_CODES = {ERROR: 1, WARNING: 2, NOTE: 0}  # By the severity of the worst finding.
_MAX_FILES = 10  # Files named per finding.


@dataclasses.dataclass(frozen=True)
class Finding:
  """A statement about the data. All fields but `pictures` are keys in report.json."""

  severity: str
  what: str
  count: int = 0
  files: tuple[str, ...] = ()
  remedy: str = ""
  pictures: tuple[tuple[int, ...], ...] = ()  # Groups of examples to show, by position.


def finding(
  severity: str, what: str, remedy: str, files: Sequence[str] = (), *, count: int | None = None,
  pictures: Sequence[tuple[int, ...]] = (),
) -> Finding:
  """Returns a finding that names the first few of `files`; `count` is their number by default."""
  return Finding(
    severity, what, len(files) if count is None else count, tuple(files[:_MAX_FILES]), remedy,
    tuple(pictures[:_MAX_FILES]),
  )


def sort(findings: Sequence[Finding]) -> list[Finding]:
  """Returns the findings, the worst first, otherwise in the same order."""
  return sorted(findings, key=lambda f: SEVERITIES.index(f.severity))


def exit_code(findings: Sequence[Finding]) -> int:
  """Returns 1 with errors, 2 with warnings only, 0 otherwise."""
  return _EXIT_CODES[sort(findings)[0].severity] if findings else 0


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
      lines.append(f"    and {f.count - len(f.files):,} more")
    if f.remedy:
      lines.append(f"  What to do: {f.remedy}")
    lines.append("")
  return "\n".join(lines)


def unless_all(names: list[str], examples: Sequence) -> list[str]:
  """Returns the names, or none if a finding is about every image."""
  return names if len(names) < len(examples) else []
