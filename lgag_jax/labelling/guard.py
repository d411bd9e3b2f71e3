"""Refuses requests that do not come from the page itself.

Other pages in the same browser can send requests to this machine. They do not know the secret in the
address. The checks of Host and Origin refuse them even if they did, also under a name that someone has
pointed at this machine (DNS rebinding).
"""

import ipaddress
import secrets
import socket
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 1 << 20  # Bytes of a request. An answer to each of 20,000 tiles fits.
_HEADERS = {
  "content-security-policy": (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
  ),
  "x-content-type-options": "nosniff", "referrer-policy": "no-referrer",
  "cross-origin-resource-policy": "same-origin", "cross-origin-opener-policy": "same-origin",
}
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Guard:
  """Wraps the page's application: lets a request pass only if all checks hold."""

  def __init__(self, app: ASGIApp, secret: str, host: str):
    self._app, self._secret = app, secret
    self._host = host

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
      return
    _, _, first = scope["path"].partition("/")
    given, slash, rest = first.partition("/")
    refusal = self._refusal(scope, given)
    if refusal is None and not slash:
      refusal = 404, "Add a / to the address."
    if refusal is not None:
      response = PlainTextResponse(f"{refusal[1]}\n", refusal[0])
      await response(scope, receive, _with_headers(send))
      return
    inner = {**scope, "path": f"/{rest}", "raw_path": f"/{rest}".encode(), "root_path": ""}
    await self._app(inner, receive, _with_headers(send))

  def _refusal(self, scope: Scope, given: str) -> tuple[int, str] | None:
    """Returns a status and a sentence for a request to refuse."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    host = headers.get("host", "")
    if not self._is_own_host(host):
      return 403, "This server does not have the name in the address."
    if not secrets.compare_digest(given.encode(), self._secret.encode()):
      return 403, "The secret in the address is wrong: open the address that lgag printed."
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
      return 403, "Another page sent this request."
    if scope["method"] in ("GET", "HEAD"):
      return None
    if not _is_of(headers.get("origin", ""), host):
      return 403, "Another page sent this request."
    if headers.get("content-type", "").split(";")[0] != "application/json":
      return 415, "The request must be JSON."
    length = headers.get("content-length", "")
    if "transfer-encoding" in headers:  # It would count, and not the length.
      return 411, "The request must have a Content-Length and come whole."
    if not length.isascii() or not length.isdigit():  # The server holds the body to this length.
      return 411, "The request has no Content-Length."
    if len(length) > 12 or int(length) > MAX_BODY:
      return 413, "The request is too long."
    return None

  def _is_own_host(self, host: str) -> bool:
    """Returns whether a browser that was asked for this machine sends this Host.

    The port is not compared: a tunnel may end at another one. An address of numbers cannot be pointed
    elsewhere, and names are accepted if they are this machine's own.
    """
    try:
      name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
      return False
    if name in _LOOPBACK:
      return True
    if self._host in _LOOPBACK:
      return False
    try:
      ipaddress.ip_address(name)
    except ValueError:
      return name in {self._host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}
    return True


def _is_of(origin: str, host: str) -> bool:
  try:
    return urlsplit(origin).netloc == host
  except ValueError:
    return False


def _with_headers(send: Send) -> Send:
  async def send_with_headers(message: Message) -> None:
    if message["type"] == "http.response.start":
      own: list[tuple[bytes, bytes]] = [(k.encode(), v.encode()) for k, v in _HEADERS.items()]
      headers: list[Any] = list(message.get("headers", []))
      if not any(name == b"cache-control" for name, _ in headers):
        own.append((b"cache-control", b"no-store"))
      message = {**message, "headers": [*headers, *own]}
    await send(message)

  return send_with_headers
