"""Examples that the evaluation keeps for the report."""

import numpy as np
from PIL import Image

from lgag_jax.imagery import scaling
from lgag_jax.inference.localize import Maps
from lgag_jax.inputs.split import Split
from lgag_jax.runtime import processes

_COUNT = 24


class Panels:
  """Keeps a few examples, evenly spread over the positives and negatives, for the report."""

  def __init__(self, split: Split, rgb_bands: tuple[int, ...]):
    self._split, self._rgb_bands = split, rgb_bands
    positive = split.source.labels.max(axis=1) > 0
    chosen = []
    for members, count in (
      (np.flatnonzero(positive), _COUNT * 3 // 4), (np.flatnonzero(~positive), _COUNT // 4)
    ):
      count = min(count, len(members))
      chosen += [int(members[i * len(members) // count]) for i in range(count)]
    self._chosen = set(chosen)
    self._rows: list[dict] = []

  def add(self, index, real, scores, mask, maps: Maps) -> None:
    """Takes the chosen ones of this process's rows of a batch."""
    for i in np.flatnonzero(real):
      if int(index[i]) in self._chosen:
        # As the file has it: a picture wants no normalisation.
        pixels, _ = self._split.source.read(int(index[i]))
        image = Image.fromarray(scaling.picture(pixels, self._rgb_bands))
        self._rows.append({
          "index": index[i], "id": self._split.source.ids[int(index[i])],
          "image": np.asarray(image.resize(mask[i].shape[::-1], Image.Resampling.BILINEAR)),
          "truth": mask[i], "seeds": maps.seeds[i],
          "probability": maps.probabilities[i],
          **{name: np.float16(values[i]) for name, values in scores.items()},
        })

  def arrays(self) -> dict[str, np.ndarray]:
    """Returns the rows of all processes as stacked arrays, in the order of the examples."""
    names = self._rows[0] if self._rows else ()
    rows = processes.gather({name: np.stack([row[name] for row in self._rows]) for name in names})
    order = np.argsort(rows.pop("index", []))
    return {name: values[order] for name, values in rows.items()}
