"""Listens for the page's requests until Ctrl+C, under an address with a secret."""

import contextlib
import hashlib
import os
import pathlib
import re
import secrets
import signal
import socket
import threading
import webbrowser
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from lgag_jax.runtime import files

_PORT = 8765
_SECRET_BYTES = 24
_SECRET = re.compile(r"[\w-]{32,64}", re.ASCII)


def serve(app: ASGIApp, listener: socket.socket, address: str) -> None:
  """Serves until a signal asks for the end; requests that were begun are finished."""
  config = uvicorn.Config(
    app, lifespan="off", ws="none", access_log=False, log_level="warning", server_header=False,
    proxy_headers=False, limit_concurrency=128, timeout_keep_alive=20, timeout_graceful_shutdown=3,
    h11_max_incomplete_event_size=1 << 14, http="h11",
  )
  # Without a display, a browser in the terminal would cover the address.
  if address and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
  _Server(config).run(sockets=[listener])


class _Server(uvicorn.Server):
  """Ends in order at Ctrl+C, SIGTERM or SIGHUP; uvicorn's own would then raise the signal again."""

  @contextlib.contextmanager
  def capture_signals(self) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
      yield
      return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # Not under nohup.
      numbers.append(signal.SIGHUP)  # Of a terminal that closes.
    earlier = {number: signal.signal(number, self.handle_exit) for number in numbers}
    try:
      yield
    finally:
      for number, handler in earlier.items():
        signal.signal(number, handler)


def open_socket(host: str, port: int) -> socket.socket:
  """Returns a listening socket; raises OSError naming the flag to change."""
  for number in [port] if port else [_PORT, 0]:
    try:
      family = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0][0]
      return socket.create_server((host, number), family=family, backlog=128)
    except OSError as error:
      if number != _PORT or port:
        raise OSError(
          f"--host={host} --port={number}: {error.strerror or error}. Choose another."
        ) from error
  raise AssertionError


def secret_of(output: pathlib.Path) -> str:
  """Returns the secret of an output, which stays the same so that an open page finds a new server.

  It is kept in the user's own state folder: an output may come from a stranger, who would know a secret
  in it. Where that folder cannot be written or others can, each start has a new secret.
  """
  path = _state_folder() / hashlib.sha256(os.fsencode(output.resolve())).hexdigest()
  with contextlib.suppress(OSError, ValueError):
    path.parent.mkdir(0o700, parents=True, exist_ok=True)
    if _is_private(path.parent):
      if os.path.lexists(path):
        files.require_plain(path)
        text = files.read_text(path).strip()
        if _is_private(path) and _SECRET.fullmatch(text):
          return text
      secret = secrets.token_urlsafe(_SECRET_BYTES)
      path.unlink(missing_ok=True)
      with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secret + "\n")
      return secret
  return secrets.token_urlsafe(_SECRET_BYTES)


def _state_folder() -> pathlib.Path:
  base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
  return pathlib.Path(base, "lgag_jax", "secrets").absolute()


def _is_private(path: pathlib.Path) -> bool:
  """Returns whether a file or folder is this user's own, and nobody else can read or change it."""
  status = path.lstat()
  return status.st_uid == os.geteuid() and status.st_mode & 0o077 == 0


def address_of(host: str, port: int, secret: str) -> str:
  """Returns the address to open in a browser."""
  if host in ("0.0.0.0", "::"):
    host = socket.gethostname()
  return f"http://{f'[{host}]' if ':' in host else host}:{port}/{secret}/"


def hint(port: int) -> str:
  """Returns what to know about the address, which may be of a remote machine."""
  return (
    "Open this address in a browser. Whoever has it can see the scenes and answer. Ctrl+C ends the "
    "server; every answer is saved when it is given.\nIf this machine is remote, first run on yours: "
    f"ssh -L {port}:localhost:{port} {socket.gethostname()}"
  )
