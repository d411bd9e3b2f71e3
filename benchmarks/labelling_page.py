"""Is the labelling page quick with thousands of tiles? Measured in headless Chromium.

python -m benchmarks.labelling_page --output=runs/labelling_page --tiles 5000

Opens the page of a synthetic scene, scrolls through all tiles, then answers some by keys. Prints the
seconds until the first tiles are visible, the memory of the browser's processes before and after
scrolling, slow frames, and the seconds from a key to the answer on the server's disk and to the next
suggestions on the page, while the server still looks at the tiles. Needs selenium, chromium and
chromedriver.
"""

import argparse
import contextlib
import math
import pathlib
import re
import shutil
import time
from collections.abc import Iterator

import numpy as np
import rasterio
from selenium import webdriver

from benchmarks import page_server
from data.synthetic_landslides import drawing

SIDE = 128  # Pixels of a tile.
_DRAWN = 1024  # Side of the drawing, which the scene repeats.
_SLOW = 1000 / 30  # Milliseconds of a frame.
_WARM_UP = 10  # Answers before the page suggests tiles; they are not measured.
_MEASURED = 20  # Answers.

# Resolves as soon as the pictures of all visible tiles are loaded.
_FIRST_TILES = """
const done = arguments[0], sheet = document.getElementById("sheet").getBoundingClientRect();
(function look() {
  const shown = [...document.querySelectorAll(".tile .picture img:first-child")].filter((image) => {
    const place = image.getBoundingClientRect();
    return place.bottom > sheet.top && place.top < sheet.bottom;
  });
  const loaded = shown.length && shown.every((image) => image.complete && image.naturalWidth);
  if (loaded) done([performance.now() / 1000, shown.length]);
  else setTimeout(look, 5);
})();
"""
# Scrolls by a third of a screen per frame to the end; resolves with the milliseconds of each frame.
_SCROLL = """
const done = arguments[0], sheet = document.getElementById("sheet"), frames = [];
let last = performance.now();
requestAnimationFrame(function step(now) {
  frames.push(now - last);
  last = now;
  const before = sheet.scrollTop;
  sheet.scrollTop += sheet.clientHeight / 3;
  if (sheet.scrollTop > before) requestAnimationFrame(step);
  else done(frames);
});
"""
# Notes the server's replies to the page.
_WATCH = """
window.replies = [];
const original = window.fetch;
window.fetch = async (...request) => {
  const response = await original(...request), path = String(request[0]);
  const { revision } = path.startsWith("learned") ? await response.clone().json() : {};
  window.replies.push({ path, revision, time: performance.now() });
  return response;
};
"""
# Presses a key; resolves with the seconds to the reply about the answer and to newer suggestions.
_ANSWER = """
const [key, done] = arguments;
window.replies = [];
(function press() {
  const before = window.replies.find(({ revision }) => revision !== undefined);
  if (!before) return setTimeout(press, 20);
  const begin = performance.now();
  document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  (function look() {
    const saved = window.replies.find(({ path }) => path === "answers");
    const newer = window.replies.find(({ revision }) => revision > before.revision);
    if (!saved || !newer) return setTimeout(look, 20);
    done([(saved.time - begin) / 1000, (newer.time - begin) / 1000]);
  })();
})();
"""


def write_scene(path: pathlib.Path, tiles: int) -> int:
  """Writes a scene of at least so many tiles unless it is there; returns their number."""
  rows = math.isqrt(tiles)
  cols = -(-tiles // rows)
  if not path.exists():
    pixels = drawing.draw_scene(0, _DRAWN, _DRAWN)[0]
    repeats = -(-rows * SIDE // _DRAWN), -(-cols * SIDE // _DRAWN), 1
    whole = np.moveaxis(np.tile(pixels, repeats)[: rows * SIDE, : cols * SIDE], -1, 0)
    with rasterio.open(
      path, "w", driver="GTiff", height=rows * SIDE, width=cols * SIDE, count=3, dtype="uint8",
      tiled=True, compress="deflate", crs="EPSG:32633",
      transform=rasterio.Affine(0.5, 0, 5e5, 0, -0.5, 5.2e6),
    ) as raster:
      raster.write(whole)
  return rows * cols


@contextlib.contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
  """Starts headless Chromium; raises SystemExit where it is not installed."""
  binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
  if not (binary and driver):
    raise SystemExit("Install the browser first: apt-get install chromium chromium-driver")
  options = webdriver.ChromeOptions()
  options.binary_location = binary
  for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,800"):
    options.add_argument(flag)
  browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
  browser.set_script_timeout(600)
  try:
    yield browser
  finally:
    browser.quit()


def memory(process: int) -> float:
  """Returns the memory in MiB of a process and those below it; shared pages count by shares."""
  root, kibibytes = pathlib.Path(f"/proc/{process}"), 0
  with contextlib.suppress(OSError):
    found = re.findall(r"^Pss: +(\d+)", (root / "smaps_rollup").read_text(), re.MULTILINE)
    kibibytes = int(found[0]) if found else 0
    children = " ".join(path.read_text() for path in root.glob("task/*/children")).split()
    return kibibytes / 1024 + sum(memory(int(child)) for child in children)
  return kibibytes / 1024


def measure(address: str, browser: webdriver.Chrome) -> dict[str, float]:
  """Returns the figures of a page."""
  browser.get(address)
  first, shown = browser.execute_async_script(_FIRST_TILES)
  before = memory(browser.service.process.pid)
  frames = np.array(browser.execute_async_script(_SCROLL))
  time.sleep(3)  # The pictures at the end load.
  after = memory(browser.service.process.pid)
  elements = browser.execute_script("return document.querySelectorAll('.tile').length")
  browser.execute_script("document.getElementById('sheet').scrollTop = 0")
  browser.execute_script(_WATCH)
  answers = [browser.execute_async_script(_ANSWER, "yn"[n % 2]) for n in range(_WARM_UP + _MEASURED)]
  saved, suggested = np.array(answers[_WARM_UP:]).T
  return {
    "first": first, "shown": shown, "before": before, "after": after, "elements": elements,
    "frame": float(np.median(frames)), "slow": float(np.mean(frames > _SLOW)),
    "saved": float(np.median(saved)), "slowest_saved": saved.max(),
    "suggested": float(np.median(suggested)), "slowest_suggested": suggested.max(),
  }


def text(tiles: int, figures: dict[str, float]) -> str:
  """Returns the figures in words."""
  return (
    "{tiles} tiles: the first {shown} are visible after {first:.2f} s. The browser takes {before:.0f} "
    "MiB, and {after:.0f} MiB after scrolling through all of them, with {elements} tiles as elements. "
    "A frame takes {frame:.0f} ms; {slow:.0%} are slow. An answer is on disk after {saved:.3f} s, at "
    "most {slowest_saved:.3f}; the next suggestions are there after {suggested:.2f} s, at most "
    "{slowest_suggested:.2f}."
  ).format(tiles=tiles, **figures)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--output", type=pathlib.Path, required=True)
  parser.add_argument("--tiles", type=int, default=5000)
  arguments = parser.parse_args()
  folder = arguments.output.absolute()
  folder.mkdir(parents=True, exist_ok=True)
  tiles = write_scene(folder / "scene.tif", arguments.tiles)
  shutil.rmtree(folder / "labels", ignore_errors=True)
  with (
    page_server.serve(folder / "scene.tif", folder, f"--tile_size={SIDE}") as server,
    chromium() as browser,
  ):
    print(text(tiles, measure(server.address, browser)))


if __name__ == "__main__":
  main()
