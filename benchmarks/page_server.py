"""The server of the labelling page as a process, for the benchmarks that drive it."""

import contextlib
import json
import pathlib
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

_PATIENCE = 600.0  # Seconds for the server to open, and to end.


@contextlib.contextmanager
def serve(scene: pathlib.Path, folder: pathlib.Path, *flags: str) -> Iterator["Server"]:
  """Serves the page of a scene, with its answers in folder/labels; ends the server at the end."""
  server = Server(folder / "server.log", f"--input={scene}", f"--output={folder / 'labels'}", *flags)
  try:
    yield server
  finally:
    server.close()


class Server:
  """A server in a process of its own, and requests to it."""

  def __init__(self, log: pathlib.Path, *flags: str):
    """Starts the server; raises SystemExit with its log if it does not open."""
    self._log = log
    with log.open("wb") as file:
      self.process = subprocess.Popen(
        [sys.executable, "-m", "lgag_jax.main", "--mode=label", "--no_browser", *flags],
        stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
      )
    self.address = self._wait_for_address()

  def _wait_for_address(self) -> str:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and self.process.poll() is None:
      if found := re.search(r"http://\S+/\S+/", self._log.read_text(errors="replace")):
        return found[0]
      time.sleep(0.1)
    self.process.kill()
    raise SystemExit(f"The server did not open:\n{self._log.read_text(errors='replace')}")

  def request(self, path: str, content: dict | None = None) -> dict:
    """Returns what the server answers to a request of the page."""
    origin = self.address.rsplit("/", 2)[0]
    request = urllib.request.Request(
      self.address + path, data=None if content is None else json.dumps(content).encode(),
      headers={"Origin": origin, "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
      return json.load(response)

  def close(self) -> None:
    """Ends the server as Ctrl+C does."""
    self.process.send_signal(signal.SIGINT)
    self.process.wait(_PATIENCE)
