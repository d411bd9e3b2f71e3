"""What a compiled program holds, read from its HLO text: collectives, products, aliased buffers."""

import re
from typing import NamedTuple

_BYTES = {
  "pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4,
  "s64": 8, "u64": 8, "f64": 8,
}
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_COLLECTIVE = re.compile(
  r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?\("
)


class Collective(NamedTuple):
  """One exchange between devices."""

  kind: str
  arrays: int  # How many arrays travel in it.
  bytes: int  # Of its result on one device.


def collectives(text: str) -> list[Collective]:
  """Lists the collectives of a partitioned HLO module's text, in the order of the text."""
  found = {}
  for line in text.splitlines():
    if match := _COLLECTIVE.search(line):
      arrays = _ARRAY.findall(match[1])
      if match[3] and match[1].startswith("(") and match[2] != "all-reduce":
        # An exchange that is begun names its operands before its results; then what tells its end.
        arrays = [array for array in arrays if array != ("u32", "")]
        arrays = arrays[len(arrays) // 2 :]
      shapes = [array_bytes(kind, dims) for kind, dims in arrays]
      # A TPU program spells out one exchange several times, where it overlaps with other work.
      channel = re.search(r"channel_id=\d+", line)
      found[channel[0] if channel else line] = Collective(match[2], len(shapes), sum(shapes))
  return list(found.values())


def array_bytes(kind: str, dims: str) -> int:
  """Returns the bytes of an array such as ("f32", "8,16"); raises KeyError for a type it lacks."""
  size = _BYTES[kind]
  for length in filter(None, dims.split(",")):
    size *= int(length)
  return size
