"""From one scene to a first map with the labelling page: seconds, and IoU over the whole scene.

python -m benchmarks.labelling --scene=scene.tif --mask=landslides.tif --output=runs/labelling

Starts --mode=label on the scene and answers as the page would, with what a mask says that only this
script reads: yes for a tile with a twentieth or more of landslide, no for one without any, unsure
between. It follows the page's suggestions, or answers tiles drawn at random (--draw 16 30: so many with
and without landslide). Then it asks for the map. Beside the map's figures are those of the colour index
that the same answers choose. Writes suggested.md or drawn.md. Finished runs are not done again.
"""

import argparse
import dataclasses
import os
import pathlib
import time
from collections.abc import Callable
from typing import cast

import numpy as np
import rasterio
from rasterio.windows import Window

from benchmarks import page_server
from benchmarks.page_server import Server
from lgag_jax.config import Config
from lgag_jax.evaluation import colour_index, metrics
from lgag_jax.inputs.sources import Source
from lgag_jax.pages import rendering
from lgag_jax.runtime import files

LEAST_SHARE = 0.05  # Of landslide in a tile, to be called one.
_UNKNOWN = 255  # In the mask and in the map.
_QUEUE_LEAST, _QUEUE_FULL = 5, 12  # The page takes more suggestions when fewer than five are left.
_PATIENCE = 600.0  # Seconds for the server to look at all tiles.
_STAGES = ("tiles", "training", "map")


