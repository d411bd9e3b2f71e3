"""Checks that no file of the data set is left unused without the user's knowledge."""

from lgag_jax.config import Config
from lgag_jax.doctor.findings import NOTE, WARNING, Finding, finding
from lgag_jax.inputs import unused_files

_TEST = "test"  # A split that is often held out from training on purpose.


def check(config: Config) -> list[Finding]:
  """Returns the findings about files, splits and columns of the manifest that nothing reads."""
  if config.data.source == "tfds":
    return []
  try:
    unused = unused_files.find(config.data)
  except (ValueError, OSError):  # Opening the splits reports it.
    return []
  warned = {"masks", "formats", "nested", "overridden", "labels"}
  if unused.splits.keys() - {_TEST}:
    warned.add("splits")
  return [
    finding(
      WARNING if remark.reason in warned else NOTE, remark.what, remark.remedy, remark.names,
    ) for remark in unused_files.explain(unused, config.data)
  ]
