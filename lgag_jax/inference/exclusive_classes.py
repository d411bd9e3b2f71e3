"""Which class a pixel belongs to: one at most, that furthest above its own threshold."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def exclusive(scores: Any, thresholds: Any) -> Any:
  """Keeps in each pixel the score that lies furthest above its threshold, or least below; others are 0.

  `scores` are f32[..., C] and `thresholds` f32[C], NumPy's or JAX's. What reaches its
  threshold afterwards is what `drawn` draws.
  """
  if scores.shape[-1] == 1:
    return scores
  margin = scores - thresholds - np.float32(2) * (scores <= 0)  # What scores nothing comes last.
  best = margin.argmax(-1)
  return scores * (best[..., None] == np.arange(scores.shape[-1]))


def drawn(scores: Any, thresholds: Sequence[float] | np.ndarray) -> Any:
  """Returns u8[...]: the class, from 1, of scores [..., C]; 0 where none reaches its threshold."""
  margin = scores - np.asarray(thresholds, np.float32)
  reached = (margin >= 0) & (scores > 0)
  if scores.shape[-1] == 1:
    return reached[..., 0].astype(np.uint8)
  best = (margin - np.float32(4) * ~reached).argmax(-1) + 1  # Margins lie in [-1, 1].
  return (best * reached.any(-1)).astype(np.uint8)
