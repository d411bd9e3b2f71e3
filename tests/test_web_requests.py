"""Tests of what the pages' servers make of requests that are odd, whatever the page."""

import asyncio
import logging

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lgag_jax.labelling import web

SCOPE = {
  "type": "http", "method": "POST", "path": "/", "raw_path": b"/", "query_string": b"", "headers": [],
  "root_path": "", "scheme": "http", "server": ("127.0.0.1", 80), "http_version": "1.1",
}


async def _answer(request: Request) -> Response:
  return web.Json(await web.read_json(request))


def ask(*messages):
  """Returns what the server sends to a client that sends messages and then goes."""
  routes = [Route("/", _answer, methods=["POST"])]
  server = Starlette(routes=routes, exception_handlers={ValueError: web._error(400)})
  waiting, sent = [*messages, {"type": "http.disconnect"}], []

  async def receive():
    return waiting.pop(0) if len(waiting) > 1 else waiting[0]

  async def send(message):
    sent.append(message)

  asyncio.run(server(SCOPE, receive, send))
  return sent


@pytest.mark.parametrize("parts", [
  [], [{"type": "http.request", "body": b'{"a"', "more_body": True}],
  [{"type": "http.request", "body": b"", "more_body": True}] * 3,
])
def test_a_request_that_is_broken_off_ends_quietly(parts, caplog):
  caplog.set_level(logging.DEBUG)
  start, body = ask(*parts)
  assert start["status"] == 400 and b"broken off" in body["body"]
  assert "Traceback" not in caplog.text


def test_a_whole_request_is_answered():
  start, body = ask({"type": "http.request", "body": b'{"a": 1}', "more_body": False})
  assert start["status"] == 200 and body["body"] == b'{"a":1}'
