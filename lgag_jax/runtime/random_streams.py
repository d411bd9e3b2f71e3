"""Named random streams: a key depends on the seed, the name of its use, and the step alone.

No key is used for two things, none is carried along, and none depends on the host.
"""

import zlib

import jax


def key(seed: int, name: str, step: jax.Array | int = 0) -> jax.Array:
  """Returns the key of a stream at a step, key[]."""
  stream = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
  return jax.random.fold_in(stream, step)
