"""Maps blocks one after the other in this process: reads the next one while the network runs."""

import collections
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from lgag_jax.blocks import map_block
from lgag_jax.blocks.block_arrays import Network
from lgag_jax.blocks.map_block import AreaJob
from lgag_jax.blocks.plan import Block
from lgag_jax.runtime import files, preemption


def run(
  job: AreaJob, blocks: Sequence[Block], network: Network, attempts: int,
  done: Callable[[Block, Exception | None], None],
) -> None:
  """Maps blocks, and calls `done` with each and why it failed, in this thread.

  A block that fails is tried `attempts` times in all. Raises OSError if the disk is full, and Stopped.
  """
  waiting = collections.deque((block, 1) for block in blocks)
  reading: collections.deque = collections.deque()
  writing: collections.deque = collections.deque()

  def finish(block: Block, number: int, error: Exception | None) -> None:
    if isinstance(error, preemption.Stopped) or (error and files.is_disk_full(error)):
      raise error
    if error and number < attempts:
      waiting.append((block, number + 1))
    else:
      done(block, error)

  with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
    try:
      while waiting or reading or writing:
        preemption.check()
        while waiting and len(reading) < 2:
          block, number = waiting.popleft()
          reading.append((block, number, reader.submit(map_block.read_block, job, block)))
        if reading:
          block, number, pixels = reading.popleft()
          try:
            block_map = map_block.network_map(block, pixels.result(), network)
            written = writer.submit(map_block.write_block, job, block, block_map)
            writing.append((block, number, written))
          except Exception as error:  # Of one block, whatever it is; the others go on.
            finish(block, number, error)
        while writing and (len(writing) > 1 or not reading):
          block, number, written = writing.popleft()
          finish(block, number, written.exception())
    finally:
      for *_, future in (*reading, *writing):
        future.cancel()
