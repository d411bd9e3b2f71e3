"""The benchmark of pairs counts new and old landslides of both dates."""

import types

import numpy as np
import pytest

import lgag_jax
from benchmarks import pairs as benchmark
from data.synthetic_landslides import pairs

SIZE, COUNT = 256, 3


@pytest.mark.parametrize("paired", [True, False])
def test_shares_are_those_of_all_pixels_together(monkeypatch, tmp_path, paired):
  seen, drawn = [], []

  def draw(seed, **options):
    drawn.append(pairs.draw_patch(seed, **options))
    return drawn[-1]

  def predict(after, options, before=None):
    """Maps what is new, and the upper half of what is old."""
    pair = drawn[-1]
    seen.append(before is not None)
    np.testing.assert_array_equal(after, pair.after)
    upper = np.arange(SIZE)[:, None] < SIZE // 2
    return types.SimpleNamespace(mask=np.uint8((pair.mask == 1) | ((pair.old == 1) & upper)))

  config = types.SimpleNamespace(data=types.SimpleNamespace(image_size=SIZE, paired=paired))
  monkeypatch.setattr(
    lgag_jax, "load", lambda workdir: types.SimpleNamespace(config=config, predict=predict)
  )
  monkeypatch.setattr(benchmark, "pairs", types.SimpleNamespace(draw_patch=draw))
  found = benchmark.shares(tmp_path, max_shift=1, patches=COUNT)
  assert seen == [paired] * COUNT
  new = sum(np.sum(p.mask == 1) for p in drawn)
  old = sum(np.sum(p.old == 1) for p in drawn)
  wrong = sum(np.sum(p.old[: SIZE // 2] == 1) for p in drawn)
  assert old > 0 and found == {"iou": new / (new + wrong), "old": wrong / old}


def test_the_table_has_mean_and_spread_of_each_input():
  row = {"dates": "both dates", "iou": 0.5, "oracle": 0.6, "auc": 0.9, "old": 0.02, "shifted": 0.4}
  text = benchmark.table([{**row, "seed": 0}, {**row, "seed": 1, "iou": 0.7}])
  assert "| both dates | 2 | 0.600 ± 0.100 | 0.600 ± 0.000 | 0.900 ± 0.000 | 0.400 ± 0.000 |" in text
  assert "image after alone" not in text
