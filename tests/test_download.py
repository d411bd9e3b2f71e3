"""Downloads against a server that breaks off, ignores ranges, changes its file or lies about it."""

import hashlib
import http.server
import json
import re
import threading

import pytest

from lgag_jax.runtime import download

CONTENT = bytes(range(256)) * 2000
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
MOST = len(CONTENT)


class Handler(http.server.BaseHTTPRequestHandler):
  """Serves `server.files`, as `server.ranges` and `server.cuts`, bytes of each answer, say."""

  def do_GET(self):
    server = self.server
    asked = self.headers.get("Range")
    server.asked.append(asked)
    content = server.files.get(self.path)
    if content is None:
      self.send_error(404)
      return
    start = 0
    if asked and server.ranges:
      start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
      if start >= len(content):
        self.send_response(416)
        self.send_header("Content-Range", f"bytes */{len(content)}")
        self.end_headers()
        return
    self.send_response(206 if start else 200)
    if start:
      shown = start + server.off
      self.send_header("Content-Range", f"bytes {shown}-{len(content) - 1}/{len(content)}")
    if server.length:
      self.send_header("Content-Length", str(len(content) - start))
    self.end_headers()
    cut = server.cuts.pop(0) if server.cuts else None
    self.wfile.write(content[start:][:cut])

  def log_message(self, *_):
    pass


@pytest.fixture
def server(monkeypatch):
  monkeypatch.setattr(download, "_WAIT", 0.0)
  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
  server.files, server.asked, server.cuts = {"/set.zip": CONTENT}, [], []
  server.ranges = server.length = True
  server.off = 0
  server.url = f"http://127.0.0.1:{server.server_port}"
  thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
  thread.start()
  yield server
  server.shutdown()
  thread.join()
  server.server_close()


def fetch(server, folder, *, checksum=SHA256, max_bytes=MOST):
  return download.fetch(
    f"{server.url}/set.zip", folder / "set.zip", checksum=checksum, max_bytes=max_bytes
  )


def left(folder):
  return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("checksum", [SHA256, MD5, ""])
def test_a_file_comes_whole_and_once(server, tmp_path, checksum):
  for _ in range(2):
    assert fetch(server, tmp_path, checksum=checksum).read_bytes() == CONTENT
  assert server.asked == [None]
  assert left(tmp_path) == ["set.zip"]


def test_a_broken_connection_is_taken_up_where_it_broke(server, tmp_path):
  server.cuts = [1000, 0, 70_000]
  assert fetch(server, tmp_path).read_bytes() == CONTENT
  assert server.asked == [None, "bytes=1000-", "bytes=1000-", "bytes=71000-"]


def test_a_later_call_goes_on_where_the_first_gave_up(server, tmp_path):
  server.cuts = [5000] + [0] * download._TRIES
  with pytest.raises(download.DownloadError, match=r"set\.zip broke off after 5000 bytes"):
    fetch(server, tmp_path)
  assert left(tmp_path) == ["set.zip.part"]
  server.asked.clear()
  assert fetch(server, tmp_path).read_bytes() == CONTENT
  assert server.asked == ["bytes=5000-"]


def test_without_a_checksum_a_later_call_begins_anew(server, tmp_path):
  (tmp_path / "set.zip.part").write_bytes(b"of another file")
  assert fetch(server, tmp_path, checksum="").read_bytes() == CONTENT
  assert server.asked == [None]


def test_a_server_that_knows_no_ranges_is_asked_for_all(server, tmp_path):
  server.ranges, server.cuts = False, [3000]
  assert fetch(server, tmp_path).read_bytes() == CONTENT
  assert server.asked == [None, "bytes=3000-"]


def test_a_part_that_was_not_asked_for_is_not_taken(server, tmp_path):
  server.off, server.cuts = 7, [3000]
  assert fetch(server, tmp_path).read_bytes() == CONTENT
  assert server.asked == [None, "bytes=3000-", None]


@pytest.mark.parametrize("part", [b"stale", CONTENT[:-1] + b"!", CONTENT + b"more"])
def test_a_part_of_another_file_is_given_up(server, tmp_path, part):
  (tmp_path / "set.zip.part").write_bytes(part)
  assert fetch(server, tmp_path).read_bytes() == CONTENT
  assert server.asked[-1] is None


def test_a_part_that_is_all_needs_no_more(server, tmp_path):
  (tmp_path / "set.zip.part").write_bytes(CONTENT)
  assert fetch(server, tmp_path).read_bytes() == CONTENT
  assert server.asked == [f"bytes={len(CONTENT)}-"]


def test_another_checksum_leaves_nothing(server, tmp_path):
  wrong = f"sha256:{'0' * 64}"
  with pytest.raises(download.DownloadError, match=rf"set\.zip gave {MOST} bytes with {SHA256}, not"):
    fetch(server, tmp_path, checksum=wrong)
  assert left(tmp_path) == []
  (tmp_path / "set.zip").write_bytes(b"old")
  with pytest.raises(download.DownloadError, match=r"remove it to fetch it anew"):
    fetch(server, tmp_path)


@pytest.mark.parametrize("length", [True, False])
def test_more_than_expected_is_refused(server, tmp_path, length):
  server.length = length
  with pytest.raises(download.DownloadError, match=rf"set\.zip .*the {MOST - 1} (bytes )?expected"):
    fetch(server, tmp_path, max_bytes=MOST - 1)
  assert left(tmp_path) == []


def test_an_answer_that_is_no_file_is_named(server, tmp_path):
  with pytest.raises(download.DownloadError, match=r"/none answered 404 Not Found.*by hand"):
    download.fetch(f"{server.url}/none", tmp_path / "x", max_bytes=9)
  with pytest.raises(ValueError, match=r"file:///etc/passwd is no address"):
    download.fetch("file:///etc/passwd", tmp_path / "x", max_bytes=9)
  with pytest.raises(ValueError, match=r"'sha256:12' is no checksum"):
    fetch(server, tmp_path, checksum="sha256:12")


def test_a_record_brings_its_files_checked(server, tmp_path, monkeypatch):
  monkeypatch.setattr(download, "ZENODO", f"{server.url}/api")
  entry = {
    "key": "a b.zip", "size": MOST, "checksum": MD5, "links": {"self": f"{server.url}/set.zip"},
  }
  server.files["/api/7"] = json.dumps({"files": [entry, {**entry, "key": "read me.html"}]}).encode()
  download.fetch_record(7, tmp_path, suffixes=(".zip",), max_bytes=MOST)
  assert left(tmp_path) == ["a b.zip", "zenodo_7.json"]
  assert (tmp_path / "a b.zip").read_bytes() == CONTENT
  for number, change, words in (
    (8, {"key": "../evil.zip"}, "no plain name"), (9, {"size": MOST + 1}, "more than"),
    (10, {"key": "a.txt"}, r"ends in \.zip"), (11, {"size": "much"}, "not describe"),
  ):
    server.files[f"/api/{number}"] = json.dumps({"files": [{**entry, **change}]}).encode()
    with pytest.raises(download.DownloadError, match=words):
      download.fetch_record(number, tmp_path / "new", suffixes=(".zip",), max_bytes=MOST)
