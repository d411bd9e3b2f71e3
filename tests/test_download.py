"""Downloads from a server that breaks off, ignores ranges, changes its file or sends wrong headers."""

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
SIZE = len(CONTENT)


class Handler(http.server.BaseHTTPRequestHandler):
  """Serves `server.files`; `server.cuts` limits the bytes of successive answers."""

  def do_GET(self):
    server = self.server
    requested = self.headers.get("Range")
    server.requests.append(requested)
    content = server.files.get(self.path)
    if content is None:
      self.send_error(404)
      return
    start = 0
    if requested and server.ranges:
      start = int(re.fullmatch(r"bytes=(\d+)-", requested)[1])
      if start >= len(content):
        self.send_response(416)
        self.send_header("Content-Range", f"bytes */{len(content)}")
        self.end_headers()
        return
    self.send_response(206 if start else 200)
    if start:
      first = start + server.range_shift
      self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
    if server.sends_length:
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
  server.files, server.requests, server.cuts = {"/set.zip": CONTENT}, [], []
  server.ranges = server.sends_length = True
  server.range_shift = 0
  server.url = f"http://127.0.0.1:{server.server_port}"
  thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
  thread.start()
  yield server
  server.shutdown()
  thread.join()
  server.server_close()


def fetch(server, folder, *, checksum=SHA256, max_bytes=SIZE):
  return download.fetch(
    f"{server.url}/set.zip", folder / "set.zip", checksum=checksum, max_bytes=max_bytes
  )


def file_names(folder):
  return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("checksum", [SHA256, MD5, ""])
def test_a_file_is_downloaded_once(server, tmp_path, checksum):
  for _ in range(2):
    assert fetch(server, tmp_path, checksum=checksum).read_bytes() == CONTENT
  assert server.requests == [None]
  assert file_names(tmp_path) == ["set.zip"]


def test_a_broken_connection_is_resumed(server, tmp_path):
  server.cuts = [1000, 0, 70_000]
  assert fetch(server, tmp_path).read_bytes() == CONTENT
  assert server.requests == [None, "bytes=1000-", "bytes=1000-", "bytes=71000-"]


def test_a_later_call_resumes_the_partial_file(server, tmp_path):
  server.cuts = [5000] + [0] * download._TRIES
  with pytest.raises(download.DownloadError, match=r"set\.zip broke off after 5000 bytes"):
    fetch(server, tmp_path)
  assert file_names(tmp_path) == ["set.zip.part"]
  server.requests.clear()
  assert fetch(server, tmp_path).read_bytes() == CONTENT
  assert server.requests == ["bytes=5000-"]


def test_without_a_checksum_a_later_call_starts_again(server, tmp_path):
  (tmp_path / "set.zip.part").write_bytes(b"of another file")
  assert fetch(server, tmp_path, checksum="").read_bytes() == CONTENT
  assert server.requests == [None]


def test_a_server_without_ranges_sends_the_whole_file(server, tmp_path):
  server.ranges, server.cuts = False, [3000]
  assert fetch(server, tmp_path).read_bytes() == CONTENT
  assert server.requests == [None, "bytes=3000-"]


def test_a_range_that_was_not_requested_is_discarded(server, tmp_path):
  server.range_shift, server.cuts = 7, [3000]
  assert fetch(server, tmp_path).read_bytes() == CONTENT
  assert server.requests == [None, "bytes=3000-", None]


@pytest.mark.parametrize("part", [b"stale", CONTENT[:-1] + b"!", CONTENT + b"more"])
def test_a_partial_file_of_another_file_is_discarded(server, tmp_path, part):
  (tmp_path / "set.zip.part").write_bytes(part)
  assert fetch(server, tmp_path).read_bytes() == CONTENT
  assert server.requests[-1] is None


def test_a_complete_partial_file_needs_no_more_bytes(server, tmp_path):
  (tmp_path / "set.zip.part").write_bytes(CONTENT)
  assert fetch(server, tmp_path).read_bytes() == CONTENT
  assert server.requests == [f"bytes={len(CONTENT)}-"]


def test_a_file_with_another_checksum_is_removed(server, tmp_path):
  wrong = f"sha256:{'0' * 64}"
  with pytest.raises(download.DownloadError, match=rf"set\.zip sent {SIZE} bytes with {SHA256}, not"):
    fetch(server, tmp_path, checksum=wrong)
  assert file_names(tmp_path) == []
  (tmp_path / "set.zip").write_bytes(b"old")
  with pytest.raises(download.DownloadError, match=r"remove it to download it again"):
    fetch(server, tmp_path)


@pytest.mark.parametrize("sends_length", [True, False])
def test_more_than_expected_is_refused(server, tmp_path, sends_length):
  server.sends_length = sends_length
  with pytest.raises(download.DownloadError, match=rf"set\.zip .*the {SIZE - 1} (bytes )?expected"):
    fetch(server, tmp_path, max_bytes=SIZE - 1)
  assert file_names(tmp_path) == []


def test_errors_name_the_address(server, tmp_path):
  with pytest.raises(download.DownloadError, match=r"/none answered 404 Not Found.*by hand"):
    download.fetch(f"{server.url}/none", tmp_path / "x", max_bytes=9)
  with pytest.raises(ValueError, match=r"file:///etc/passwd is not a download address"):
    download.fetch("file:///etc/passwd", tmp_path / "x", max_bytes=9)
  with pytest.raises(ValueError, match=r"'sha256:12' is not a checksum"):
    fetch(server, tmp_path, checksum="sha256:12")


def test_a_records_files_are_downloaded_and_checked(server, tmp_path, monkeypatch):
  monkeypatch.setattr(download, "ZENODO", f"{server.url}/api")
  entry = {
    "key": "a b.zip", "size": SIZE, "checksum": MD5, "links": {"self": f"{server.url}/set.zip"},
  }
  server.files["/api/7"] = json.dumps({"files": [entry, {**entry, "key": "read me.html"}]}).encode()
  download.fetch_record(7, tmp_path, suffixes=(".zip",), max_bytes=SIZE)
  assert file_names(tmp_path) == ["a b.zip", "zenodo_7.json"]
  assert (tmp_path / "a b.zip").read_bytes() == CONTENT
  for number, change, words in (
    (8, {"key": "../evil.zip"}, "unsafe file name"), (9, {"size": SIZE + 1}, "more than"),
    (10, {"key": "a.txt"}, r"ends in \.zip"), (11, {"size": "much"}, "unexpected description"),
  ):
    server.files[f"/api/{number}"] = json.dumps({"files": [{**entry, **change}]}).encode()
    with pytest.raises(download.DownloadError, match=words):
      download.fetch_record(number, tmp_path / "new", suffixes=(".zip",), max_bytes=SIZE)
