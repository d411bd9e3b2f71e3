"""A server of a page in a process of its own, for tests of killed servers and of browsers."""

import itertools
import json
import pathlib
import subprocess
import sys
import urllib.request

ROOT = pathlib.Path(__file__).parent.parent


class PageServer:
  """A command that serves a page, and the address that it prints."""

  def __init__(self, *flags):
    self.process = subprocess.Popen(
      [sys.executable, "-m", "lgag_jax.main", "--no_browser", *flags],
      cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )
    lines = itertools.takewhile(bool, iter(self.process.stdout.readline, None))
    read = []
    self.address = next(
      (line.strip() for line in lines if read.append(line) or "http://" in line), "".join(read))

  def request(self, path, content=None):
    headers = {"Origin": self.address.rsplit("/", 2)[0], "Content-Type": "application/json"}
    data = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(self.address + path, data=data, headers=headers)
    with urllib.request.urlopen(request, timeout=20) as response:
      return json.load(response)

  def end(self, number):
    self.process.send_signal(number)
    self.process.wait(20)
    return self.process.stdout.read()
