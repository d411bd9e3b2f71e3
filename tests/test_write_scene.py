"""Synthetic scenes as GeoTIFF: georeferenced, with a mask, and written completely or not at all."""

import numpy as np
import pytest
import rasterio

from data.synthetic_landslides import drawing, write_scene


def test_write_scene_is_georeferenced_and_matches_its_mask(tmp_path):
  image_path, mask_path = write_scene.write_scene(
    tmp_path / "scene.tif",
    seed=3,
    height=540,
    width=700,
    gsd_m=0.25,
    crs="EPSG:32645",
    origin=(400000.0, 3000000.0),
    nodata_margin=30,
  )
  assert sorted(path.name for path in tmp_path.iterdir()) == ["scene.tif", "scene_mask.tif"]
  image, mask = drawing.draw_scene(3, 540, 700)
  with rasterio.open(image_path) as scene, rasterio.open(mask_path) as truth:
    assert scene.crs.to_epsg() == truth.crs.to_epsg() == 32645
    assert scene.transform == truth.transform
    assert scene.xy(0, 0, offset="ul") == (400000.0, 3000000.0)
    assert scene.res == (0.25, 0.25)
    assert scene.block_shapes == [(256, 256)] * 3
    assert scene.shape == truth.shape == (540, 700)
    valid = scene.dataset_mask() > 0
    np.testing.assert_array_equal(truth.read(1) == truth.nodata, ~valid)
    np.testing.assert_array_equal(truth.read(1)[valid], mask[valid])
    np.testing.assert_array_equal(np.moveaxis(scene.read(), 0, -1)[valid], image[valid])
    assert not scene.read()[:, ~valid].any()
  assert 0.6 < valid.mean() < 0.95
  assert not valid[0].any() and not valid[:, 0].any() and valid[270, 350]


def test_write_scene_rotated_and_without_margin(tmp_path):
  image_path, mask_path = write_scene.write_scene(
    tmp_path / "a.tif", seed=1, height=64, width=80, angle_deg=30
  )
  with rasterio.open(image_path) as scene:
    assert scene.transform.b != 0
    np.testing.assert_allclose(scene.res, (0.5, 0.5), rtol=1e-6)
    assert (scene.dataset_mask() == 255).all()
  with rasterio.open(mask_path) as truth:
    assert set(np.unique(truth.read(1))) <= {0, 1}


@pytest.mark.parametrize(
  ("change", "message"),
  [({"height": 10}, "height=10"), ({"gsd_m": 0}, "gsd_m=0"), ({"nodata_margin": 40}, "margin=40")],
)
def test_write_scene_refuses_invalid_options(tmp_path, change, message):
  options = {"seed": 0, "height": 64, "width": 64} | change
  with pytest.raises(ValueError, match=message):
    write_scene.write_scene(tmp_path / "a.tif", **options)
  assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_no_files(tmp_path, monkeypatch):
  def fail(*args):
    raise OSError("No space left on device")

  monkeypatch.setattr(drawing, "render", fail)
  with pytest.raises(OSError, match="No space"):
    write_scene.write_scene(tmp_path / "a.tif", seed=0, height=64, width=64)
  assert not list(tmp_path.iterdir())
