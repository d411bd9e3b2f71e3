"""The README.md of a model directory: what was trained on what, how good it is, and its limits."""

import json
import pathlib

from lgag_jax.config import Config
from lgag_jax.evaluation.tables import number
from lgag_jax.geo import scale
from lgag_jax.inference.localize import map_of
from lgag_jax.runtime import files

_USE = """## Intended use

Maps of landslides in imagery of the same kind as that of the training: the same bands in the same
order, in the same range of values, of about the same ground resolution. A map is a draft for people who
look at the imagery, not a statement that ground is safe or unsafe.

## Limits

- Learned from image-level labels unless the method is `segmentation`: outlines are approximate.
- Small landslides are missed first; one much wider than an image of the training was never seen whole.
- On other sensors, resolutions, seasons or terrain it may find nothing, or everything. Judge it on
  ground that you know before you use it.
- Thresholds were chosen without masks.
"""

_LOAD = """## How to load

    pip install -r requirements.txt   # of lgag_jax, in its repository
    python -m lgag_jax.main --mode=predict --workdir=THIS_FOLDER --input=scene.tif --output=maps

or in Python

    import lgag_jax
    model = lgag_jax.load("THIS_FOLDER")
    result = model.predict("scene.tif")    # result.probability, result.mask, result.scores

The folder holds numbers and text, which are read as data and never run.
"""


def text(workdir: pathlib.Path, config: Config, step: int) -> str:
  """Returns the card, with the front matter that model hubs read.

  Metrics are those of the workdir's evaluation, if it is of this step; none otherwise.
  """
  metrics = _metrics(workdir, config, step)
  data, seen = config.data, scale.load(workdir, config)
  name = _plain(pathlib.PurePath(data.builder or data.directory).name or "unnamed")
  rows = [
    ("data set", name), ("classes", ", ".join(map(_plain, data.classes))),
    ("bands", str(data.channels)), ("image", f"{seen.side} source pixels, shown at {data.image_size}"),
    ("ground resolution", f"{seen.gsd:g} m a source pixel" if seen.gsd else "unknown"),
    ("range of values", f"0 to {data.max_value:g}" if data.max_value else "that of the integer type"),
    ("method", f"{config.model.method} on {config.model.trunk}"), ("training steps", str(step)),
  ]
  table = "\n".join(f"| {key} | {value} |" for key, value in rows)
  return (
    f"---\n{_front_matter(name, metrics)}---\n\n# Landslide maps, trained on {name}\n\n"
    "A network of lgag_jax, a reimplementation, with extensions, of\n"
    "[LGAGNet](https://doi.org/10.1109/LGRS.2023.3276768). Fill in the licence above: the images and\n"
    "labels that it was trained on may set terms.\n\n"
    f"## Training\n\n| | |\n| --- | --- |\n{table}\n\n{_evaluation(metrics)}\n{_USE}\n{_LOAD}"
  )


def _metrics(workdir: pathlib.Path, config: Config, step: int) -> dict[str, dict]:
  """Returns a class's figures of the evaluation; {} without one of this step."""
  path = workdir / "eval" / "validation.json"
  if not path.exists():
    return {}
  content = files.read_json(path)
  try:
    if content["step"] != step:
      return {}
    found = {}
    for name in config.data.classes:
      values = content["classes"][name]
      pixels, image = values["maps"][map_of(config)]["label_free"], values["image"]
      figures = {
        "images": content["examples"], "auc": image["auc"],
        "iou": pixels["iou"], "f1": pixels["f1"], "precision": pixels["precision"],
        "recall": pixels["recall"],
      }
      if not all(value is None or isinstance(value, int | float) for value in figures.values()):
        raise TypeError
      # Without masks nothing is known of pixels.
      known = pixels["landslide_pixels"] > 0
      found[name] = {k: v if known or k in ("images", "auc") else None for k, v in figures.items()}
    return found
  except (LookupError, TypeError):
    raise ValueError(f"{path} is not what an evaluation writes: run --mode=eval again.") from None


def _evaluation(metrics: dict[str, dict]) -> str:
  if not metrics:
    return "## Evaluation\n\nNone was kept with these weights.\n"
  head = ("class", "images", "image AUC", "pixel IoU", "F1", "precision", "recall")
  rows = [
    (f"{_plain(name)}", str(f["images"]),
     *(number(f[key]) for key in ("auc", "iou", "f1", "precision", "recall")))
    for name, f in metrics.items()
  ]
  line = lambda cells: f"| {' | '.join(cells)} |"
  return "\n".join([
    "## Evaluation", "", "On held-out images, at the label-free threshold.", "", line(head),
    line(["---"] * len(head)), *map(line, rows), "",
  ])


def _front_matter(name: str, metrics: dict[str, dict]) -> str:
  """YAML, its values as JSON: what a name holds cannot be more than text."""
  head = {
    "license": "unknown", "library_name": "lgag_jax", "pipeline_tag": "image-segmentation",
    "tags": ["landslide", "remote-sensing", "weakly-supervised", "jax", "flax"],
  }
  results = [
    {"type": key, "name": f"{key}, {_plain(of)}", "value": round(figures[key], 4)}
    for of, figures in metrics.items() for key in ("iou", "f1", "precision", "recall")
    if figures[key] is not None
  ]
  if results:
    task, data = {"type": "image-segmentation"}, {"name": name, "type": "image-folder"}
    head["model-index"] = [
      {"name": name, "results": [{"task": task, "dataset": data, "metrics": results}]}
    ]
  return "".join(f"{key}: {json.dumps(value)}\n" for key, value in head.items())


def _plain(value: str) -> str:
  """A name as text of one line, without what Markdown or HTML would read as more."""
  return "".join(c if c.isalnum() or c in " ._-" else "_" for c in value)[:100]
