"""Counts the images of validation that training has too, or nearly so."""

from lgag_jax.config import Config
from lgag_jax.doctor import survey
from lgag_jax.doctor.duplicate_checks import KINDS, across_splits, find_pairs


def leaks(config: Config) -> list[str]:
  """Reads the data; returns "<training image> and <validation image>, <kind>" for each pair.

  If there are several copies, one stands for all. Images without contrast are not compared; mostly
  blank ones are compared only pixel for pixel. Raises ValueError if a split cannot be opened, or if a
  file cannot be read and data.on_bad_image is not "skip".
  """
  data = survey.read(config.data)
  skip = config.data.on_bad_image == "skip"
  unreadable = [] if skip else [f"{name}: {reason}" for name, reason in data.faults]
  if faults := [*data.unopened_splits.values(), *unreadable]:
    raise ValueError(f"Cannot compare data that cannot be read. The first problem: {faults[0]}")
  return [
    f"{data.examples[i].name} and {data.examples[k].name}, {KINDS[kind]}"
    for kind, pairs in find_pairs(data.examples).items()
    for i, k in across_splits(data.examples, pairs)
  ]
