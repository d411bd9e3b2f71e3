"""Where a trunk's forward and backward time goes on this machine, by kind of operation.

python -m benchmarks.speed.profile --trunk=resnet50
"""

import argparse
import collections
import pathlib
import re
import tempfile

import jax
import jax.numpy as jnp

from lgag_jax.trunks.pretrained import TRUNKS

_NAME = re.compile(r'op_name="([^"]*)"')


def compiled_trunk(trunk: str, batch: int, side: int):
  """Returns the compiled gradients of all of a trunk's parameters, and their arguments."""
  options = {"depthwise": "shift"} if trunk == "efficientnet_lite0" else {}
  module = TRUNKS[trunk](**options)
  images = jax.random.uniform(jax.random.key(0), (batch, side, side, 3))
  variables = jax.jit(module.init)(jax.random.key(1), images[:1, :64, :64])

  def loss(params, statistics, x):
    outputs = module.apply({"params": params, "batch_stats": statistics}, x)
    return jnp.mean(jnp.square(outputs[-1]))

  arguments = (variables["params"], variables["batch_stats"], images)
  return jax.jit(jax.value_and_grad(loss)).lower(*arguments).compile(), arguments


def kind_of(name: str, shape: str, source: str) -> str:
  """Names the kind of an operation of a compiled program."""
  backward = "backward" if "transpose(" in source else "forward"
  if "convolution" in name or "conv_general" in source:
    return f"k x k convolutions, {backward}"
  if name.startswith(("ynn_fusion", "dot")) and "dot_general" in source:
    return f"1 x 1 convolutions, {backward}"
  if name.startswith("ynn_fusion") and re.match(r"f32\[\d+,\d,\d,\d+\]", shape):
    return "k x k convolutions, gradients of kernels"
  if name.startswith(("transpose", "copy")):
    return "transposing and copying"
  return "element-wise passes and small sums"


def milliseconds(trunk: str, batch: int, side: int) -> dict[str, float]:
  """Profiles one step; returns the milliseconds of each kind, of the time the main thread is busy."""
  compiled, arguments = compiled_trunk(trunk, batch, side)
  jax.block_until_ready(compiled(*arguments))
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      jax.block_until_ready(compiled(*arguments))
    (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
    data = jax.profiler.ProfileData.from_file(str(path))
  operations = {}
  for line in str(compiled.as_text()).splitlines():
    if match := re.match(r"\s*(?:ROOT )?%?([\w.\-]+) = (\S+) [\w\-]+\(", line):
      source = _NAME.search(line)
      operations.setdefault(match[1], (match[2], source[1] if source else ""))
  totals = collections.Counter()
  for plane in data.planes:
    for line in plane.lines:
      for event in line.events:
        if event.name in operations:
          totals[kind_of(event.name, *operations[event.name])] += event.duration_ns / 1e6
  return dict(totals.most_common())


def main() -> None:
  parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
  parser.add_argument("--trunk", choices=sorted(TRUNKS), default="resnet50")
  parser.add_argument("--batch", type=int, default=8)
  parser.add_argument("--side", type=int, default=256)
  arguments = parser.parse_args()
  times = milliseconds(arguments.trunk, arguments.batch, arguments.side)
  total = sum(times.values())
  for kind, time in times.items():
    print(f"{time:8.1f} ms {time / total:6.1%}  {kind}")


if __name__ == "__main__":
  main()
