"""Runs commands in processes forked from one that has imported TensorFlow and JAX already.

These imports take longer than most commands. The parent process uses neither library, so that a command
finds them as a new process would after its imports. Each command sets its own configuration.
"""

import atexit
import functools
import gc
import json
import math
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import tempfile
import time

from lgag_jax import config as configs

ROOT = pathlib.Path(__file__).parent.parent


def call(*arguments, **environment):
  """Runs the command line with environment variables; returns a subprocess.CompletedProcess."""
  return run([(arguments, environment)])[0]


def run(commands, *, module="lgag_jax.main", timeout=300, since=None):
  """Runs commands, pairs of arguments and variables, in parallel; returns their CompletedProcesses.

  Kills those that have not ended after `timeout` seconds. With the folder `since`, the time counts from
  when a new file there has the name of an unfinished one.
  """
  with tempfile.TemporaryDirectory() as name:
    places = [str(pathlib.Path(name, str(i))) for i in range(len(commands))]
    request = [
      (module, [str(a) for a in arguments], environment, place)
      for (arguments, environment), place in zip(commands, places, strict=True)
    ]
    server = _server()
    server.stdin.write(json.dumps([request, timeout, str(since or "")]) + "\n")
    server.stdin.flush()
    codes = json.loads(server.stdout.readline())
    read = lambda place, kind: pathlib.Path(f"{place}.{kind}").read_text()
    return [
      subprocess.CompletedProcess(arguments, code, read(place, "out"), read(place, "err"))
      for (arguments, _), place, code in zip(commands, places, codes, strict=True)
    ]


def flags_of(config):
  """Returns the flags that turn the config of configs/image_folder.py into `config`."""
  return ["--config=configs/image_folder.py"] + [
    f"--config.{group}.{name}={value}"
    for group, fields in vars(config).items() for name, value in vars(fields).items()
    if value != getattr(getattr(configs.Config(), group), name)
  ]


@functools.cache
def _server():
  server = subprocess.Popen(
    [sys.executable, "-m", "tests.commands"], cwd=ROOT, text=True, stdin=subprocess.PIPE,
    stdout=subprocess.PIPE, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "XLA_FLAGS": ""},
  )
  atexit.register(server.stdin.close)
  return server


def _serve():
  for line in sys.stdin:
    request, timeout, since = json.loads(line)
    children = []
    for command in request:
      if child := os.fork():
        children.append(child)
      else:
        return _become(*command)
    codes, end = {}, math.inf if since else time.monotonic() + timeout
    while len(codes) < len(children):
      time.sleep(0.002 if since else 0.02)
      if end == math.inf and _has_begun(pathlib.Path(since)):
        end = time.monotonic() + timeout
      for child in set(children) - set(codes):
        if time.monotonic() > end:
          os.kill(child, signal.SIGKILL)
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
          codes[child] = os.waitstatus_to_exitcode(status)
    print(json.dumps([codes[child] for child in children]), flush=True)


def _has_begun(folder):
  return any(path.name.startswith((".partial-", ".unfinished")) for path in folder.rglob(".*"))


def _become(module, arguments, environment, place):
  """Continues as the module's own process would, until the interpreter ends as usual."""
  for descriptor, path, flags in (
    (0, os.devnull, os.O_RDONLY), (1, f"{place}.out", os.O_WRONLY | os.O_CREAT),
    (2, f"{place}.err", os.O_WRONLY | os.O_CREAT),
  ):
    os.dup2(os.open(path, flags), descriptor)
  os.environ.update(environment)
  for name, value in environment.items():
    if name.startswith("JAX_"):  # JAX has read its variables already.
      jax.config.update(name.lower(), int(value))
  sys.argv = [module, *arguments]
  runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
  # Imports of lgag_jax.main and its modes. Not lgag_jax.main itself, since it defines flags.
  import jax
  import pyogrio  # noqa: F401  Before TensorFlow, as the command line does.
  import tensorflow as tf  # noqa: F401

  from lgag_jax.doctor import examine  # noqa: F401
  from lgag_jax.evaluation import report  # noqa: F401
  from lgag_jax.mapping import predict  # noqa: F401
  from lgag_jax.training import loop, two_stages  # noqa: F401

  gc.freeze()  # Otherwise a command's last garbage collection would copy the memory of all imports.
  _serve()
