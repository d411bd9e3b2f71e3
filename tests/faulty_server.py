"""Serves a folder over HTTP with ranges; some answers are an error, end too early or never come.

A folder of buckets is served as S3 does, bucket and key in the path.
"""

import contextlib
import http.server
import itertools
import pathlib
import re
import threading
import urllib.parse

STALL_SECONDS = 4.0


@contextlib.contextmanager
def serve(folder, faults=(), signed_by=None):
  """Yields (address, log): `faults` are the faults of the requests in turn, "" for none.

  A fault is "503", "truncate" or "stall". They begin again at the end. The log gets (fault, path).
  Requests that the access key `signed_by` has not signed are refused; with "", those that are signed.
  """
  log, turns, ended = [], itertools.cycle(faults or ("",)), threading.Event()
  lock = threading.Lock()

  class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
      pass

    def do_HEAD(self):
      self.do_GET()

    def do_GET(self):
      path = pathlib.Path(folder, urllib.parse.unquote(self.path.lstrip("/").partition("?")[0]))
      if not path.is_file():
        return self.answer(404, b"")
      signed = re.search(r"Credential=(\w+)/", self.headers.get("Authorization", ""))
      if signed_by is not None and signed_by != (signed[1] if signed else ""):
        return self.answer(403, b"<Error><Code>AccessDenied</Code></Error>")
      with lock:
        fault = next(turns)
        log.append((fault, self.path))
      if fault == "503":
        return self.answer(503, b"busy")
      if fault == "stall" and ended.wait(STALL_SECONDS):
        return None
      content = path.read_bytes()
      total = len(content)
      match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
      headers, code = {}, 200
      if match:
        first, last = int(match[1]), min(int(match[2] or total - 1), total - 1)
        if first >= total:
          return self.answer(416, b"", {"Content-Range": f"bytes */{total}"})
        content, code = content[first : last + 1], 206
        headers["Content-Range"] = f"bytes {first}-{last}/{total}"
      return self.answer(code, content, headers, cut=fault == "truncate")

    def answer(self, code, content, headers=(), cut=False):
      with contextlib.suppress(OSError):
        self.send_response(code)
        for name, value in dict(headers).items():
          self.send_header(name, value)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
          self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
          self.close_connection = True

  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
  server.handle_error = lambda *_: None  # Clients that have waited long enough hang up.
  server.daemon_threads = True
  thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
  thread.start()
  try:
    yield f"http://127.0.0.1:{server.server_port}", log
  finally:
    ended.set()
    server.shutdown()
    server.server_close()
    thread.join()
