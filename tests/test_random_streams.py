"""Random streams: no key is used for two things."""

import pathlib
import re

import jax
import numpy as np

from lgag_jax.runtime import random_streams

USES = ("trunk", "head", "turn", "bank entries")  # A new use joins here.


def test_all_keys_of_the_first_thousand_steps_differ():
  make = lambda name: jax.vmap(lambda step: random_streams.key(3, name, step))(np.arange(1000))
  keys = np.concatenate([jax.random.key_data(make(name)) for name in USES])
  # `memory_bank.sample` splits its key.
  halves = jax.vmap(jax.random.split)(make("bank entries"))
  keys = np.concatenate([keys, jax.random.key_data(halves).reshape(-1, keys.shape[1])])
  assert len(np.unique(keys, axis=0)) == len(keys) == 6000


def test_a_key_depends_on_seed_name_and_step_alone():
  data = lambda *arguments: jax.random.key_data(random_streams.key(*arguments)).tolist()
  assert data(1, "head", 5) == data(1, "head", 5)
  uses = ((1, "head", 5), (2, "head", 5), (1, "turn", 5), (1, "head", 6))
  assert len({str(data(*use)) for use in uses}) == 4


def test_the_package_uses_no_other_stream():
  """Every key that is drawn from comes from a named stream that this file lists."""
  package = pathlib.Path(random_streams.__file__).parent.parent
  text = "\n".join(path.read_text() for path in package.rglob("*.py"))
  names = re.findall(r"""random_streams\.key\([^"]*?"([\w ]+)"|\bkey\("([\w ]+)"\)""", text)
  assert {a or b for a, b in names} == set(USES)
  seeded = [line for line in text.splitlines() if "jax.random.key(" in line and "key(0)" not in line]
  assert seeded == ["  stream = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))"]
