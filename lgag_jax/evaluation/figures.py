"""The charts and example pictures of the pages, as matplotlib figures."""

from collections.abc import Collection
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgba
from matplotlib.figure import Figure

from lgag_jax.evaluation.tables import map_title
from lgag_jax.imagery.reading import UNKNOWN
from lgag_jax.inference.exclusive_classes import drawn

_INK, ACCENT, COOL, SOFT = "#26323a", "#c8452d", "#2d6f8e", "#a9b4ba"
STYLE: dict[Any, object] = {
  "font.size": 9, "axes.edgecolor": SOFT, "axes.labelcolor": _INK, "axes.titlecolor": _INK,
  "axes.titlesize": 10, "xtick.color": _INK, "ytick.color": _INK, "axes.spines.top": False,
  "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True, "grid.color": "#e8ecee",
  "figure.dpi": 110,
}
_CLASS_COLOURS = (ACCENT, "#e0a030", "#7d4fa3", COOL)
_NOT_CURVES = (
  "step", "split", "loss", "gradient_norm", "anchors_per_step", "steps_per_second", "skipped_steps",
)


def class_colour(index: int) -> str:
  """Returns the colour of a class by its position in data.classes; colours repeat."""
  return _CLASS_COLOURS[index % len(_CLASS_COLOURS)]


def curves(lines: list[dict], without_masks: Collection[str] = ()) -> Figure | None:
  """Draws loss, terms and metrics over the steps, without pixel metrics of classes `without_masks`."""
  # A line without a loss covers steps that were all skipped.
  train = [line for line in lines if line["split"] == "train" and "loss" in line]
  validation = [line for line in lines if line["split"] == "validation"]
  series = _series(validation, without_masks)
  count = 2 * bool(train) + bool(series)
  if not count:
    return None
  with matplotlib.rc_context(STYLE):
    figure = Figure(figsize=(11 * count / 3, 3), layout="constrained")
    axes = list(figure.subplots(1, count, squeeze=False)[0])
    if train:
      loss, terms = axes[:2]
      loss.plot([line["step"] for line in train], [line["loss"] for line in train], color=ACCENT)
      loss.set_title("Training loss")
      for name, (steps, values) in _series(train).items():
        if np.any(np.array(values) > 0):
          terms.plot(steps, values, label=name)
      terms.set(title="Loss terms, before weighting", yscale="log")
    if series:
      for name, (steps, values) in series.items():
        axes[-1].plot(steps, values, marker="o", markersize=3, label=name)
      axes[-1].set(title="Validation, after each epoch", ylim=(0, 1))
    for axis in axes:
      axis.set_xlabel("step")
    for axis in axes[1:]:
      if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _series(
  lines: list[dict], without_masks: Collection[str] = ()
) -> dict[str, tuple[list[int], list[float]]]:
  """Returns the steps and values of each metric, by its name as plain text."""
  hidden = tuple(f"{name}/" for name in without_masks)
  steps = [line["step"] for line in lines]
  return {
    _without_formulas(name.replace("_", " ")): (steps, [line[name] for line in lines])
    for name in (lines[0] if lines else ())
    if name not in _NOT_CURVES and not (name.startswith(hidden) and name.endswith("_oracle_iou"))
  }


def _without_formulas(text: str) -> str:
  return text.replace("$", r"\$")


def examples(
  rows: dict[str, np.ndarray], thresholds: dict[str, list[float]], *, main: str, limit: int = 12
) -> Figure:
  """Draws a row per example: image, score maps, seeds, predicted mask and, if there is one, truth."""
  count = min(limit, len(rows["id"]))
  selection = np.unique(np.linspace(0, len(rows["id"]) - 1, count).astype(int))
  columns = ["image", *map(map_title, thresholds), "predicted mask"]
  if "anchor_guided" in thresholds:
    columns.insert(2, "SOL seeds")
  if np.any(rows["truth"][selection] != UNKNOWN):
    columns.append("truth")
  with matplotlib.rc_context({**STYLE, "axes.grid": False}):
    figure = Figure(figsize=(1.75 * len(columns), 1.75 * len(selection)), layout="constrained")
    grid = figure.subplots(len(selection), len(columns), squeeze=False)
    for axes, i in zip(grid, selection, strict=True):
      _draw_example(dict(zip(columns, axes, strict=True)), rows, i, thresholds, main)
    for axis, name in zip(grid[0], columns, strict=True):
      axis.set_title(name)
    return figure


