"""The report's pictures, as matplotlib figures."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from lgag_jax.evaluation.tables import MAP_NAMES
from lgag_jax.inference.exclusive_classes import drawn

_INK, _ACCENT, _COOL, _SOFT = "#26323a", "#c8452d", "#2d6f8e", "#a9b4ba"
_STYLE = {
  "font.size": 9, "axes.edgecolor": _SOFT, "axes.labelcolor": _INK, "axes.titlecolor": _INK,
  "axes.titlesize": 10, "xtick.color": _INK, "ytick.color": _INK, "axes.spines.top": False,
  "axes.spines.right": False, "axes.grid": True, "grid.color": "#e8ecee", "figure.dpi": 110,
}
CLASS_COLOURS = (_ACCENT, "#e0a030", "#7d4fa3", _COOL)  # Of class 1, 2 and so on, over and over.
_HIDDEN = (
  "step", "split", "loss", "gradient_norm", "anchors_per_step", "steps_per_second", "skipped_steps",
)


def _plain(text: str) -> str:
  """Keeps a dollar sign from starting a formula."""
  return text.replace("$", r"\$")


def curves(lines: list[dict]) -> Figure:
  """Draws the loss, its terms, and the validation's figures over the steps."""
  # A line without a loss is of steps that were all skipped.
  train = [line for line in lines if line["split"] == "train" and "loss" in line]
  validation = [line for line in lines if line["split"] == "validation"]
  with plt.rc_context(_STYLE):
    figure, axes = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
    steps = [line["step"] for line in train]
    axes[0].plot(steps, [line["loss"] for line in train], color=_ACCENT)
    axes[0].set_title("Training loss")
    for name in [n for n in (train[0] if train else {}) if n not in _HIDDEN]:
      values = np.array([line[name] for line in train])
      if np.any(values > 0):
        axes[1].plot(steps, values, label=name.replace("_", " "))
    axes[1].set_title("Its terms, before weighting")
    axes[1].set_yscale("log")
    for name in [n for n in (validation[0] if validation else {}) if n not in _HIDDEN]:
      x, y = zip(*((line["step"], line[name]) for line in validation), strict=True)
      axes[2].plot(x, y, marker="o", markersize=3, label=_plain(name.replace("_", " ")))
    axes[2].set_title("Validation, after each epoch")
    axes[2].set_ylim(0, 1)
    for axis in axes:
      axis.set_xlabel("step")
    for axis in axes[1:]:
      if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize=7)
    return figure


def panels(
  rows: dict[str, np.ndarray], thresholds: dict[str, list[float]], *, main: str, limit: int = 12
) -> Figure:
  """Draws examples: image, score maps and SOL's seeds where there are any, mask and truth."""
  count = min(limit, len(rows["id"]))
  picks = np.unique(np.linspace(0, len(rows["id"]) - 1, count).astype(int)) if count else []
  maps = {name: title for name, title in MAP_NAMES.items() if name in rows}
  columns = ["image", *maps.values()]
  if "anchor_guided" in maps:
    columns.insert(2, "SOL seeds")
  columns += ["predicted mask", "truth"]
  with plt.rc_context({**_STYLE, "axes.grid": False}):
    figure, axes = plt.subplots(
      len(picks), len(columns), figsize=(1.75 * len(columns), 1.75 * len(picks)),
      layout="constrained", squeeze=False,
    )
    for axis_row, i in zip(axes, picks, strict=True):
      _panel_row(dict(zip(columns, axis_row, strict=True)), rows, i, thresholds, main)
    for axis, name in zip(axes[0], columns, strict=True):
      axis.set_title(name)
    return figure


def _panel_row(axes: dict, rows: dict, i: int, thresholds: dict, main: str) -> None:
  image = rows["image"][i]
  shown = image if image.shape[-1] == 3 else image[..., 0]
  for axis in axes.values():
    axis.set_xticks([])
    axis.set_yticks([])
    axis.imshow(shown, cmap="gray")
  heat = {"cmap": "magma", "vmin": 0, "vmax": 1, "interpolation": "bilinear"}
  for name, title in MAP_NAMES.items():
    if title in axes:
      axes[title].imshow(rows[name][i].max(-1).astype(float), **heat)
  count = rows[main].shape[-1]
  colours = [CLASS_COLOURS[k % len(CLASS_COLOURS)] for k in range(count)]
  if "SOL seeds" in axes:
    size = (-0.5, shown.shape[1] - 0.5, shown.shape[0] - 0.5, -0.5)
    axes["SOL seeds"].imshow(
      rows["seeds"][i], cmap=ListedColormap(["#eef1f2", *colours]), vmin=0, vmax=count, alpha=0.75,
      extent=size, interpolation="nearest",
    )
  predicted, truth = drawn(rows[main][i].astype(np.float32), thresholds[main]), rows["truth"][i]
  for axis, mask in ((axes["predicted mask"], predicted), (axes["truth"], truth)):
    shade = np.zeros((*mask.shape, 4))
    for k, colour in enumerate(colours, 1):
      shade[mask == k] = to_rgba(colour, 0.6)
    shade[mask == 255] = to_rgba(_SOFT, 0.6)  # Unknown.
    axis.imshow(shade)
  if np.all(truth == 255):
    axes["truth"].set_xlabel("no mask")
  probability = ", ".join(f"{p:.2f}" for p in np.atleast_1d(rows["probability"][i]))
  name = _plain(str(rows["id"][i])[:18])
  axes["image"].set_ylabel(f"{name}\np = {probability}", fontsize=7)


