"""Example images that the evaluation keeps for the report."""

import numpy as np
from PIL import Image

from lgag_jax.imagery import scaling
from lgag_jax.inference.localize import Maps
from lgag_jax.inputs.split import Split
from lgag_jax.runtime import processes

_COUNT = 24


class ReportExamples:
  """Collects a few positive and negative images at even intervals, with their maps and masks."""

  def __init__(self, split: Split, rgb_bands: tuple[int, ...]):
    self._split, self._rgb_bands = split, rgb_bands
    positive = split.source.labels.max(axis=1) > 0
    self._indices: set[int] = set()
    for members, count in (
      (np.flatnonzero(positive), _COUNT * 3 // 4), (np.flatnonzero(~positive), _COUNT // 4)
    ):
      count = min(count, len(members))
      self._indices |= {int(members[i * len(members) // count]) for i in range(count)}
    self._rows: list[dict] = []

  def add(self, batch: dict, real: np.ndarray, scores: dict[str, np.ndarray], maps: Maps) -> None:
    """Adds the selected images of this process's batch; `real`, bool[B], is False for padding."""
    for i in np.flatnonzero(real):
      index, mask = int(batch["index"][i]), batch["mask"][i]
      if index in self._indices:
        # The picture shows the file's values, not the normalised ones.
        pixels, _ = self._split.source.read(index)
        image = Image.fromarray(scaling.picture(pixels, self._rgb_bands))
        self._rows.append({
          "index": index, "id": self._split.source.ids[index],
          "image": np.asarray(image.resize(mask.shape[::-1], Image.Resampling.BILINEAR)),
          "truth": mask, "seeds": maps.seeds[i], "probability": maps.probabilities[i],
          **{name: np.float16(values[i]) for name, values in scores.items()},
        })

  def arrays(self) -> dict[str, np.ndarray]:
    """Returns the rows of all processes as stacked arrays, in the order of the images; {} if none."""
    names = self._rows[0] if self._rows else ()
    rows = processes.gather({name: np.stack([row[name] for row in self._rows]) for name in names})
    order = np.argsort(rows.pop("index", []))
    return {name: values[order] for name, values in rows.items()}
