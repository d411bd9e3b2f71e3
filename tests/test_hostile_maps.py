"""Rasters in foreign outputs: small files of many bands or of huge blocks take little memory."""


import numpy as np
import pytest
import rasterio
import rasterio.features
from affine import Affine

from lgag_jax.imagery.opening import ImageError
from lgag_jax.labelling.map_layer import MapLayer
from lgag_jax.mapping import gate_windows, preview, rasters
from tests.peak_memory import growths
from tests.test_labelling_map import write_map

MEASURE = """
import pathlib, sys
import rasterio
import rasterio.features
from affine import Affine
from lgag_jax.labelling.map_layer import MapLayer
from lgag_jax.mapping import preview
from tests import peak_memory
folder = pathlib.Path(sys.argv[1])
path = folder / "probability" / "a.tif"
def whole():
  with rasterio.open(path) as raster:
    raster.read(out_shape=(raster.count, 1500, 1500))
uses = {
  "whole": whole, "preview": lambda: preview.preview(path, [0.5] * 200),
  "layer": lambda: MapLayer(folder).draw(folder / "scene.tif", (0, 0, 600, 600), 768),
}
peak_memory.print_growths(uses)
"""


def write_sparse(path, bands, dtype="uint8", side=1500, rows=16, cols=16):
  with rasterio.open(
    path, "w", driver="GTiff", height=side, width=side, count=bands, dtype=dtype, tiled=True,
    blockxsize=cols, blockysize=rows, sparse_ok=True,
  ):
    pass
  return path


@pytest.mark.longest
def test_many_bands_take_little_memory(tmp_path):
  write_map(tmp_path, tmp_path / "scene.tif", np.zeros((1, 8, 8), np.uint8))
  path = write_sparse(tmp_path / "probability" / "a.tif", 200, side=600, rows=256, cols=256)
  assert path.stat().st_size < 200_000
  peaks = growths(MEASURE, tmp_path)
  assert peaks["whole"] > 400  # MiB: the attack is real.
  assert max(peaks["preview"], peaks["layer"]) < 300, peaks


@pytest.mark.parametrize(("given", "message"), [
  ({"bands": 2}, "has 2 bands, but it must have 1 and at most 254"),
  ({"bands": 300}, "has 300 bands, but it must have 1 and at most 254"),
  ({"bands": 1, "dtype": "float64"}, "holds float64, but a map holds uint8 or float32"),
  ({"bands": 1, "rows": 1024}, "has blocks of 1024 rows, but a map has at most 512"),
])
def test_a_raster_that_no_map_has_is_refused(tmp_path, given, message):
  path = write_sparse(tmp_path / "a.tif", **given)
  for read in (
    lambda: rasters.open_map_raster(path, 1).__enter__(), lambda: preview.preview(path, (0.5,))
  ):
    with pytest.raises(ImageError, match=rf"a\.tif {message}\. Delete it, and run the same"):
      read()


@pytest.mark.parametrize("given", [
  {"bands": 300}, {"bands": 1, "dtype": "uint16"}, {"bands": 1, "rows": 1024},
])
def test_the_layer_of_a_raster_that_no_map_has_is_refused(tmp_path, given):
  write_map(tmp_path, tmp_path / "scene.tif", np.zeros((1, 8, 8), np.uint8))
  write_sparse(tmp_path / "probability" / "a.tif", **given)
  with pytest.raises(ImageError, match=r"a\.tif ha|holds uint16"):
    MapLayer(tmp_path).draw(tmp_path / "scene.tif", (0, 0, 256, 256), 256)


def test_the_likeliest_of_several_classes_is_drawn(tmp_path, monkeypatch):
  scores = np.random.default_rng(0).integers(0, 101, (6, 40, 50), np.uint8)
  write_map(tmp_path, tmp_path / "scene.tif", scores)
  path, thresholds = tmp_path / "probability" / "a.tif", [0.5] * 6
  monkeypatch.setattr(preview, "_MIN_PIXELS", 1)
  whole = preview.preview(path, thresholds)
  assert whole.share == pytest.approx((scores.max(0) >= 50).mean())
  drawn = np.zeros((40, 50), int)
  for number, outline in whole.outlines:
    inside = rasterio.features.geometry_mask([outline], (40, 50), Affine.identity(), invert=True)
    drawn[inside] = number + 1
  np.testing.assert_array_equal(drawn, np.where(scores.max(0) >= 50, scores.argmax(0) + 1, 0))
  monkeypatch.setattr(gate_windows, "_MOST_VALUES", 6 * 25 * 25)
  shown = (scores[:, 1::2, 1::2].max(0) >= 50).mean()
  assert preview.preview(path, thresholds).share == pytest.approx(shown)
