"""What is fuzzed: every reader of the package, with valid files to begin with."""

import dataclasses
import functools
import importlib
import json
import pathlib
import shutil
import tempfile

import numpy as np
import pyogrio.raw
import shapely
from affine import Affine
from PIL import Image
from rasterio.crs import CRS
from rasterio.windows import Window

from benchmarks import fuzz_inputs, fuzz_maps, fuzz_seeds
from benchmarks.fuzz_inputs import Reader


def _module(name: str):
  return importlib.import_module(f"lgag_jax.{name}")


def _read_image(path: pathlib.Path) -> None:
  images = _module("imagery.reading")
  images.image_size.cache_clear()
  height, width = images.image_size(path)
  value = images.read_image(path, 3)
  assert value.shape == (height, width, 3)


def _read_windows(path: pathlib.Path) -> None:
  images = _module("imagery.reading")
  images.image_size.cache_clear()
  height, width = images.image_size(path)
  shape = min(height, 16), min(width, 16)
  for row, col in ((0, 0), (height // 2, width // 2), (height, width)):
    window = Window(min(col, width - shape[1]), min(row, height - shape[0]), shape[1], shape[0])
    assert images.read_image(path, 3, window).shape == (*shape, 3)
    with images.open_raster(path) as raster:
      assert images.read_mask(raster, classes=1, ignore=-1, window=window).shape == shape
      assert images.read_valid_mask(raster, window).shape == shape


def _prepare_scene(folder: pathlib.Path) -> None:
  (folder / "part.tif").write_bytes(fuzz_seeds.tiffs()[0])


def _read_scene(path: pathlib.Path) -> None:
  with importlib.import_module("lgag_jax.geo.scene").open_scene(path, 3) as scene:
    for row, col in ((0, 0), (scene.grid.height - 9, scene.grid.width - 9)):
      pixels, valid = scene.read(Window(col, row, 16, 16))
      assert pixels.shape == (16, 16, 3) and valid.shape == (16, 16)


def _read_mask(path: pathlib.Path) -> None:
  images = _module("imagery.reading")
  for classes in (1, 2):
    with images.open_raster(path) as raster:
      mask = images.read_mask(raster, classes=classes, ignore=9)
    assert set(np.unique(mask)) <= {*range(classes + 1), images.UNKNOWN}


def _read_layer(path: pathlib.Path) -> None:
  grid = _module("geo.grid").Grid(24, 24, CRS.from_epsg(32633), Affine(2.0, 0, 5e5, 0, -2.0, 5e6))
  reference = _module("geo.reference")
  with reference.open_reference(path, grid, ("a", "b"), field="type") as labels:
    assert labels.read(Window(-3, 2, 16, 16)).shape == (16, 16)
    labels.near(Window(0, 0, 8, 8), 2.0)


def _prepare_shapefile(folder: pathlib.Path) -> None:
  """Writes the other parts of the shapefile, of which only x.shp is damaged; both hold triangles."""
  polygon = shapely.Polygon([(5e5, 4_999_960), (500_020, 4_999_960), (5e5, 5e6)])
  pyogrio.raw.write(
    folder / "x.shp", shapely.to_wkb(np.array([polygon] * 2, object)),
    [np.array(["a", "b"], object)], ["type"], crs="EPSG:32633", geometry_type="Polygon",
  )


def _prepare_patches(folder: pathlib.Path) -> None:
  mask = Image.fromarray(np.eye(fuzz_seeds.SIDE, dtype=np.uint8))
  for place in ("images", "masks"):
    (folder / place).mkdir()
    for name in ("a.png", "b.png"):
      if place == "images":
        (folder / place / name).write_bytes(fuzz_seeds.pngs()[0])
      else:
        mask.save(folder / place / name)


def _read_manifest(path: pathlib.Path) -> None:
  options = {"source": "patches", "directory": str(path.parent), "tile_size": 8}
  source = _module("inputs.patches").PatchSource(_module("config").DataConfig(**options), "train")
  for index in range(min(len(source.ids), 4)):
    source.read(index)


def _read_weights(path: pathlib.Path) -> None:
  _module("trunks.weight_files").read_tensors(str(path))


def _configs() -> list[bytes]:
  return [json.dumps(dataclasses.asdict(_module("config").Config()), indent=1).encode()]


def _thresholds() -> list[bytes]:
  config = _module("config")
  maps = _module("inference.localize").map_names(config.Config())
  rules = _module("settings.maps").RULES
  content = {"step": 3, "maps": {m: {r: [0.5] for r in rules} for m in maps}}
  index = dataclasses.asdict(_module("evaluation.index_rule").ColourIndex("brightness", 1, 0.3, 0.1))
  return [json.dumps(content | more).encode() for more in ({}, {"colour_index": [index]})]


def _read_thresholds(path: pathlib.Path) -> None:
  rules, config = _module("evaluation.thresholds_file"), _module("config").Config()
  rules.load_thresholds(path.parent, config, step=3)
  rules.load_indices(path.parent, config)


def _prepare_checkpoint(folder: pathlib.Path) -> None:
  (folder / "state").mkdir()
  (folder / "state" / "data").write_bytes(b"x" * 100)
  (folder / "position").write_bytes(b"{}")


def _digests() -> list[bytes]:
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    _prepare_checkpoint(folder)
    _module("runtime.checksums").write_checksums(folder)
    return [(folder / "SHA256SUMS").read_bytes()]


def _read_digests(path: pathlib.Path) -> None:
  if damage := _module("runtime.checksums").find_damage(path.parent):
    raise ValueError(f"{path}: {damage}")  # It is returned, not raised, but counts as a refusal.


def _unpack(path: pathlib.Path) -> None:
  target, record = path.parent / "out", path.parent / ".out.json"
  try:
    _module("runtime.archives").unpack(path, target)
    assert all(entry.is_dir() or entry.is_file() for entry in target.rglob("*"))
    assert not any(entry.is_symlink() for entry in target.rglob("*"))
  finally:
    expected = (path, target, record) if target.exists() else (path,)
    left = [entry for entry in path.parent.iterdir() if entry not in expected]
    shutil.rmtree(target, ignore_errors=True)
    record.unlink(missing_ok=True)
  assert not left, f"left behind: {left}"


READERS: dict[str, Reader] = {
  "image-png": Reader("x.png", _read_image, fuzz_seeds.pngs, fuzz_inputs.repair_png),
  "image-jpeg": Reader("x.jpg", _read_image, fuzz_seeds.jpegs),
  "image-tiff": Reader("x.tif", _read_image, fuzz_seeds.tiffs),
  "windows-tiff": Reader("x.tif", _read_windows, fuzz_seeds.tiffs),
  "image-jp2": Reader("x.jp2", _read_image, fuzz_seeds.jp2s),
  "scene-vrt": Reader("x.vrt", _read_scene, fuzz_seeds.vrts, prepare=_prepare_scene),
  "mask": Reader("x.png", _read_mask, fuzz_seeds.masks, fuzz_inputs.repair_png),
  "layer-geojson": Reader("x.geojson", _read_layer, functools.partial(fuzz_seeds.layers, ".geojson")),
  "layer-gpkg": Reader("x.gpkg", _read_layer, functools.partial(fuzz_seeds.layers, ".gpkg")),
  "layer-shp": Reader(
    # Points would need another index beside them.
    "x.shp", _read_layer, lambda: fuzz_seeds.layers(".shp")[:1], prepare=_prepare_shapefile
  ),
  "manifest": Reader("manifest.csv", _read_manifest, fuzz_seeds.manifests, prepare=_prepare_patches),
  "weights-safetensors": Reader("x.safetensors", _read_weights, fuzz_seeds.safetensor_files),
  "weights-npz": Reader("x.npz", _read_weights, fuzz_seeds.npz),
  "weights-pth": Reader("x.pth", _read_weights, fuzz_seeds.pths),
  "config": Reader("config.json", lambda path: _module("config").load(path), _configs),
  "thresholds": Reader("thresholds.json", _read_thresholds, _thresholds),
  "digests": Reader(
    "SHA256SUMS", _read_digests, _digests, fuzz_inputs.repair_digests, _prepare_checkpoint
  ),
  "archive-zip": Reader("x.zip", _unpack, fuzz_seeds.zips),
  "archive-tar": Reader("x.tar", _unpack, fuzz_seeds.tars, fuzz_inputs.repair_tar),
  "archive-tar-gz": Reader(
    "x.tar.gz", _unpack, fuzz_seeds.gzipped_tars, fuzz_inputs.repacked(fuzz_inputs.repair_tar)
  ),
  **fuzz_maps.READERS,
}


def find(name: str) -> Reader:
  """Returns a reader by its name here, or as module:name."""
  module, _, attribute = name.rpartition(":")
  return getattr(importlib.import_module(module), attribute) if module else READERS[name]
