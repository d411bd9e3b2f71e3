"""Tells the files of a training from the user's, which a new training must not replace."""

import os
import pathlib

from lgag_jax.imagery import map_products
from lgag_jax.inference import colour_evidence
from lgag_jax.inputs import normalisation
from lgag_jax.runtime import files
from lgag_jax.training import examples_record

# Of a training and its evaluation, written after config.json.
FILES = (
  "report.html", "metrics.jsonl", "thresholds.json", "scale.json", examples_record.FILE,
  normalisation.FILE, colour_evidence.FILE, "eval/validation.json", "eval/validation.md",
  "eval/panels.npz", "eval/bank.npz",
)


def require(workdir: pathlib.Path) -> None:
  """Raises ValueError naming a file that a training would replace although none has written it."""
  path = workdir / "config.json"
  foreign = [name for name in FILES if os.path.lexists(workdir / name)]
  # Earlier releases wrote it before config.json, and may have been killed between the two.
  if foreign == [examples_record.FILE] and examples_record.is_record(workdir):
    foreign = []
  if path.exists():
    content = files.read_json(path)
    own = isinstance(content, dict) and {"data", "model", "train"} <= content.keys()
    foreign = [] if own else [path.name]
  if foreign or map_products.is_output(workdir):
    raise ValueError(
      f"{workdir / (foreign or ['scenes'])[0]} is not of a training, and {workdir} is no workdir: use "
      "another --workdir."
    )
