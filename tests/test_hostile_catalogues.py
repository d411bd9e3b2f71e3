"""What catalogues and their servers cannot do: fill the memory, or show a signature in a log."""

import contextlib
import gzip
import http.server
import json
import logging
import struct
import threading

import pytest

from lgag_jax import main
from lgag_jax.catalogues import search, stac
from lgag_jax.options.area import Imagery
from lgag_jax.runtime import files, printable
from tests import area_data
from tests.test_stac_api import item, serve  # noqa: F401

SECRET = "Sup3rSecret"
EMPTY = b'{"type": "Catalog", "links": []}'


@pytest.fixture
def answer():
  """Starts a server that answers each path with (status, headers, body); returns its address."""
  servers = []

  def start(answers):
    class Handler(http.server.BaseHTTPRequestHandler):
      protocol_version = "HTTP/1.1"

      def log_message(self, *_):
        pass

      def do_GET(self):
        status, headers, body = answers[self.path.partition("?")[0]]
        self.send_response(status)
        for name, value in {**headers, "Content-Length": len(body)}.items():
          self.send_header(name, str(value))
        self.end_headers()
        with contextlib.suppress(OSError):  # The client has hung up.
          self.wfile.write(body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    servers.append(server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"

  yield start
  for server in servers:
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("status", [200, 302, 404])
@pytest.mark.parametrize("packed", [False, True])
def test_no_answer_is_read_beyond_the_limit(answer, monkeypatch, status, packed):
  monkeypatch.setattr(stac, "_MAX_BYTES", 4 << 20)
  body = bytes(8 << 20)
  headers = {"Location": "/end.json"} | ({"Content-Encoding": "gzip"} if packed else {})
  at = answer({
    "/start.json": (status, headers, gzip.compress(body) if packed else body),
    "/end.json": (200, {}, EMPTY),
  })
  with pytest.raises(ValueError, match=r"start\.json has more than 4 MiB, too much for a catalogue"):
    list(stac.read_items(f"{at}/start.json", None, Imagery(retries=0)))


@pytest.mark.parametrize("value", ["[]", "{}", '"ab"', '{"a":[0]}'])
def test_json_of_very_many_values_is_refused(tmp_path, value):
  text = f'{{"type": "Catalog", "links": [{",".join([value] * (9 << 20))}]}}'
  text = text[: 60 << 20].rpartition(",")[0] + "]}"
  path = tmp_path / "catalog.json"
  path.write_text(text)
  refused = pytest.raises(ValueError, match=r"catalog\.json is not valid JSON.*: it holds more than")
  with refused:
    list(stac.read_items(str(path), None, Imagery()))
  with refused:
    files.read_json(path)
  path.write_text(f"{text}\n")
  with refused:
    files.read_json_lines(path)


def test_one_file_of_a_catalogue_is_parsed_at_a_time(tmp_path, monkeypatch):
  links = [{"rel": "item", "href": f"{n}.json"} for n in range(9)]
  (tmp_path / "catalog.json").write_text(json.dumps({"type": "Catalog", "links": links}))
  for n in range(9):
    (tmp_path / f"{n}.json").write_text(json.dumps(item(n, "x")))
  parsed, original = [], files.parse_json
  monkeypatch.setattr(files, "parse_json", lambda *args: parsed.append(1) or original(*args))
  for count, _ in enumerate(stac.read_items(str(tmp_path / "catalog.json"), None, Imagery()), 2):
    assert len(parsed) == count


@pytest.mark.parametrize(("page", "message"), [
  ({"features": [3]}, "holds an item that is not STAC"),
  ({"features": [{"id": "a"}]}, "holds an item that is not STAC"),
  ({"features": [{**item(1, "x"), "id": 3}]}, "holds an item that is not STAC"),
  ([[]] * (3 << 20), "An answer of the STAC API is not valid JSON: it holds more than"),
])
def test_pages_that_are_not_stac_are_named(serve, page, message):  # noqa: F811
  address, _ = serve(lambda *_: page)
  with pytest.raises(ValueError, match=message):
    list(stac.read_items(address, None, Imagery(timeout=5)))


def test_the_error_of_a_search_is_short_and_named(serve):  # noqa: F811
  def reply(handler, *_):
    handler.send_response(400)
    handler.send_header("Content-Length", str(4 << 20))
    handler.end_headers()
    handler.wfile.write(b"no" * (2 << 20))

  address, asked = serve(reply)
  with pytest.raises(ValueError, match=rf"{address}/search cannot be read: status 400: nono") as caught:
    list(stac.read_items(address, None, Imagery(timeout=5)))
  assert len(str(caught.value)) < 500 and len(asked) == 1


@pytest.mark.parametrize(("name", "status"), [("a.json", 503), ("a.json", 404), ("a.json", 200),
                                              ("a.tif", 404)])
def test_a_signature_is_not_logged(answer, caplog, name, status):
  caplog.set_level(logging.INFO)
  caplog.handler.addFilter(printable.Filter())
  at = answer({f"/{name}": (status, {}, b"no")})
  with pytest.raises((OSError, ValueError)) as caught:
    search.find_images(f"{at}/{name}?X-Amz-Signature={SECRET}&b=1", None, 3, Imagery(retries=1))
  error = main._one_line(caught.value)
  assert f"{at}/{name}" in error and SECRET not in error and SECRET not in caplog.text
  assert status == 200 or "Trying again" in caplog.text


def test_an_address_with_a_zero_byte_is_a_file_that_is_not_there(tmp_path):
  path = tmp_path / "catalog.json"
  path.write_text(json.dumps({"type": "Catalog", "links": [{"rel": "item", "href": "file:///a%00b"}]}))
  with pytest.raises(FileNotFoundError, match="a%00b: no such file"):
    list(stac.read_items(str(path), None, Imagery()))


@pytest.mark.parametrize("assets", [{}, {"a": {"href": "a.tif"}, "b": {"href": "b.tif"}}])
def test_items_without_the_bands_are_named_with_their_file(tmp_path, assets):
  path = tmp_path / "one.json"
  path.write_text(json.dumps({**item(1, "x"), "assets": assets}))
  words = r"one\.json: item item1 has \d GeoTIFFs among its assets \((none|a, b)\)"
  with pytest.raises(ValueError, match=words):
    search.find_images(str(path), None, 3, Imagery())


@pytest.mark.parametrize(("tag", "kind"), [(270, 2), (33_000, 1), (700, 1)])
def test_tags_of_an_image_at_a_server_take_limited_memory(tmp_path, tag, kind):
  area_data.write_cog(tmp_path / "first.tif", area_data.ground(64, 64))  # GDAL reads the limit here.
  size, start, sent = 300 << 20, 4096, []
  entries = sorted([
    (256, 3, 1, 64), (257, 3, 1, 64), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
    (tag, kind, size, start), (273, 4, 1, 300), (277, 3, 1, 1), (278, 3, 1, 64), (279, 4, 1, 3000),
  ])
  directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *x) for x in entries)
  content = (b"II*\0" + struct.pack("<I", 8) + directory).ljust(start, b"\0")

  class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
      pass

    def do_GET(self):
      part = self.headers.get("Range", f"bytes=0-{start + size}")
      first, last = map(int, part.removeprefix("bytes=").split("-"))
      last = min(last, start + size - 1)
      self.send_response(206 if "Range" in self.headers else 200)
      self.send_header("Content-Range", f"bytes {first}-{last}/{start + size}")
      self.send_header("Content-Length", str(last + 1 - first))
      self.end_headers()
      body = content[first : last + 1].ljust(last + 1 - first, b"A")
      with contextlib.suppress(OSError):
        for at in range(0, len(body), 1 << 20):
          sent.append(self.wfile.write(body[at : at + (1 << 20)]))

  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.raises(ValueError, match=r"a\.tif has no place"):
      search.find_images(
        f"http://127.0.0.1:{server.server_port}/a.tif", None, 1, Imagery(timeout=5, retries=0))
    server.shutdown()
  assert sum(sent) < size * 2 / 3, sent


@pytest.mark.parametrize("line", ["", "ab", "# no image"])
def test_lists_of_very_many_lines_are_refused(tmp_path, line):
  path = tmp_path / "list.txt"
  path.write_text(f"{line}\n" * 2_000_001)
  with pytest.raises(ValueError, match=r"list\.txt has more than 2000000 lines: divide the list"):
    search.find_images(str(path), None, 3, Imagery())
