"""The requests that the page makes: itself, pictures of tiles, and answers."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lgag_jax.labelling import web
from lgag_jax.labelling.guard import Guard
from lgag_jax.labelling.pictures import SQUARE, Pictures
from lgag_jax.labelling.session import OUTDATED, Session, View

_PAGE = web.PageFiles(pathlib.Path(__file__).with_name("page"))
_SIDES = (96, 128, 192, 256, 384, 512)  # Of the pictures of tiles.


def make_app(session: Session, secret: str, host: str) -> Guard:
  """Returns the application that serves a session under an address with a secret."""
  of_session = lambda function: functools.partial(function, session)
  routes = [
    Route("/", _PAGE.respond),
    Route("/files/{name:path}", _PAGE.respond),
    Route("/state", of_session(_state)),
    Route("/tile/{number:int}", of_session(_tile)),
    Route("/surroundings/{number:int}", of_session(_surroundings)),
    Route("/map/{scene:int}/{level:int}/{x:int}/{y:int}", of_session(_square)),
    Route("/map_layer/{scene:int}/{level:int}/{x:int}/{y:int}", of_session(_layer_square)),
    Route("/map_layer/{number:int}", of_session(_layer_of_tile)),
    Route("/make_map", of_session(_map_state)),
    Route("/make_map", of_session(_make_map), methods=["POST"]),
    Route("/learned", of_session(_learned)),
    Route("/answers", of_session(_answer), methods=["POST"]),
    Route("/tile_size", of_session(_resize), methods=["POST"]),
  ]
  return web.application(routes, secret, host)


async def _state(session: Session, request: Request) -> Response:
  return web.Json(await run_in_threadpool(session.state))


def _view_of(session: Session, request: Request) -> View:
  """Returns the tiles that a page shows; raises OutdatedPageError for those of an earlier size.

  A browser keeps pictures by their address: others must not get there.
  """
  view = session.view
  if request.query_params.get("v", view.pictures.version) != view.pictures.version:
    raise web.OutdatedPageError(OUTDATED)
  return view


def _pictures_of(view: View, request: Request) -> Pictures:
  """Returns the pictures of the date that is asked for."""
  return ("before" in request.query_params and view.before) or view.pictures


def _square_of(view: View, request: Request) -> tuple[int, int, int, int]:
  """Returns the scene, level, column and row of a square of the map; raises ValueError outside it."""
  pictures, index = view.pictures, view.index
  scene, level, x, y = (request.path_params[name] for name in ("scene", "level", "x", "y"))
  if scene >= len(index.paths) or level > pictures.levels(scene):
    raise ValueError("There is no such square of the map.")
  side, grid = SQUARE << level, index.grids[scene]
  if x * side >= grid.width or y * side >= grid.height:
    raise ValueError("There is no such square of the map.")
  return scene, level, x, y


def _number_of(view: View, request: Request) -> int:
  """Returns the number of a tile; raises ValueError if there is no such tile."""
  number = request.path_params["number"]
  if number >= len(view.index.tiles):
    raise ValueError(f"There is no tile {number}.")
  return number


async def _layer_square(session: Session, request: Request) -> Response:
  view = session.view  # The version in the address is that of the map.
  scene, level, x, y = _square_of(view, request)
  side = SQUARE << level
  window = x * side, y * side, side, side
  return await _layer(session, view.index.paths[scene], window, SQUARE)


async def _layer_of_tile(session: Session, request: Request) -> Response:
  view = session.view
  scene, tile = view.index.tiles[_number_of(view, request)]
  side = view.index.tile_size
  wide = "surroundings" in request.query_params
  window = tile.col * side, tile.row * side, side, side
  if wide:
    window = window[0] - side, window[1] - side, 3 * side, 3 * side
  shown = min(window[2], 768 if wide else 256)
  return await _layer(session, view.index.paths[scene], window, shown)


async def _layer(
  session: Session, path: pathlib.Path, window: tuple[int, int, int, int], side: int
) -> Response:
  content = await run_in_threadpool(session.map_layer.draw, path, window, side)
  return Response(content, media_type="image/png", headers=web.KEPT)


async def _map_state(session: Session, request: Request) -> Response:
  return web.Json(await run_in_threadpool(session.map_state))


async def _make_map(session: Session, request: Request) -> Response:
  await web.read_json(request)
  await run_in_threadpool(session.map_job.start)
  return web.Json(await run_in_threadpool(session.map_state))


async def _learned(session: Session, request: Request) -> Response:
  text = request.query_params.get("revision", "-1")
  revision = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
  return web.Json(await run_in_threadpool(session.learned, revision))


async def _tile(session: Session, request: Request) -> Response:
  view = _view_of(session, request)
  pictures, number = _pictures_of(view, request), _number_of(view, request)
  wanted = request.query_params.get("side", "256")
  side = int(wanted) if wanted in map(str, _SIDES) else 256
  return await _picture(pictures.tile, number, side)


async def _surroundings(session: Session, request: Request) -> Response:
  view = _view_of(session, request)
  return await _picture(_pictures_of(view, request).surroundings, _number_of(view, request))


async def _square(session: Session, request: Request) -> Response:
  view = _view_of(session, request)
  return await _picture(_pictures_of(view, request).square, *_square_of(view, request))


async def _picture(draw: Callable[..., bytes], *arguments: int) -> Response:
  return Response(await run_in_threadpool(draw, *arguments), media_type="image/jpeg", headers=web.KEPT)


async def _answer(session: Session, request: Request) -> Response:
  body = await web.read_json(request)
  version, given = body.get("version"), body.get("answers")
  if not isinstance(version, str) or not isinstance(given, list) or not all(map(_is_answer, given)):
    raise ValueError("Send a version and answers: pairs of the number of a tile and a label.")
  await run_in_threadpool(session.answer, version, [(number, label) for number, label in given])
  return web.Json({"saved": len(given)})


async def _resize(session: Session, request: Request) -> Response:
  side = (await web.read_json(request)).get("tile_size")
  if type(side) is not int:
    raise ValueError("Send a tile_size in pixels.")
  await run_in_threadpool(session.resize, side)
  return web.Json({"tile_size": side})


def _is_answer(value: Any) -> bool:
  return (
    isinstance(value, list) and len(value) == 2 and type(value[0]) is int and isinstance(value[1], str)
  )
