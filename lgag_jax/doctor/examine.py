"""The examination: reads the data, makes the findings, writes the report."""

import dataclasses
import datetime
import pathlib
import warnings

import jax

from lgag_jax.config import Config
from lgag_jax.doctor import (
  duplicate_checks,
  estimate,
  findings,
  image_checks,
  label_checks,
  page,
  survey,
)
from lgag_jax.runtime.files import write_json, write_text


def examine(config: Config, workdir: pathlib.Path) -> int:
  """Reads the data that `config` names, prints what is wrong, writes <workdir>/doctor/.

  Leaves report.html and report.json there. Returns the exit code for scripts: 0 when nothing is
  worse than a note, 2 with warnings, 1 with errors. Raises ValueError for a config that no
  training can use, and among several processes.
  """
  if jax.process_count() > 1:
    raise ValueError("--mode=doctor works in one process: start it once, with --distributed=off.")
  planned = estimate.plan(config)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Decoders warn of what becomes a finding, or of what is harmless.
    taken = survey.take(config.data)
  found = image_checks.check(taken, config, planned.network) + label_checks.check(taken, config)
  found += duplicate_checks.check(taken.examples)
  expected = estimate.make(taken, config, planned, workdir)
  found = findings.sort(found + estimate.check(expected))
  code = findings.exit_code(found)
  write_json(workdir / "doctor" / "report.json", {
    "data": config.data.directory or config.data.builder,
    "written": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    "exit_code": code,
    "images": len(taken.examples),
    "seconds": round(taken.seconds, 2),
    "findings": [
      {n: v for n, v in dataclasses.asdict(f).items() if n != "pictures"} for f in found
    ],
    "estimate": dataclasses.asdict(expected),
  })
  path = workdir / "doctor" / "report.html"
  write_text(path, page.render(taken, found, config))
  print(_printable(findings.as_text(found)))
  count = {s: sum(f.severity == s for f in found) for s in findings.SEVERITIES}
  print("; ".join(findings.plural(n, s) for s, n in count.items()) + f". Report: {path}")
  return code


def _printable(text: str) -> str:
  """Spells out what is no text: names of files, also within errors, need not be UTF-8."""
  return text.encode(errors="backslashreplace").decode()