def bank(features: np.ndarray, valid: np.ndarray, centres: np.ndarray, names: list[str]) -> Figure:
  """Draws the memory bank and the global anchors in their first two principal directions."""
  rows = features[valid]
  mean = rows.mean(axis=0)
  _, _, directions = np.linalg.svd(rows - mean, full_matrices=False)
  place = lambda x: (x - mean) @ directions[:2].T
  with plt.rc_context(_STYLE):
    figure, axis = plt.subplots(figsize=(5.5, 4), layout="constrained")
    for k, name in enumerate(names):
      colour = CLASS_COLOURS[(k - 1) % len(CLASS_COLOURS)] if k else _INK
      x, y = place(features[k][valid[k]]).T
      label = f"{_plain(name)}: {len(x)} local anchors"
      axis.scatter(x, y, s=10, alpha=0.45, color=colour, label=label)
      if np.any(centres[k]):
        x, y = place(centres[k]).T
        axis.scatter(x, y, s=90, marker="*", color=colour, edgecolor="white", linewidth=0.7)
    axis.set_title("Memory bank (dots) and global anchors (stars)")
    axis.set_xlabel("first principal direction")
    axis.set_ylabel("second")
    axis.legend(frameon=False, fontsize=8)
    return figure


def distributions(result: dict, image: dict) -> Figure:
  """Draws the image probabilities' reliability, IoU over images, and recall by the objects' size."""
  with plt.rc_context(_STYLE):
    figure, (first, *axes) = plt.subplots(
      1, 3, figsize=(12, 3.2), layout="constrained", width_ratios=(3, 4, 5)
    )
    _reliability(first, image)
    counts = result["per_image_iou"]["counts"]
    axes[0].bar(np.arange(10) / 10 + 0.05, counts, width=0.09, color=_COOL)
    axes[0].set_title(f"IoU of each image that has it (mean {result['per_image_iou']['mean']:.2f})")
    axes[0].set_xlabel("IoU")
    axes[0].set_ylabel("images")
    rows = [row for row in result["recall_by_size"] if row["landslides"]]
    names = [f"≥ {row['from_pixels']}\n({row['landslides']})" for row in rows]
    place = np.arange(len(rows))
    axes[1].bar(place - 0.2, [r["pixel_recall"] for r in rows], 0.38, color=_COOL,
                label="share of their pixels found")
    axes[1].bar(place + 0.2, [r["found"] for r in rows], 0.38, color=_ACCENT,
                label="objects at least half found")
    axes[1].set_xticks(place, names)
    axes[1].set_ylim(0, 1.25)  # Room for the legend.
    axes[1].set_title("Recall by size: pixels (number of objects)")
    axes[1].legend(frameon=False, fontsize=7, loc="upper center", ncols=2)
    return figure


def _reliability(axis: plt.Axes, image: dict) -> None:
  rows = image["reliability"]
  axis.plot([0, 1], [0, 1], color=_SOFT, linewidth=1, linestyle="--")
  x, y = ([row[name] for row in rows] for name in ("probability", "positive"))
  most = max((row["images"] for row in rows), default=1)
  # By area, so that a dot is as large as the images in it are many.
  sizes = [15 + 145 * row["images"] / most for row in rows]
  axis.plot(x, y, color=_COOL, linewidth=1)
  axis.scatter(x, y, s=sizes, color=_COOL, alpha=0.8)
  axis.set(xlim=(-0.05, 1.05), ylim=(-0.08, 1.08), xlabel="image probability", ylabel="share positive")
  axis.set_title(f"Calibration (expected error {image['expected_calibration_error']:.2f})")


def sizes(areas: list[float]) -> Figure:
  """Draws how many polygons there are of each size, and what share of the area they make up."""
  values = np.maximum(np.sort(np.array(areas)), 1e-3)
  low, high = np.floor(np.log10(values[0])), np.ceil(np.log10(values[-1]) + 1e-9)
  edges = np.logspace(low, max(high, low + 1), 1 + 4 * int(max(high - low, 1)))
  with plt.rc_context(_STYLE):
    figure, axes = plt.subplots(1, 2, figsize=(9, 2.6), layout="constrained")
    axes[0].hist(values, bins=edges, color=_COOL)
    axes[0].set_title(f"{len(values):,} polygons by size")
    axes[0].set_ylabel("count")
    axes[1].step(values, np.cumsum(values) / values.sum(), where="post", color=_ACCENT)
    axes[1].set_title("Share of the area in polygons up to a size")
    axes[1].set_ylim(0, 1.02)
    for axis in axes:
      axis.set_xscale("log")
      axis.set_xlim(edges[0], edges[-1])
      axis.xaxis.set_minor_formatter(NullFormatter())  # Between powers of ten they would collide.
      axis.set_xlabel("area [m²]")
    return figure
