"""The benchmark of one accelerator, rehearsed on a CPU with its smallest sizes."""

import json
import sys

import pytest

from benchmarks import gpu, programs
from benchmarks.speed.__main__ import Failed


@pytest.mark.parametrize("quick", [False, True])
def test_every_planned_config_is_valid(quick):
  cases = gpu.plan(quick)
  assert {case["kind"] for case in cases} >= {"agreement", "step", "mapping", "two"}
  for case in cases:
    assert case["precision"] in gpu._TOLERANCE
    if "changes" in case:
      programs.named(case["file"], case["method"], case["changes"])


@pytest.mark.longest
def test_it_runs_on_a_cpu_and_agrees_with_itself(tmp_path, monkeypatch):
  monkeypatch.setattr(sys, "argv", ["gpu", "--quick", f"--output={tmp_path}"])
  with pytest.raises(SystemExit) as end:
    gpu.main()
  record = json.loads((tmp_path / "gpu.json").read_text())
  assert end.value.code == 0, [case.get("error") for case in record["cases"]]
  kinds = [case["kind"] for case in record["cases"]]
  assert kinds == [case["kind"] for case in gpu.plan(True)]
  agreement = record["cases"][0]["result"]
  assert agreement["platform"] == "cpu" and agreement["loss_difference"] == 0.0
  assert "images/s" in record["cases"][-1]["result"]["second"]
  page = (tmp_path / "gpu.md").read_text()
  assert "as on the CPU" in page and "MP/s" in page and "Everything was run." in page


def test_what_fails_or_has_no_time_is_named_and_the_rest_goes_on(tmp_path, monkeypatch):
  clock = [0.0]
  def run(case, *, quick, limit_s):
    if case["kind"] == "step":
      raise Failed("RESOURCE_EXHAUSTED: out of memory | 3 GiB")
    if case["kind"] == "agreement":
      return {"loss_difference": 0.5, "map_difference": 0.0}
    clock[0] = 1000.0  # All time is used up.
    return {"megapixels_per_s": 12.3, "device_peak_mib": 1234.5}

  monkeypatch.setattr(gpu, "run", run)
  monkeypatch.setattr(gpu.time, "monotonic", lambda: clock[0])
  monkeypatch.setattr(gpu, "_device", lambda quick: "1 x GPU (cuda)")
  monkeypatch.setattr(sys, "argv", ["gpu", "--quick", f"--output={tmp_path}"])
  with pytest.raises(SystemExit) as end:
    gpu.main()
  page = (tmp_path / "gpu.md").read_text()
  assert end.value.code == 1
  assert "**failed**: RESOURCE_EXHAUSTED: out of memory / 3 GiB" in page
  assert "**differs from the CPU**: losses within 5.0e-01" in page
  assert "12.3 MP/s | 1,234" in page
  assert "No time was left for: two processes at once." in page
