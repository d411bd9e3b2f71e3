"""The speed benchmark: its arithmetic, its tables, and a tiny measurement."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from benchmarks import programs
from benchmarks.speed import __main__ as speed
from benchmarks.speed import plan, tables, timing, trunks
from lgag_jax import config as configs

ROOT = pathlib.Path(__file__).parent.parent
RESULT = {
  "step_s": 0.25, "images_per_s": 32.0, "compile_cold_s": 4.0, "compile_warm_s": None,
  "temp_mib": 1234.5, "peak_mib": 2000.0, "flops": 5e9, "bytes_accessed": 1e9,
  "share_of_product": 0.4, "step_per_product": 2.0,
}


def cells(line):
  return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]


def test_ratio_is_the_median_of_the_pairs():
  assert timing.paired_ratio([2.0, 3.0, 100.0], [1.0, 2.0, 10.0]) == 2.0
  with pytest.raises(ValueError, match="no pairs"):
    timing.paired_ratio([1.0], [])
  with pytest.raises(ValueError, match="1 and 2"):
    timing.paired_ratio([1.0], [1.0, 2.0])


def test_functions_take_turns():
  calls = []
  times = timing.interleaved({name: lambda n=name: calls.append(n) for name in "ab"}, repeats=3)
  assert calls == ["a", "b"] * 4
  assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3}
  assert all(value >= 0 for values in times.values() for value in values)


def test_time_asked_for_adds_rounds_up_to_a_bound():
  times = timing.interleaved({"a": lambda: None}, repeats=2, at_least_s=60.0)
  assert len(times["a"]) == 20


def test_machine_record():
  record = timing.machine()
  assert record["cores"] >= 1 and record["cpu"] and record["jax"] and record["date"][:2] == "20"
  assert json.loads(json.dumps(record)) == record
  assert timing.peak_mib() > 10


def test_cpu_name(tmp_path):
  path = tmp_path / "cpuinfo"
  path.write_text("cpu family\t: 25\nmodel\t\t: 17\nmodel name\t: A\n\nmodel name\t: B\n")
  assert timing.cpu_name(path) == "A (cpu family 25, model 17)"
  assert timing.cpu_name(tmp_path / "none")


def test_environment_is_the_same_for_all(monkeypatch):
  monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/somewhere")
  environment = timing.environment()
  assert environment["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
  assert "JAX_COMPILATION_CACHE_DIR" not in environment
  monkeypatch.setenv("GLIBC_TUNABLES", "own")
  assert timing.environment()["GLIBC_TUNABLES"] == "own"


def test_table_shows_numbers_dashes_and_failures():
  good = {"labels": {"method": "sol", "batch": 8}, "result": RESULT}
  bad = {"labels": {"method": "lgag", "batch": 8}, "error": "a | b"}
  head, rule, first, second = tables.table("steps", [good, bad]).splitlines()
  assert len(cells(head)) == len(cells(rule)) == len(cells(first)) == len(cells(second))
  row = dict(zip(cells(head), cells(first), strict=True))
  assert (row["step ms"], row["warm"], row["GFLOP"]) == ("250.0", "-", "5.00")
  assert (row["temporary MiB"], row["of a product's FLOP/s"]) == ("1,234", "40%")
  assert cells(second)[2] == r"failed: a \| b"


def test_scaling_is_relative_to_one_device():
  def case(devices, batch, time):
    return {"labels": {"devices": devices, "batch": batch}, "result": {"step_per_product": time}}

  cases = [case(1, 8, 2.0), case(4, 8, 3.0), case(1, 2, 1.0), {**case(2, 8, 0), "error": "x"}]
  del cases[-1]["result"]
  rows = tables.with_scaling(cases)
  assert [row["result"]["strong"] for row in rows[:3]] == [1.0, 1.5, 1.0]
  assert [row["result"]["weak"] for row in rows[:3]] == [1.0, 3.0, 1.0]
  assert "result" not in rows[-1]


def test_torch_ratios_take_the_best_form_of_each_round():
  rounds = [
    {"ours": 6.0, "contiguous": 3.0, "channels_last": 4.0, "compiled": 5.0},
    {"ours": 6.0, "contiguous": 6.0, "channels_last": 2.0, "compiled": 1.0},
    {"ours": 6.0, "contiguous": 4.0, "channels_last": 5.0, "compiled": 4.0},
  ]
  assert tables.torch_ratios(rounds) == {"to_plain": 1.5, "to_best": 1.2}
  not_compiled = [{side: r[side] for side in ("ours", "contiguous", "channels_last")} for r in rounds]
  assert tables.torch_ratios(not_compiled)["to_best"] == 1.2


def test_torch_table_says_why_nothing_was_compiled():
  result = {
    "rounds": [{"ours": 2.0, "contiguous": 4.0, "channels_last": 5.0}], "to_plain": 0.5, "to_best": 0.4,
    "parameters": 7, "flops": 2e9, "not_compiled": "no compiler",
  }
  text = tables.table("torch", [{"labels": {"trunk": "a"}, "result": result}])
  assert "2.0 / 4.0 / 5.0 / -; not compiled: no compiler" in text


def test_differing_parameters_and_flops_are_named():
  def side(flops=1000, **parameters):
    return {"parameters": parameters, "flops": flops}

  speed.check_same(side(a=[1, 2]), side(a=[1, 2], flops=1001))
  with pytest.raises(speed.Failed, match=r"2 parameters differ.*b \[1\] None"):
    speed.check_same(side(a=[1, 2], b=[1]), side(a=[2, 1]))
  with pytest.raises(speed.Failed, match="1,000 FLOPs, not PyTorch's 1,010"):
    speed.check_same(side(a=[1, 2]), side(a=[1, 2], flops=1010))
  assert speed.count({"a": [2, 3], "b": [4]}) == 10


def test_trunks_are_counted_as_they_are_asked_for():
  # A ViT of 16 patches and a class token: its patches, its 12 blocks, and positions of 37 x 37.
  blocks = 12 * (17 * 12 * 384**2 + 2 * 17**2 * 384)
  positions = 4 * 37 * (37 + 4) * 384
  patches = 16 * 14 * 14 * 3 * 384
  assert trunks.forward_flops("dinov2_vits14", 2, 56) == 2 * (2 * (blocks + patches) + positions)
  resnet, quarter = (trunks.forward_flops("resnet50", 1, side) for side in (128, 64))
  assert resnet == 4 * quarter


@pytest.mark.parametrize("quick", [False, True])
def test_every_planned_config_is_valid(quick, tmp_path):
  for section in tables.SECTIONS:
    cases = plan.cases(section, quick=quick, output=tmp_path)
    assert cases, section
    for settings in (case["settings"] for case in cases):
      assert json.loads(json.dumps(settings)).keys() == settings.keys()
      for method in settings.get("methods", [settings.get("method")]):
        if method:
          config = programs.named(settings["file"], method, settings["changes"])
          flat = configs.config_dict(config)
          for field, value in settings["changes"].items():
            group, name = field.split(".")
            assert json.dumps(flat[group][name]) == json.dumps(value), field


def test_a_failing_case_is_its_last_line():
  with pytest.raises(speed.Failed, match=r"^ValueError: no such thing$"):
    speed.call([sys.executable, "-c", "raise ValueError('no such thing')"], quick=True)
  with pytest.raises(speed.Failed, match="more than 0 s"):
    speed.call([sys.executable, "-c", "import time; time.sleep(60)"], quick=True, limit_s=0.2)


def test_growth_table_names_what_changed(tmp_path):
  cases = plan.cases("growth", quick=True, output=tmp_path)
  text = tables.table("growth", [{**case, "result": RESULT} for case in cases])
  assert cases and all(case["labels"]["changed"] in text for case in cases)


@pytest.mark.longest
def test_steps_section_from_the_command_line(tmp_path):
  (tmp_path / "speed.json").write_text('{"sections": {}}')
  command = [sys.executable, "-m", "benchmarks.speed", "--quick", "--only", "steps"]
  done = subprocess.run(
    [*command, f"--output={tmp_path}"], cwd=ROOT, env=os.environ, text=True, capture_output=True,
    timeout=300, check=False,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  section = json.loads((tmp_path / "speed.json").read_text())["sections"]["steps"]
  (case,) = section["cases"]
  result = case["result"]
  assert result["compile_warm_s"] < result["compile_cold_s"]
  assert result["flops"] > 0 and result["step_s"] > 0 and result["temp_mib"] > 0
  assert result["share_of_product"] < 2
  assert len(result["times"]["step"]) == len(result["times"]["product"]) == 2
  assert "Quick" in (tmp_path / "speed.md").read_text()
