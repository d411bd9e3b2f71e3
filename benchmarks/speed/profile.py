"""Where a trunk's forward and backward time goes on this machine, by kind of operation.

python -m benchmarks.speed.profile --trunk=resnet50
"""

import argparse
import collections
import pathlib
import re
import tempfile

import jax

from benchmarks.speed import trunks
from lgag_jax.trunks.pretrained import TRUNKS

_NAME = re.compile(r'op_name="([^"]*)"')


def kind_of(name: str, shape: str, source: str) -> str:
  """Names the kind of an operation of a compiled program."""
  backward = "backward" if "transpose(" in source else "forward"
  if "/attention/" in source or "/mlp/" in source:
    return f"{_kind_in_block(name, source)}, {backward}"
  if re.search(r"/norm[12]/", source):
    return f"layer norms, {backward}"
  if "convolution" in name or "conv_general" in source:
    return f"k x k convolutions, {backward}"
  if name.startswith(("ynn_fusion", "dot")) and "dot_general" in source:
    return f"1 x 1 convolutions, {backward}"
  if name.startswith("ynn_fusion") and re.match(r"f32\[\d+,\d,\d,\d+\]", shape):
    return "k x k convolutions, gradients of kernels"
  if name.startswith(("transpose", "copy")):
    return "transposing and copying"
  return "element-wise passes and small sums"


def _kind_in_block(name: str, source: str) -> str:
  """Names the kind of an operation of a Vision Transformer's attention or MLP."""
  layer = re.search(r"/(?:attention|mlp)/(query|key|value|output|fc\d|weights_\w+)/", source)
  if layer and (name.startswith("dot") or "dot_general" in source):
    return "products of tokens and kernels"
  if name.startswith(("transpose", "copy")):
    return "transposing and copying in blocks"
  if "/mlp/" in source:
    return "GELU" if not layer else "biases and their sums"
  if name.startswith("dot"):
    return "products of attention"
  return "softmax, with the products fused into it" if not layer else "biases and their sums"


def milliseconds(trunk: str, batch: int, side: int) -> dict[str, float]:
  """Profiles one step; returns the milliseconds of each kind, of the time the main thread is busy."""
  compiled, arguments = trunks.gradients(trunk, batch, side)
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
  parser.add_argument("--side", type=int, help="of the image; by default 16 of the trunk's strides")
  arguments = parser.parse_args()
  side = arguments.side or 16 * trunks.build(arguments.trunk, "conv").output_stride
  times = milliseconds(arguments.trunk, arguments.batch, side)
  total = sum(times.values())
  for kind, time in times.items():
    print(f"{time:8.1f} ms {time / total:6.1%}  {kind}")


if __name__ == "__main__":
  main()
