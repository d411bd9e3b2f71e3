"""The search of a STAC API: what is asked for, page by page, and what a hostile server cannot do."""

import http.server
import json
import threading
import time

import pytest
import shapely

from lgag_jax.catalogues import stac
from lgag_jax.options.area import Imagery

AREA = shapely.box(0, 0, 2, 2)


def item(number, at):
  return {
    "type": "Feature", "stac_version": "1.0.0", "id": f"item{number}", "collection": "c", "links": [],
    "geometry": shapely.geometry.mapping(shapely.box(0, 0, 1, 1)), "bbox": [0, 0, 1, 1],
    "properties": {"datetime": "2020-01-01T00:00:00Z"},
    "assets": {"visual": {"href": f"{at}/{number}.tif", "type": "image/tiff"}},
  }


@pytest.fixture
def serve():
  """Starts an API whose search answers by a function of the page; returns its address and requests."""
  servers = []

  def start(search):
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
      protocol_version = "HTTP/1.1"

      def log_message(self, *_):
        pass

      def do_POST(self):
        asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.answer(search(self, len(asked), address))

      def do_GET(self):
        paths = {"self": "/", "root": "/", "search": "/search"}
        self.answer({
          "type": "Catalog", "stac_version": "1.0.0", "id": "api", "description": "api",
          "conformsTo": [f"https://api.stacspec.org/v1.0.0/{name}" for name in ("core", "item-search")],
          "links": [
            {"rel": rel, "href": address + path, "type": "application/geo+json"}
            for rel, path in paths.items()
          ],
        })

      def answer(self, content):
        if content is None:  # The function has answered.
          return
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    servers.append(server)
    address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return address, asked

  yield start
  for server in servers:
    server.shutdown()
    server.server_close()


def page(numbers, at, *, more):
  following = {"rel": "next", "href": f"{at}/search", "method": "POST", "body": {"token": "b"},
               "merge": True}
  return {"type": "FeatureCollection", "features": [item(n, at) for n in numbers],
          "links": [following] if more else []}


def test_all_pages_of_what_is_asked_for_are_read(serve):
  address, asked = serve(lambda _, count, at: page(((1, 2), (3,))[count - 1], at, more=count == 1))
  settings = Imagery(dates="2020-01-01/2020-02-01", collections=("c",), timeout=5)
  items = list(stac.read_items(address, AREA, settings))
  assert [found.id for found, _ in items] == ["item1", "item2", "item3"]
  assert {base for _, base in items} == {address}
  assert items[2][0].assets["visual"].href == f"{address}/3.tif"
  for query in asked:
    assert query["collections"] == ["c"] and query["datetime"].startswith("2020-01-01")
    assert shapely.geometry.shape(query["intersects"]).equals(AREA)
  assert len(asked) == 2 and asked[1]["token"] == "b"


@pytest.mark.parametrize("numbers", [(1,), (1, 2)])
def test_a_search_that_goes_round_in_circles_ends(serve, numbers):
  address, asked = serve(lambda _, count, at: page(numbers, at, more=True))
  with pytest.raises(ValueError, match=r"gives the same items again: narrow the search"):
    list(stac.read_items(address, None, Imagery(timeout=5)))
  assert len(asked) == 2


@pytest.mark.parametrize("stated", [True, False])
def test_an_answer_that_is_too_large_is_left(serve, monkeypatch, stated):
  monkeypatch.setattr(stac, "_MAX_BYTES", 4 << 20)
  sent = []

  def search(handler, *_):
    handler.send_response(200)
    handler.send_header(*(("Content-Length", str(200 << 20)) if stated else ("Connection", "close")))
    handler.end_headers()
    try:
      for _ in range(200):
        handler.wfile.write(b" " * (1 << 20))
        sent.append(1)
    except OSError:
      pass  # The client has hung up.

  address, _ = serve(search)
  with pytest.raises(Exception, match=r"has more than 4 MiB, too much for a catalogue"):
    list(stac.read_items(address, None, Imagery(timeout=5, retries=0)))
  assert len(sent) < 100


def test_no_server_sets_the_waiting_time(serve):
  def search(handler, *_):
    handler.send_response(503)
    handler.send_header("Retry-After", "86400")
    handler.send_header("Content-Length", "0")
    handler.end_headers()

  address, asked = serve(search)
  start = time.monotonic()
  with pytest.raises(Exception, match="503"):
    list(stac.read_items(address, None, Imagery(timeout=5, retries=1)))
  assert time.monotonic() - start < 20 and len(asked) == 2
