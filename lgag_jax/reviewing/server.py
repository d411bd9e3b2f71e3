"""The requests that the page makes: itself, the map, outlines and decisions."""

import functools
import pathlib
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lgag_jax.imagery.opening import ImageError
from lgag_jax.labelling import web
from lgag_jax.labelling.guard import Guard
from lgag_jax.reviewing.session import Session
from lgag_jax.runtime import files

_MAX_TEXT = 1000  # Of thresholds.
_PNG = b"\x89PNG\r\n\x1a\n"
_MAX_PICTURE = 64 << 20  # Bytes; lgag writes up to some MiB.
_HERE = pathlib.Path(__file__).parent
# The parts that both pages use lie with that of labelling.
_PAGE = web.PageFiles(_HERE / "page", _HERE.parent / "labelling" / "page")


def make_app(session: Session, secret: str, host: str) -> Guard:
  """Returns the application that serves a session under an address with a secret."""
  of_session = lambda function: functools.partial(function, session)
  routes = [
    Route("/", _PAGE.respond),
    Route("/files/{name:path}", _PAGE.respond),
    Route("/state", of_session(_state)),
    Route("/outlines/{scene:int}", of_session(_outlines)),
    Route("/preview/{scene:int}", of_session(_preview)),
    Route("/map/{scene:int}/{level:int}/{x:int}/{y:int}", of_session(_square)),
    Route("/picture/{scene:int}", of_session(_picture)),
    Route("/answers", of_session(_decide), methods=["POST"]),
    Route("/cut", of_session(_cut), methods=["POST"]),
  ]
  return web.application(routes, secret, host)


async def _state(session: Session, request: Request) -> Response:
  return web.Json(await run_in_threadpool(session.state))


async def _outlines(session: Session, request: Request) -> Response:
  return web.Json(await run_in_threadpool(session.outlines, request.path_params["scene"]))


async def _preview(session: Session, request: Request) -> Response:
  text, gate = (request.query_params.get(name, "")[:_MAX_TEXT] for name in ("thresholds", "gate"))
  try:
    thresholds, gate = [float(word) for word in text.split(",")], float(gate) if gate else None
  except ValueError as error:
    raise ValueError("Send thresholds, numbers with commas between them, and a gate.") from error
  return web.Json(
    await run_in_threadpool(session.preview, request.path_params["scene"], thresholds, gate))


async def _square(session: Session, request: Request) -> Response:
  scene, level, x, y = (request.path_params[name] for name in ("scene", "level", "x", "y"))
  pictures = session.scene(scene).pictures
  content = await run_in_threadpool(pictures.square, level, x, y)
  return Response(content, media_type="image/jpeg", headers=web.KEPT)


async def _picture(session: Session, request: Request) -> Response:
  """Returns the picture in the output, for a scene whose file is not there any more."""
  path = session.scene(request.path_params["scene"]).map.overlay
  content = await run_in_threadpool(_read_png, path)
  return Response(content, media_type="image/png", headers=web.KEPT)


def _read_png(path: pathlib.Path) -> bytes:
  """Reads a picture of an output; raises ImageError for a link and for what is no PNG."""
  try:
    files.require_plain(path)
    content = files.read_regular(path, _MAX_PICTURE)
  except ValueError as error:
    raise ImageError(str(error)) from error
  if not content.startswith(_PNG):
    raise ImageError(f"{path} is not a PNG. Make the map again (--mode=predict).")
  return content


async def _decide(session: Session, request: Request) -> Response:
  body = await web.read_json(request)
  version, given = body.get("version"), body.get("answers")
  if not isinstance(version, str) or not isinstance(given, list) or not all(map(_is_given, given)):
    raise ValueError("Send a version and answers: pairs of the key of a feature and a decision.")
  await run_in_threadpool(session.decide, version, [(key, value) for key, value in given])
  return web.Json({"saved": len(given)})


async def _cut(session: Session, request: Request) -> Response:
  body = await web.read_json(request)
  scene = body.get("scene")
  if type(scene) is not int:
    raise ValueError("Send a scene, an outline and an area.")
  return web.Json(
    await run_in_threadpool(session.cut, scene, body.get("outline"), body.get("area")))


def _is_given(value: Any) -> bool:
  return (
    isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)
    and isinstance(value[1], dict)
  )
