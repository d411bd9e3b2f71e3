"""Lets the parts of one map (--part) write an output at the same time, and no other run with them."""

import contextlib
import hashlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import IO

from lgag_jax.blocks.map_block import AreaJob
from lgag_jax.blocks.plan import Block
from lgag_jax.runtime import files, lock

PARTS = "parts"
_MAP = "map.json"  # Which map the parts are of.


@contextlib.contextmanager
def hold(job: AreaJob, blocks: Sequence[Block], part: tuple[int, int]) -> Iterator[None]:
  """Locks an output for a part of the map of `blocks`: its number, from 0, and the number of parts.

  Raises ValueError naming the owner if another process maps this part, or anything that is no part of
  the same map: a block's files could come from both.
  """
  number, count = part
  if count == 1:
    with lock.hold(job.output, "output"):
      yield
    return
  own = job.output / PARTS / f"{number + 1}_of_{count}"
  with contextlib.closing(_share(job.output, _key(job, blocks, count))), lock.hold(own, "output"):
    yield


def _share(output: pathlib.Path, key: str) -> IO[bytes]:
  """Locks an output together with other parts of the map that `key` identifies; returns the lock."""
  folder = output / PARTS
  with contextlib.closing(lock.wait_for(folder / lock.FILE_NAME, "starting a part")):
    if _recorded_key(folder / _MAP) != key:
      with contextlib.closing(lock.acquire(output, "output")):  # No part of another map is running.
        files.write_json(folder / _MAP, {"key": key})
    return lock.acquire(output, "output", shared=True)


def _key(job: AreaJob, blocks: Sequence[Block], count: int) -> str:
  """Identifies what divides blocks into parts, and what makes their maps; images may change."""
  content = "\n".join([job.maker, str(count), *(block.name for block in blocks)])
  return hashlib.sha256(content.encode()).hexdigest()


def _recorded_key(path: pathlib.Path) -> str:
  with contextlib.suppress(OSError, ValueError):
    content = files.read_json(path)
    return str(content.get("key", "")) if isinstance(content, dict) else ""
  return ""
