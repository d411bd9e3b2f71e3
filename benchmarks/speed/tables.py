"""The tables of benchmarks.speed: from what its JSON holds to Markdown, by pure functions."""

import statistics
from collections.abc import Callable, Mapping, Sequence

from benchmarks.speed.timing import TUNABLES
from lgag_jax.pages import rendering

Columns = Sequence[tuple[str, Callable[[dict], str]]]

_NOTES = {
  "steps": (
    "One training step on random weights and noise, the bank full and ready, contrast on. Times are "
    "medians; the step takes turns with a 2048 x 2048 matrix product, f32, and the last column is "
    "the step's FLOPs a second as a share of that product's. FLOPs are those the step asks for, "
    "before XLA optimises; bytes are XLA's count of the compiled program, which takes a loop's body "
    "once. Compile times include tracing; warm is from programs kept on disk. Kept outputs are what "
    "a run with a frozen trunk trains on after the first pass; FLOPs are then the head's alone."
  ),
  "added": (
    "What SOL, GAA and the losses add to class activation alone, which takes turns with them in one "
    "process: the median of the pairs' ratios."
  ),
  "input": (
    "The pipeline alone, images a second: its first pass decodes PNG tiles (with kept trunk outputs: "
    "masks are made, outputs read), later ones have them in memory. Filling is trunk and decoding "
    "together, once. The step alone uses the same cores: the ratio says how many times faster the "
    "pipeline is. In the loop of both, waiting is the share of time in which no batch was ready."
  ),
  "scaling": (
    "Virtual devices share the cores named above: with as many devices as cores or more, this shows "
    "what splitting costs, not what it gains. Relative: time of a step, in units of the matrix "
    "product measured between the steps, against one device's: strong scaling with the same batch "
    "over all, weak scaling with the same batch a device. On these cores an overhead of nothing is "
    "1.00 in strong scaling, and the number of devices in weak scaling."
  ),
  "growth": (
    "One training step of the default form on kept trunk outputs, one setting changed at a time."
  ),
  "torch": (
    "Gradients of all of a trunk's parameters of mean(square(last tap)), stored batch norm "
    "statistics, f32, images a second. GFLOP are those of the forward pass's products. Processes of "
    "both sides take turns; ratios are medians over the rounds, ours over PyTorch's: against its "
    "plain form, and against the best of plain, channels last and compiled, round by round."
  ),
  "start": (
    "Seconds from a process's start to the end of each phase, data prepared. Cold: nothing kept. The "
    "first step includes its compilation. SIGTERM ends the training then."
  ),
}


def report(record: Mapping) -> str:
  """Returns the whole page."""
  parts = ["# Speed", "Written by `python -m benchmarks.speed`; all numbers are in speed.json."]
  for name, section in record["sections"].items():
    parts += [f"## {name}", _NOTES[name], _circumstances(section)]
    if "not_run" in section:
      parts.append(f"Not run: {section['not_run']}")
    else:
      parts.append(table(name, section["cases"]))
  return "\n\n".join(parts) + "\n"


def _circumstances(section: Mapping) -> str:
  m = section["machine"]
  loads = ", ".join(
    f"{when} {'/'.join(f'{x:.1f}' for x in section[key])}"
    for when, key in (("before", "load_before"), ("after", "load_after")) if section.get(key)
  )
  quick = " **Quick: sizes so small that the numbers mean nothing.**" if section["quick"] else ""
  return (
    f"{m['cpu']}, {m['cores']} cores, {m['memory_gib']} GiB; jax {m['jax']}, Python {m['python']}; "
    f"{TUNABLES}={m[TUNABLES]}; {m['date']}; load averages {loads}; {section['seconds']:.0f} s.{quick}"
  )


def table(name: str, cases: Sequence[dict]) -> str:
  """Returns a section's table; a case that failed has its error in place of numbers."""
  if name == "scaling":
    cases = with_scaling(cases)
  if name in ("added", "start"):
    cases = [row for case in cases for row in _spread(name, case)]
  columns = _COLUMNS[name]
  labels = list(cases[0]["labels"])
  rows = []
  for case in cases:
    cells = [str(case["labels"].get(label, "-")) for label in labels]
    if "error" in case:
      values = [f"failed: {case['error']}", *[""] * (len(columns) - 1)]
    else:
      values = [cell(case["result"]) for _, cell in columns]
    rows.append([*cells, *values])
  return rendering.markdown_table([*labels, *(title for title, _ in columns)], rows)


def number(value: float | None, digits: int = 0) -> str:
  """Returns a number with separators, or a dash where there is none."""
  return "-" if value is None else f"{value:,.{digits}f}"


def _value(key: str, digits: int = 0, scale: float = 1.0) -> Callable[[dict], str]:
  return lambda result: number(None if result.get(key) is None else result[key] * scale, digits)


