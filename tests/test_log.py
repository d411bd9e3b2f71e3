"""The log's lines do not depend on where a run was stopped; steps that are not finite are counted."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from lgag_jax.training.log import Log, Skips

STEPS, EVERY = 23, 5


def sums(step, skipped=False):
  value = jnp.float32(0.0 if skipped else np.sqrt(step) / 3)
  return {
    "loss": value, "examples": jnp.float32(0 if skipped else 4), "gradient_norm": value,
    "anchors": value, "skipped": jnp.float32(skipped),
  }


START = {"lines": 0, "pending": []}


def write(workdir, first, last, position, skipped=()):
  log = Log(workdir, **json.loads(json.dumps(position)))  # As a checkpoint keeps it.
  for step in range(first + 1, last + 1):
    flush = step % EVERY == 0 or step == STEPS
    log.add(step, sums(step, step in skipped), flush=flush)
  log.close()
  return log.position()


def lines(workdir):
  rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  return [{k: v for k, v in row.items() if k != "steps_per_second"} for row in rows]


@pytest.mark.parametrize("stop", [0, 1, 5, 7, 10, 14, 22])
def test_a_stop_anywhere_leaves_the_lines_as_they_would_be(tmp_path, stop):
  write(tmp_path / "whole", 0, STEPS, START)
  position = write(tmp_path / "parts", 0, stop, START)
  # The first run went on for a while after its last checkpoint, and was killed within a line.
  write(tmp_path / "parts", stop, min(stop + 8, STEPS), position)
  with (tmp_path / "parts" / "metrics.jsonl").open("a") as file:
    file.write('{"step": 2')
  write(tmp_path / "parts", stop, STEPS, position)
  assert lines(tmp_path / "parts") == lines(tmp_path / "whole")
  assert [row["step"] for row in lines(tmp_path / "whole")] == [5, 10, 15, 20, 23]


def test_means_leave_out_what_was_skipped(tmp_path):
  write(tmp_path, 0, 5, START, skipped=(2, 3))
  (row,) = lines(tmp_path)
  steps = np.sqrt([1, 4, 5]) / 3
  assert row["skipped_steps"] == 2
  np.testing.assert_allclose(row["loss"], steps.sum() / 12, rtol=1e-6)
  np.testing.assert_allclose(row["gradient_norm"], steps.mean(), rtol=1e-6)


def test_a_line_of_skipped_steps_alone_claims_no_loss(tmp_path):
  write(tmp_path, 0, 10, START, skipped=range(6, 11))
  first, second = lines(tmp_path)
  assert first["loss"] > 0
  assert second == {"step": 10, "split": "train", "skipped_steps": 5}


IDS = [f"image{i}" for i in range(600)]


def feed(skips, step, skipped, *, check=False):
  skips.add(step, np.array([2 * step, 2 * step + 1]), jnp.float32(skipped), check=check)


def test_too_many_skipped_in_a_row_end_the_run_and_name_the_first_images():
  skips = Skips(IDS, 3, [])
  for step in (1, 2, 3):
    feed(skips, step, 1.0)
  feed(skips, 4, 0.0, check=True)  # Three in a row are borne.
  for step in (5, 6, 7):
    feed(skips, step, 1.0, check=True)
  with pytest.raises(ValueError, match=r"4 steps in a row, from 5 on.*image10, image11\. Look"):
    feed(skips, 8, 1.0, check=True)


def test_a_row_that_ends_before_it_is_looked_at_counts_too():
  skips = Skips(IDS, 3, [])
  for step in range(1, 100):
    feed(skips, step, float(20 <= step < 24))
  with pytest.raises(ValueError, match="4 steps in a row, from 20 on"):
    skips.position()


def test_a_row_goes_on_where_a_run_stopped():
  skips = Skips(IDS, 3, [])
  for step in (1, 2):
    feed(skips, step, 1.0)
  again = Skips(IDS, 3, json.loads(json.dumps(skips.position())))
  feed(again, 3, 1.0, check=True)
  with pytest.raises(ValueError, match=r"from 1 on.*image2, image3"):
    feed(again, 4, 1.0, check=True)
