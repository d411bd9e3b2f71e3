"""What the servers of all pages share: their files, JSON in requests, and errors."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from lgag_jax.imagery.opening import ImageError
from lgag_jax.labelling.guard import Guard
from lgag_jax.runtime import printable

_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".txt": "text/plain"}
KEPT = {"cache-control": "private, max-age=86400"}  # The address of a picture holds its version.


class Json(JSONResponse):
  """JSON whose texts control nothing in a browser; names of files may hold any characters."""

  def render(self, content: Any) -> bytes:
    rendered = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return printable.in_json(rendered).encode()


class OutdatedPageError(ValueError):
  """The page was loaded before what it shows has changed."""


class PageFiles:
  """The files of a page. Nothing else is served from the disk."""

  def __init__(self, *folders: pathlib.Path):
    """Lists the files of several folders; a file of the first hides one of the same name."""
    self._files = {
      path.relative_to(folder).as_posix(): path for folder in reversed(folders)
      for path in sorted(folder.rglob("*")) if path.suffix in _TYPES
    }

  async def respond(self, request: Request) -> Response:
    """Returns a file of the page."""
    path = self._files.get(request.path_params.get("name", "index.html"))
    if path is None:
      return PlainTextResponse("File not found.\n", 404)
    return Response(path.read_bytes(), media_type=_TYPES[path.suffix])


def application(routes: list[Route], secret: str, host: str) -> Guard:
  """Returns the application of a page's routes under an address with a secret."""
  handlers = {
    OutdatedPageError: _error(409), ImageError: _error(500), ValueError: _error(400),
    OSError: _error(500),
  }
  return Guard(Starlette(routes=routes, exception_handlers=handlers), secret, host)


def _error(status: int) -> Callable[[Request, Exception], Response]:
  """Returns a handler that answers with an exception's message."""
  return lambda _, exception: Json({"error": str(exception)}, status)


async def read_json(request: Request) -> dict[str, Any]:
  """Returns the object in a request; raises ValueError if there is none."""
  try:
    body = json.loads(await request.body())
  except ClientDisconnect as exception:  # Else its traceback goes into the log.
    raise ValueError("The request was broken off.") from exception
  except (ValueError, RecursionError) as exception:
    raise ValueError("The request is not JSON.") from exception
  if not isinstance(body, dict):
    raise ValueError("The request is not a JSON object.")
  return body