def _share(key: str, digits: int = 0) -> Callable[[dict], str]:
  return lambda result: "-" if result.get(key) is None else f"{result[key]:.{digits}%}"


def _spread(name: str, case: dict) -> list[dict]:
  """Returns a row a method (`added`) or a kind of start (`start`) of a case."""
  if "error" in case:
    return [case]
  result = case["result"]
  if name == "start":
    return [
      {"labels": {**case["labels"], "start": kind}, "result": phases}
      for kind, phases in result.items() if isinstance(phases, dict)
    ]
  return [
    {
      "labels": {**case["labels"], "method": method},
      "result": {key: result[key][method] for key in ("step_s", "flops", "added_flops", "added_time")},
    }
    for method in result["flops"]
  ]


def with_scaling(cases: Sequence[dict]) -> list[dict]:
  """Returns the cases with relative times: to one device with the same batch, or the same a device."""
  done = {
    (case["labels"]["devices"], case["labels"]["batch"]): case["result"]["step_per_product"]
    for case in cases if "result" in case
  }
  rows = []
  for case in cases:
    devices, batch = case["labels"]["devices"], case["labels"]["batch"]
    relative = {
      "strong": done.get((1, batch)),
      "weak": done.get((1, batch // devices)),
    }
    if "result" in case:
      own = case["result"]["step_per_product"]
      ratios = {name: None if base is None else own / base for name, base in relative.items()}
      case = {**case, "result": {**case["result"], **ratios}}
    rows.append(case)
  return rows


TORCH_FORMS = {  # By name: the layout.
  "contiguous": "contiguous", "channels_last": "channels_last", "compiled": "channels_last",
}


def torch_ratios(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
  """Returns medians of our images/s over PyTorch's, of rounds {ours, contiguous, ...}."""
  plain = [r["ours"] / r["contiguous"] for r in rounds]
  best = [r["ours"] / max(r[form] for form in TORCH_FORMS if form in r) for r in rounds]
  return {"to_plain": statistics.median(plain), "to_best": statistics.median(best)}


def _rounds(result: dict) -> str:
  sides = ("ours", *TORCH_FORMS)
  text = "; ".join(" / ".join(number(r.get(side), 1) for side in sides) for r in result["rounds"])
  return text + (f"; not compiled: {result['not_compiled']}" if result["not_compiled"] else "")


_TIMES = (("step ms", _value("step_s", 1, 1e3)), ("images/s", _value("images_per_s", 1)))
_MEMORY = (("temporary MiB", _value("temp_mib")), ("peak MiB", _value("peak_mib")))
_COLUMNS: dict[str, Columns] = {
  "steps": (
    *_TIMES, ("compile s, cold", _value("compile_cold_s", 1)), ("warm", _value("compile_warm_s", 1)),
    *_MEMORY, ("GFLOP", _value("flops", 2, 1e-9)), ("GB accessed", _value("bytes_accessed", 2, 1e-9)),
    ("of a product's FLOP/s", _share("share_of_product")),
  ),
  "added": (
    ("step ms", _value("step_s", 1, 1e3)), ("GFLOP", _value("flops", 2, 1e-9)),
    ("FLOPs added", _share("added_flops", 1)), ("time added", _share("added_time", 1)),
  ),
  "input": (
    ("filling", _value("fill_images_per_s", 1)), ("first pass", _value("first_images_per_s")),
    ("later passes", _value("later_images_per_s")), ("step", _value("step_images_per_s", 1)),
    ("first pass / step", _value("first_ratio", 1)), ("later / step", _value("ratio", 1)),
    ("loop", _value("loop_images_per_s", 1)), ("waiting", _share("waiting_share", 1)),
  ),
  "scaling": (
    *_TIMES, ("strong: relative", _value("strong", 2)), ("weak: relative", _value("weak", 2)),
    ("compile s", _value("compile_cold_s", 1)), *_MEMORY,
  ),
  "growth": (
    *_TIMES, ("GFLOP", _value("flops", 2, 1e-9)), *_MEMORY,
    ("compile s", _value("compile_cold_s", 1)),
  ),
  "torch": (
    ("parameters", _value("parameters")), ("GFLOP", _value("flops", 2, 1e-9)),
    ("ours / plain", _value("to_plain", 2)), ("ours / best", _value("to_best", 2)),
    ("rounds: ours / plain / channels last / compiled", _rounds),
  ),
  "start": (
    ("data opened", _value("data_opened_s", 1)),
    ("trunk outputs, training", _value("train_features_s", 1)),
    ("validation", _value("validation_features_s", 1)), ("first step", _value("first_step_s", 1)),
  ),
}
SECTIONS = tuple(_COLUMNS)
