"""Runs the doctor: reads the data, collects the findings, writes the report."""

import contextlib
import dataclasses
import datetime
import os
import pathlib
import warnings
from typing import Any

import jax

from lgag_jax.config import Config
from lgag_jax.doctor import (
  duplicate_checks,
  estimate,
  file_checks,
  findings,
  image_checks,
  label_checks,
  pair_checks,
  survey,
)
from lgag_jax.doctor.page import render
from lgag_jax.runtime import lock, printable
from lgag_jax.runtime.files import read_json, write_json, write_text


def examine(config: Config, workdir: pathlib.Path) -> int:
  """Checks the data of `config`, prints the findings and writes them to <workdir>/doctor/.

  Writes report.html and report.json. Returns the exit code: 1 with errors, 2 with warnings only, 0
  otherwise. Raises ValueError if no training can use the config, in runs of several processes, and
  naming a file of another origin that would be replaced.
  """
  if jax.process_count() > 1:
    raise ValueError("--mode=doctor runs in one process: start it once, with --distributed=off.")
  path = workdir / "doctor" / "report.html"
  _require_own(path)
  plan = estimate.plan(config)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Warnings of decoders are harmless, or become findings.
    data = survey.read(config.data)
  resources = estimate.make(data, config, plan, workdir)
  all_findings = findings.sort([
    *file_checks.check(config), *image_checks.check(data, config, plan.network),
    *label_checks.check(data, config), *pair_checks.check(config),
    *duplicate_checks.check(data.examples), *estimate.check(resources),
  ])
  code = findings.exit_code(all_findings)
  with lock.acquire(path.parent):
    _require_own(path)
    write_json(path.with_suffix(".json"), {
      "data": config.data.directory or config.data.builder,
      "written": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
      "exit_code": code,
      "images": len(data.examples),
      "seconds": round(data.seconds, 2),
      "findings": [
        {n: v for n, v in dataclasses.asdict(f).items() if n != "pictures"} for f in all_findings
      ],
      "estimate": dataclasses.asdict(resources),
    })
    write_text(path, render(data, all_findings, config))
  print(printable.text(findings.as_text(all_findings)))
  count = {s: sum(f.severity == s for f in all_findings) for s in findings.SEVERITIES}
  print("; ".join(findings.plural(n, s) for s, n in count.items()) + f". Report: {path}")
  return code


def _require_own(page: pathlib.Path) -> None:
  """Raises ValueError if something that the doctor has not written lies where it will write."""
  record = page.with_suffix(".json")
  content: Any = None
  if not record.is_symlink():
    with contextlib.suppress(OSError, ValueError):
      content = read_json(record)
  is_own = isinstance(content, dict) and {"findings", "exit_code"} <= content.keys()
  others = [path for path in (record, page) if os.path.lexists(path) and not is_own]
  others += [path for path in (page.parent, page) if path.is_symlink()]
  if others:
    raise ValueError(
      f"{others[0]} would be replaced, but the doctor has not written it there. Move it, or use "
      "another --workdir."
    )