@dataclasses.dataclass(frozen=True)
class Tiles:
  """All tiles of a scene with their masks, as a source of the colour index."""

  images: list[np.ndarray]  # u8[h, w, 3]
  masks: list[np.ndarray]  # u8[h, w]
  labels: np.ndarray  # f32[n, 1]

  @property
  def ids(self) -> range:
    """Returns the numbers of the tiles."""
    return range(len(self.images))

  def read(self, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns a tile and its mask."""
    return self.images[number], self.masks[number]

  def answered(self, answers: dict[int, str], state: dict) -> "Tiles":
    """Returns the tiles with an answer but unsure, with the answers as labels."""
    chosen = [number for number, label in answers.items() if label != state["unsure"]]
    labels = [answers[number] != state["background"] for number in chosen]
    of_chosen = lambda parts: [parts[number] for number in chosen]
    return Tiles(of_chosen(self.images), of_chosen(self.masks), np.array(labels, np.float32)[:, None])


def read_tiles(scene: pathlib.Path, mask: pathlib.Path, state: dict) -> Tiles:
  """Reads the page's tiles of its only scene; the labels are whether a mask has any landslide."""
  side, images, masks = state["tile_size"], [], []
  with rasterio.open(scene) as colours, rasterio.open(mask) as truth:
    if colours.shape != truth.shape:
      raise SystemExit(f"{mask} has {truth.shape} pixels, {scene} has {colours.shape}: use one grid.")
    for _, row, col in state["tiles"]:
      window = Window(col * side, row * side, side, side)
      images.append(np.moveaxis(colours.read((1, 2, 3), window=window), 0, -1))
      valid = colours.dataset_mask(window=window) > 0
      masks.append(np.where(valid, truth.read(1, window=window), _UNKNOWN).astype(np.uint8))
  labels = np.array([(part == 1).any() for part in masks], np.float32)[:, None]
  return Tiles(images, masks, labels)


def true_answer(mask: np.ndarray, state: dict) -> str:
  """Returns what a person would say who sees the mask u8[h, w] of a tile."""
  known = mask != _UNKNOWN
  share = np.sum(mask == 1) / max(1, known.sum())
  if share >= LEAST_SHARE:
    return state["classes"][0]
  return state["unsure"] if share > 0 or 2 * known.sum() < known.size else state["background"]


def refilled(queue: list[int], suggested: list[int], answers: dict[int, str]) -> list[int]:
  """Returns the page's queue after new suggestions: it takes some once few of its tiles are left."""
  left = [number for number in queue if number not in answers]
  if len(left) >= _QUEUE_LEAST:
    return left
  added = [number for number in suggested if number not in answers and number not in left]
  return left + added[: _QUEUE_FULL - len(left)]


def follow(
  page: Server, truth: list[str], state: dict, count: int
) -> tuple[dict[int, str], list[float]]:
  """Answers suggested tiles; returns the answers, and the seconds until each was learned from."""
  answers: dict[int, str] = {}
  queue, seconds = list[int](), list[float]()
  learned = _wait(page, lambda found: found["looked_at"] == len(truth))
  while len(answers) < min(count, len(truth)):
    queue = refilled(queue, learned["suggested"], answers)
    number, begin = queue[0], time.perf_counter()
    answers[number] = truth[number]
    page.request("answers", {"version": state["version"], "answers": [[number, truth[number]]]})
    before = learned["revision"]
    learned = _wait(page, lambda found: found["revision"] > before)  # noqa: B023
    seconds.append(time.perf_counter() - begin)
  return answers, seconds


def _wait(page: Server, is_reached: Callable[[dict], bool]) -> dict:
  """Returns what was learned as soon as it is as wanted."""
  end = time.monotonic() + _PATIENCE
  while time.monotonic() < end:
    learned = page.request("learned?revision=-1")
    if learned["problem"]:
      raise SystemExit(f"The page does not learn: {learned['problem']}")
    if is_reached(learned):
      return learned
    time.sleep(0.05)
  raise SystemExit(f"Nothing was learned within {_PATIENCE:.0f} seconds.")


def drawn(truth: list[str], state: dict, counts: tuple[int, int], seed: int) -> dict[int, str]:
  """Returns answers for so many random tiles with and without landslide."""
  order, answers = np.random.default_rng(seed).permutation(len(truth)).tolist(), {}
  for label, count in zip((state["classes"][0], state["background"]), counts, strict=True):
    numbers = [number for number in order if truth[number] == label][:count]
    if len(numbers) < count:
      raise SystemExit(f"--draw: the scene has {len(numbers)} tiles of {label}, not {count}.")
    answers |= dict.fromkeys(numbers, label)
  return answers


def make_map(page: Server) -> dict[str, float]:
  """Has the page make its map; returns the seconds of each step."""
  page.request("make_map", {})
  begins, state = [time.perf_counter()], {"state": "running", "step": 0}
  while state["state"] == "running":
    time.sleep(0.2)
    state = page.request("make_map")
    begins += [time.perf_counter()] * (state["step"] + 1 - len(begins))
  if state["state"] != "done":
    raise SystemExit(f"No map was made: {state['line']}")
  return dict(zip(_STAGES, np.diff([*begins, time.perf_counter()]).tolist(), strict=True))


def judge_map(maps: pathlib.Path, mask: pathlib.Path) -> dict[str, dict[str, float]]:
  """Returns the rates of the mask over the whole scene, and of the best threshold in hindsight."""
  (mapped,), (probability,) = (list((maps / name).glob("*.tif")) for name in ("mask", "probability"))
  with rasterio.open(mapped) as m, rasterio.open(probability) as p, rasterio.open(mask) as t:
    found, percent, truth = m.read(1), p.read(1), t.read(1)
  known = (truth != _UNKNOWN) & (found != _UNKNOWN)
  lost = np.sum((truth == 1) & ~known)  # Landslide that the map has no data for is missed.
  histogram = lambda where: np.bincount(percent[where], minlength=256)[:101]
  positive, negative = (
    np.cumsum(histogram(known & (truth == value))[::-1])[::-1] for value in (1, 0)
  )
  counts = lambda tp, fp: {
    "true_positive": tp, "false_positive": fp, "false_negative": positive[0] + lost - tp,
    "true_negative": negative[0] - fp,
  }
  best = np.argmax(positive / (positive[0] + lost + negative))
  return {
    "map": metrics.rates(counts(np.sum(known & (found == 1) & (truth == 1)),
                                np.sum(known & (found == 1) & (truth == 0)))),
    "oracle": {"threshold": best / 100, **metrics.rates(counts(positive[best], negative[best]))},
  }


def measure(arguments: argparse.Namespace, seed: int) -> dict:
  """Labels and maps the scene unless it is done; returns the figures."""
  folder = arguments.output.absolute() / f"{arguments.kind}_{arguments.tile_size or 'default'}_{seed}"
  if (folder / "figures.json").exists():
    return files.read_json(folder / "figures.json")
  folder.mkdir(parents=True, exist_ok=True)
  scene = folder / f"scene_{seed}.tif"  # The page's random order depends on the name.
  if not scene.is_symlink():
    os.symlink(arguments.scene.absolute(), scene)
  flags = [f"--tile_size={arguments.tile_size}", *(["--nolearn"] if arguments.draw else [])]
  begin = time.perf_counter()
  with page_server.serve(scene, folder, *flags) as page:
    state = page.request("state")
    opened = time.perf_counter() - begin
    tiles = read_tiles(scene, arguments.mask, state)
    truth = [true_answer(mask, state) for mask in tiles.masks]
    begin, waits = time.perf_counter(), [0.0]
    if arguments.draw:
      answers = drawn(truth, state, arguments.draw, seed)
      page.request("answers", {"version": state["version"], "answers": list(answers.items())})
    else:
      answers, waits = follow(page, truth, state, arguments.answers)
    seconds = {"opening": opened, "answers": time.perf_counter() - begin, **make_map(page)}
  answered, every = cast(list[Source], [tiles.answered(answers, state), tiles])
  (index,) = colour_index.evaluate(colour_index.fit_images(answered, Config()), every, Config())
  labels = list(answers.values())
  figures = {
    "seed": seed, "tile_size": state["tile_size"], "yes": labels.count(state["classes"][0]),
    "no": labels.count(state["background"]), "unsure": labels.count(state["unsure"]),
    "seconds": seconds, "longest_wait": max(waits), "index": index,
    **judge_map(folder / "labels" / "maps", arguments.mask),
  }
  files.write_json(folder / "figures.json", figures)
  return figures


def table(rows: list[dict]) -> str:
  """Returns a line for each map, and the worst beside the median one, as Markdown."""
  lines = []
  for row in rows:
    values, index, seconds = row["map"], row["index"], row["seconds"]
    of_index = f"{index['label_free']['iou']:.3f} ({index['oracle']['iou']:.3f})" if index else "-"
    lines.append((
      row["seed"], row["tile_size"], f"{row['yes']} / {row['no']} / {row['unsure']}",
      *(f"{values[name]:.3f}" for name in ("iou", "precision", "recall")),
      f"{row['oracle']['iou']:.3f}", of_index,
      " / ".join(f"{seconds[name]:.0f}" for name in ("opening", "answers", *_STAGES)),
    ))
  ious = [row["map"]["iou"] for row in rows]
  return rendering.markdown_table((
    "seed", "tile", "yes / no / unsure", "IoU of the map", "precision", "recall", "best threshold",
    "colour index, label-free (best threshold)", "s: opening / answers / tiles / training / map",
  ), lines) + f"\n\nMedian IoU {np.median(ious):.3f}, worst {min(ious):.3f}."


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--scene", type=pathlib.Path, required=True)
  parser.add_argument("--mask", type=pathlib.Path, required=True, help="1 landslide, 255 unknown")
  parser.add_argument("--output", type=pathlib.Path, required=True)
  parser.add_argument("--tile_size", type=int, default=0, help="0: the size that the tool proposes")
  parser.add_argument("--answers", type=int, default=60, help="answers to give at most")
  parser.add_argument("--draw", type=int, nargs=2, metavar=("YES", "NO"),
                      help="answer so many random tiles, instead of those suggested")
  parser.add_argument("--seeds", type=int, nargs="+", default=[0])
  arguments = parser.parse_args()
  arguments.kind = "drawn" if arguments.draw else "suggested"
  rows = []
  for seed in arguments.seeds:
    rows.append(measure(arguments, seed))
    files.write_text(arguments.output / f"{arguments.kind}.md", f"{table(rows)}\n")
  print(table(rows))


if __name__ == "__main__":
  main()
