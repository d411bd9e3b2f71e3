"""Starts and ends the server of the page: --mode=review."""

import contextlib
import pathlib

from lgag_jax.labelling import listener
from lgag_jax.options.reviewing import Settings
from lgag_jax.reviewing import server
from lgag_jax.reviewing.session import Session
from lgag_jax.runtime import lock


def review(settings: Settings) -> None:
  """Serves the page until Ctrl+C; raises ValueError or OSError that names what is wrong."""
  output = pathlib.Path(settings.input)
  if not output.is_dir():
    raise FileNotFoundError(f"--input={output}: no such folder. Name the folder of maps.")
  with (
    contextlib.closing(lock.acquire(output, "input")),  # Maps are not made while they are reviewed.
    listener.open_socket(settings.host, settings.port) as opened,
  ):
    session = Session(settings)
    secret = listener.secret_of(session.folder)
    port = opened.getsockname()[1]
    address = listener.address_of(settings.host, port, secret)
    print(f"{session.summary()}\n\n    {address}\n\n{listener.hint(port)}", flush=True)
    app = server.make_app(session, secret, settings.host)
    session.start()
    try:
      listener.serve(app, opened, "" if settings.no_browser else address)
    finally:
      session.close()
    print(f"\n{session.summary()}\n{_next_step(session)}")


def _next_step(session: Session) -> str:
  return (
    f"For a GIS: {session.folder}/*_reviewed.gpkg. If the labelling page made the map, press there "
    "\"Make the map again\": it trains on the decisions, and the map follows them. Otherwise cut tiles "
    "with\n\n"
    f"    lgag --mode=tile --input=<the scenes> --labels={session.folder} --output=<a new folder>\n\n"
    f"or add --review={session.folder} to the command that cut the tiles of the first training.\n"
  )
