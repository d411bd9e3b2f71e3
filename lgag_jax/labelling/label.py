"""Starts and ends the server of the page: --mode=label."""

import contextlib
import pathlib

from lgag_jax.labelling import listener, outline_layer, server, sheets
from lgag_jax.labelling.session import Session, merged_text
from lgag_jax.options.labelling import Settings
from lgag_jax.runtime import lock


def label(settings: Settings) -> None:
  """Serves the page until Ctrl+C; raises ValueError or OSError that names what is wrong."""
  output = pathlib.Path(settings.output)
  output.mkdir(parents=True, exist_ok=True)
  with contextlib.closing(lock.acquire(output, "output")):
    session = Session(settings)
    if session.merged:
      print(merged_text(session.merged))
    if settings.sheets:
      paths = sheets.write(session)
      layer = outline_layer.write(session.view.index, session.answers, output)
      print(sheets.text(session, paths, layer))
      return
    _start(session, output)


def _start(session: Session, output: pathlib.Path) -> None:
  settings = session.settings
  with listener.open_socket(settings.host, settings.port) as opened:
    secret = listener.secret_of(output)
    port = opened.getsockname()[1]
    address = listener.address_of(settings.host, port, secret)
    print(_greeting(session, address, port), flush=True)
    app = server.make_app(session, secret, settings.host)
    session.start()
    listener.serve(app, opened, "" if settings.no_browser else address)
    session.close()
    print(f"\n{session.summary()}")


def _greeting(session: Session, address: str, port: int) -> str:
  index = session.view.index
  gsd = index.grids[0].gsd()
  ground = f" ({index.tile_size * gsd:.3g} m)" if gsd else ""
  scenes = "1 scene" if len(index.paths) == 1 else f"{len(index.paths)} scenes"
  return (
    f"{len(index.tiles)} tiles of {index.tile_size} pixels{ground} from {scenes}.\n"
    f"{session.summary()}\n\n"
    f"    {address}\n\n"
    f"{listener.hint(port)}"
  )
