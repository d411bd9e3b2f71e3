"""Starts and ends the server of the page: --mode=label."""

import contextlib
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

from lgag_jax.labelling import server, sheets
from lgag_jax.labelling.session import Session, merged_text
from lgag_jax.options.labelling import Settings
from lgag_jax.runtime import lock

_PORT = 8765
_SECRET_BYTES = 24
_SECRET_FILE = ".secret"
_SECRET = re.compile(r"[\w-]{32,64}", re.ASCII)


def label(settings: Settings) -> None:
  """Serves the page until Ctrl+C; raises ValueError or OSError that names what is wrong."""
  output = pathlib.Path(settings.output)
  output.mkdir(parents=True, exist_ok=True)
  with contextlib.closing(lock.acquire(output, "output")):
    session = Session(settings)
    if session.merged:
      print(merged_text(session.merged))
    if settings.sheets:
      print(sheets.text(session, sheets.write(session)))
      return
    _start(session, output)


def _start(session: Session, output: pathlib.Path) -> None:
  settings = session.settings
  with _socket(settings) as listener:
    secret = _secret(output)
    port = listener.getsockname()[1]
    address = f"http://{_shown_host(settings.host)}:{port}/{secret}/"
    print(_greeting(session, address, port), flush=True)
    app = server.make_app(session, secret, settings.host)
    session.start()
    _serve(app, listener, "" if settings.no_browser else address)
    session.close()
    print(f"\n{session.summary()}")


def _serve(app, listener: socket.socket, address: str) -> None:
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


def _socket(settings: Settings) -> socket.socket:
  """Returns a listening socket; raises OSError naming the flag to change."""
  for port in [settings.port] if settings.port else [_PORT, 0]:
    try:
      family = socket.getaddrinfo(settings.host, port, type=socket.SOCK_STREAM)[0][0]
      return socket.create_server((settings.host, port), family=family, backlog=128)
    except OSError as error:
      if port != _PORT or settings.port:
        raise OSError(
          f"--host={settings.host} --port={port}: {error.strerror or error}. Choose another."
        ) from error
  raise AssertionError


def _secret(output: pathlib.Path) -> str:
  """Returns the secret of an output, which stays the same so that an open page finds a new server."""
  path = output / _SECRET_FILE
  with contextlib.suppress(OSError):
    if _SECRET.fullmatch(text := path.read_text().strip()) and path.stat().st_mode & 0o077 == 0:
      return text
  secret = secrets.token_urlsafe(_SECRET_BYTES)
  path.unlink(missing_ok=True)
  with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
    file.write(secret + "\n")
  return secret


def _shown_host(host: str) -> str:
  if host in ("0.0.0.0", "::"):
    return socket.gethostname()
  return f"[{host}]" if ":" in host else host


def _greeting(session: Session, address: str, port: int) -> str:
  index = session.view.index
  gsd = index.grids[0].gsd()
  ground = f" ({index.tile_size * gsd:.3g} m)" if gsd else ""
  scenes = "1 scene" if len(index.paths) == 1 else f"{len(index.paths)} scenes"
  return (
    f"{len(index.tiles)} tiles of {index.tile_size} pixels{ground} from {scenes}.\n"
    f"{session.summary()}\n\n"
    f"    {address}\n\n"
    "Open this address in a browser. Whoever has it can see the scenes and answer. Ctrl+C ends the "
    "server; every answer is saved when it is given.\nIf this machine is remote, first run on yours: "
    f"ssh -L {port}:localhost:{port} {socket.gethostname()}"
  )
