# ruff: noqa: F401, F811
"""Pictures of maps: the map, the image without it and the one before, and their slider on the page."""

import base64
import io
import json
import re

import numpy as np
import pytest
from affine import Affine
from PIL import Image
from rasterio.crs import CRS

from lgag_jax.geo.companions import SceneFiles
from lgag_jax.geo.grid import Grid
from lgag_jax.mapping import density, overlay, rasters, scene_page
from lgag_jax.mapping.predict import map_scenes
from lgag_jax.options.mapping import Options
from tests.test_map_names import model, write
from tests.test_mapping import CONFIG, batch_sizes, picture, write_scene

MASK = np.zeros((70, 90), np.uint8)
MASK[10:30, 20:50], MASK[60:, :] = 1, rasters.NO_DATA


def close(image, expected, tolerance=6.0):
  """Returns whether a JPEG shows the pixels u8[h, w, 3]."""
  return np.abs(np.asarray(image, np.float64) - expected).mean() < tolerance


@pytest.fixture
def mask(tmp_path):
  write_scene(tmp_path / "mask.tif", np.repeat(MASK[..., None], 3, -1))
  with rasters.open_map_raster(tmp_path / "mask.tif", 3) as opened:
    yield opened


@pytest.mark.parametrize("limit", [90, 45, 18])
def test_pictures_of_both_dates_show_the_same_place(tmp_path, mask, monkeypatch, limit):
  monkeypatch.setattr(overlay, "MAX_SIDE", limit)
  monkeypatch.setattr(overlay, "_ROWS_AT_ONCE", 24)
  after, before = (picture(70, 90, seed) for seed in (1, 2))
  paths = [write_scene(tmp_path / f"{i}.tif", image) for i, image in enumerate((after, before))]
  options = Options(max_shift=0.0)
  shown = overlay.pictures(SceneFiles(*paths), mask, CONFIG, options)
  alone = overlay.pictures(SceneFiles(paths[0]), mask, CONFIG, options)
  assert len(shown) == 3 and len(alone) == 2
  factor = -(-90 // limit)
  rows, cols = -(-70 // factor), -(-90 // factor)
  assert {image.size for image in (*shown, *alone)} == {(cols, rows)}
  for image, pixels in zip(shown[1:], (after, before), strict=True):
    blocks = pixels[:60].reshape(60 // factor, factor, 90 // factor, factor, 3).mean((1, 3))
    part = np.asarray(image)[: 60 // factor, : 90 // factor]
    np.testing.assert_allclose(part, blocks, atol=6 if factor > 1 else 0)
    assert (np.asarray(image)[-(-60 // factor) + 1 :] == 255).all()  # Nodata.
  tinted = (np.asarray(shown[0]).astype(int) != np.asarray(shown[1])).any(-1)
  slide = tinted[12 // factor : 28 // factor, 22 // factor : 48 // factor]
  assert slide.all() and not tinted[40 // factor :].any()
  if factor == 1:
    np.testing.assert_array_equal(shown[0], overlay.overlay_image(paths[0], mask, CONFIG, options))


@pytest.mark.usefixtures("batch_sizes")
def test_the_page_compares_the_map_with_the_image(model, tmp_path):
  scene, output = write(tmp_path / "in" / "scene.tif", 1, size=48), tmp_path / "maps"
  map_scenes(model, scene, output)
  page = (output / "report.html").read_text()
  assert re.findall("<figcaption>(.*?)</figcaption>", page) == ["Image", "Map"]
  assert page.count('type="range"') == page.count("<script>") == 1 and "src=\"data:" in page
  images = [
    Image.open(io.BytesIO(base64.b64decode(data)))
    for data in re.findall('src="data:image/jpeg;base64,([^"]*)"', page)
  ]
  assert close(images[0], picture(48, 48, 1)) and not close(images[1], picture(48, 48, 1))
  for name in ("image/scene_tif.jpg", "overlay/scene_tif.png"):
    (output / name).write_bytes(b"II*\0")
    with pytest.raises(scene_page.ImageError, match=f"{name} is not a picture of a map.*Delete it"):
      scene_page._pictures([record(output)], {"scene_tif": "scene.tif"}, output)
    (output / name).unlink()
  (_, missing), = scene_page._pictures([record(output)], {"scene_tif": "scene.tif"}, output)
  assert missing == str(output / "overlay/scene_tif.png")


@pytest.mark.parametrize("name", ["overlay/a_tif.png", "image/a_tif.jpg", "eval/a_tif.png"])
def test_the_page_shows_no_picture_from_elsewhere(tmp_path, name):
  output, private = tmp_path / "maps", tmp_path / f"private{name[-4:]}"
  for path in (private, *(output / own for own in (*overlay.file_names("a_tif", 1), "eval/a_tif.png"))):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(path)
  result = {"stem": "a_tif", "files": overlay.file_names("a_tif", 1)}

  def show():
    if name.startswith("eval/"):
      return scene_page._map_pictures(result, {"a_tif": "a.tif"}, output / "eval", "evaluated")
    return scene_page._pictures([result], {"a_tif": "a.tif"}, output)[0][1]

  whole = show()
  (output / name).unlink()
  (output / name).symlink_to(private)
  with pytest.raises(ValueError, match=f"{name} is a symbolic link"):
    show()
  (output / name).unlink()
  private.rename(output / name)  # It is a picture that the page would show.
  assert show() == whole


@pytest.mark.parametrize("is_link", [False, True])
def test_the_page_shows_no_density_from_elsewhere(tmp_path, is_link):
  grid = Grid(500, 500, CRS.from_epsg(32645), Affine(10, 0, 500_000, 0, -10, 3_000_000))
  cells = density.cells_of(grid)
  cells.add_rows(0, np.ones((500, 500), np.uint8))
  density.write(cells, tmp_path / "others", "a_tif")
  path = tmp_path / "maps" / "density" / "a_tif.tif"
  path.parent.mkdir(parents=True)
  other = tmp_path / "others" / "density" / "a_tif.tif"
  path.symlink_to(other) if is_link else other.rename(path)
  show = lambda: scene_page._densities(
    [{"stem": "a_tif", "density_cell_m": 100.0}], {"a_tif": "a.tif"}, tmp_path / "maps"
  )
  if is_link:
    with pytest.raises(ValueError, match=r"density/a_tif\.tif is a symbolic link"):
      show()
  else:
    assert len(show()) == 1


def record(output):
  return json.loads((output / "scenes" / "scene_tif.json").read_text())


@pytest.mark.parametrize(("dates", "compared"), [(1, 12), (2, 6)])
def test_a_page_holds_twice_as_many_pictures_as_scenes_at_most(tmp_path, dates, compared):
  stems = [f"s{i}_tif" for i in range(13)]
  for stem in stems:
    for name in overlay.file_names(stem, dates):
      (tmp_path / name).parent.mkdir(exist_ok=True)
      Image.new("RGB", (8, 8)).save(tmp_path / name)
  results = [{"stem": stem, "files": overlay.file_names(stem, dates)} for stem in stems]
  results[-1]["files"] = []  # Of an earlier release; an image of that name is the user's own.
  labels = {stem: stem for stem in stems}
  shown = scene_page._pictures(results[:12], labels, tmp_path)
  assert [len(pictures) for _, pictures in shown] == [1 + dates] * compared + [1] * (12 - compared)
  captions = {tuple(caption for caption, _ in pictures) for _, pictures in shown}
  assert captions == ({("Image", "Map")} if dates == 1 else {("Before", "After", "Map"), ("Map",)})
  assert [len(pictures) for _, pictures in scene_page._pictures(results[-1:], labels, tmp_path)] == [1]
