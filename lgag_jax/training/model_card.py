"""The README.md of a model directory: its training data, its metrics and its limits."""

import pathlib

from lgag_jax.config import Config
from lgag_jax.evaluation.tables import number
from lgag_jax.geo import scale
from lgag_jax.inference.localize import main_map_name
from lgag_jax.pages import rendering
from lgag_jax.pages.rendering import Table
from lgag_jax.runtime import files


def text(workdir: pathlib.Path, config: Config, step: int) -> str:
  """Returns the model card, with the front matter that model hubs read.

  The card has the metrics of the workdir's evaluation if that is of this step, otherwise none.
  """
  metrics = _metrics(workdir, config, step)
  data, ground = config.data, scale.load(workdir, config)
  name = pathlib.PurePath(data.builder or data.directory).name or "unnamed"
  training = Table(("property", "value"), [
    ("data set", name), ("classes", ", ".join(data.classes)),
    ("bands", f"{data.channels} of each date" if data.paired else data.channels),
    ("image", f"{ground.side} source pixels, resized to {data.image_size}"),
    ("ground resolution", f"{ground.gsd:g} m per source pixel" if ground.gsd else "unknown"),
    ("range of values", f"0 to {data.max_value:g}" if data.max_value else "that of the integer type"),
    ("method", f"{config.model.method} on {config.model.trunk}"), ("training steps", step),
  ])
  return rendering.markdown(
    "model_card.md", front_matter=_front_matter(name, metrics), name=name, training=training,
    evaluation=_table(metrics) if metrics else None,
  )


def _metrics(workdir: pathlib.Path, config: Config, step: int) -> dict[str, dict]:
  """Returns metrics per class, {} without an evaluation of this step; None where no mask shows it."""
  path = workdir / "eval" / "validation.json"
  if not path.exists():
    return {}
  content = files.read_json(path)
  try:
    if content["step"] != step:
      return {}
    return {
      name: _class_metrics(content["classes"][name], content["examples"], config)
      for name in config.data.classes
    }
  except (LookupError, TypeError):
    raise ValueError(f"{path} is not a valid evaluation: run --mode=eval again.") from None


def _class_metrics(values: dict, images: int, config: Config) -> dict[str, float | None]:
  pixels = values["maps"][main_map_name(config)]["label_free"]
  known = pixels["landslide_pixels"] > 0
  metrics = {
    "images": images, "auc": values["image"]["auc"],
    **{key: pixels[key] if known else None for key in ("iou", "f1", "precision", "recall")},
  }
  if not all(value is None or isinstance(value, int | float) for value in metrics.values()):
    raise TypeError
  return metrics


def _table(metrics: dict[str, dict]) -> Table:
  columns = ("class", "images", "image AUC", "pixel IoU", "F1", "precision", "recall")
  return Table(columns, [
    (name, values["images"],
     *(number(values[key]) for key in ("auc", "iou", "f1", "precision", "recall")))
    for name, values in metrics.items()
  ])


def _front_matter(name: str, metrics: dict[str, dict]) -> dict:
  head = {
    "license": "unknown", "library_name": "lgag_jax", "pipeline_tag": "image-segmentation",
    "tags": ["landslide", "remote-sensing", "weakly-supervised", "jax", "flax"],
  }
  results = [
    {"type": key, "name": f"{key}, {class_name}", "value": round(values[key], 4)}
    for class_name, values in metrics.items() for key in ("iou", "f1", "precision", "recall")
    if values[key] is not None
  ]
  if results:
    task, data = {"type": "image-segmentation"}, {"name": name, "type": "image-folder"}
    head["model-index"] = [
      {"name": name, "results": [{"task": task, "dataset": data, "metrics": results}]}
    ]
  return head