def _draw_example(
  axes: dict[str, Axes], rows: dict[str, np.ndarray], i: int, thresholds: dict, main: str
) -> None:
  image = rows["image"][i]
  background = image if image.shape[-1] == 3 else image[..., 0]
  for axis in axes.values():
    axis.set(xticks=[], yticks=[])
    axis.imshow(background, cmap="gray")
  heat = {"cmap": "magma", "vmin": 0, "vmax": 1, "interpolation": "bilinear"}
  for name in thresholds:
    axes[map_title(name)].imshow(rows[name][i].max(-1).astype(float), **heat)
  count = rows[main].shape[-1]
  colours = [class_colour(k) for k in range(count)]
  if "SOL seeds" in axes:
    extent = (-0.5, background.shape[1] - 0.5, background.shape[0] - 0.5, -0.5)
    axes["SOL seeds"].imshow(
      rows["seeds"][i], cmap=ListedColormap(["#eef1f2", *colours]), vmin=0, vmax=count, alpha=0.75,
      extent=extent, interpolation="nearest",
    )
  masks = {"predicted mask": drawn(rows[main][i].astype(np.float32), thresholds[main])}
  if "truth" in axes:
    masks["truth"] = rows["truth"][i]
    if np.all(masks["truth"] == UNKNOWN):
      axes["truth"].set_xlabel("no mask")
  for title, mask in masks.items():
    overlay = np.zeros((*mask.shape, 4))
    for k, colour in enumerate(colours, 1):
      overlay[mask == k] = to_rgba(colour, 0.6)
    overlay[mask == UNKNOWN] = to_rgba(SOFT, 0.6)
    axes[title].imshow(overlay)
  probability = ", ".join(f"{p:.2f}" for p in np.atleast_1d(rows["probability"][i]))
  name = _without_formulas(str(rows["id"][i])[:18])
  axes["image"].set_ylabel(f"{name}\np = {probability}", fontsize=7)


def bank(features: np.ndarray, valid: np.ndarray, centres: np.ndarray, names: list[str]) -> Figure:
  """Draws the memory bank and the global anchors in their first two principal directions."""
  rows = features[valid]
  mean = rows.mean(axis=0)
  _, _, directions = np.linalg.svd(rows - mean, full_matrices=False)
  project = lambda x: (x - mean) @ directions[:2].T
  with matplotlib.rc_context(STYLE):
    figure = Figure(figsize=(7.5, 4), layout="constrained")
    axis = figure.subplots()
    for k, name in enumerate(names):
      colour = class_colour(k - 1) if k else _INK
      x, y = project(features[k][valid[k]]).T
      label = f"{_without_formulas(name)}: {len(x)} local anchors"
      axis.scatter(x, y, s=10, alpha=0.45, color=colour, label=label)
      if np.any(centres[k]):
        x, y = project(centres[k]).T
        axis.scatter(x, y, s=90, marker="*", color=colour, edgecolor="white", linewidth=0.7)
    axis.set(
      title="Memory bank (dots) and global anchors (stars)", xlabel="first principal direction",
      ylabel="second principal direction",
    )
    axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def calibration(image: dict) -> Figure:
  """Draws the reliability of the image probabilities."""
  with matplotlib.rc_context(STYLE):
    figure = Figure(figsize=(3.6, 3.2), layout="constrained")
    _draw_calibration(figure.subplots(), image)
    return figure


def distributions(result: dict, image: dict) -> Figure:
  """Draws calibration, the IoU over images, and recall by the size of landslides."""
  with matplotlib.rc_context(STYLE):
    figure = Figure(figsize=(12, 3.2), layout="constrained")
    first, ious, recalls = figure.subplots(1, 3, width_ratios=(3, 4, 5))
    _draw_calibration(first, image)
    counts = result["per_image_iou"]["counts"]
    ious.bar(np.arange(10) / 10 + 0.05, counts, width=0.09, color=COOL)
    title = f"IoU of images with the class (mean {result['per_image_iou']['mean']:.2f})"
    ious.set(title=title, xlabel="IoU", ylabel="images")
    rows = [row for row in result["recall_by_size"] if row["landslides"]]
    place = np.arange(len(rows))
    for offset, key, colour, label in (
      (-0.2, "pixel_recall", COOL, "share of pixels detected"),
      (0.2, "found", ACCENT, "share of landslides at least half detected"),
    ):
      recalls.bar(place + offset, [row[key] for row in rows], 0.38, color=colour, label=label)
    recalls.set_xticks(place, [f"≥ {row['from_pixels']}\n({row['landslides']})" for row in rows])
    # The limit leaves room for the legend.
    recalls.set(ylim=(0, 1.25), title="Recall by size: pixels (number of landslides)")
    recalls.legend(frameon=False, fontsize=7, loc="upper center", ncols=2)
    return figure


def _draw_calibration(axis: Axes, image: dict) -> None:
  rows = image["reliability"]
  axis.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle="--")
  x, y = ([row[name] for row in rows] for name in ("probability", "positive"))
  largest = max((row["images"] for row in rows), default=1)
  # A dot's area is proportional to the number of images.
  areas = [15 + 145 * row["images"] / largest for row in rows]
  axis.plot(x, y, color=COOL, linewidth=1)
  axis.scatter(x, y, s=areas, color=COOL, alpha=0.8)
  axis.set(xlim=(-0.05, 1.05), ylim=(-0.08, 1.08), xlabel="image probability", ylabel="share positive")
  axis.set_title(f"Calibration (expected error {image['expected_calibration_error']:.2f})")
