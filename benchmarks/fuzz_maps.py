"""What is fuzzed of catalogues, cloud masks, bands, labels and maps, with valid files to begin with."""

import contextlib
import dataclasses
import importlib
import io
import json
import pathlib
import shutil

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.windows import Window

from benchmarks import fuzz_inputs, fuzz_seeds
from benchmarks.fuzz_inputs import Reader

_PLACE = {"crs": CRS.from_epsg(32633), "transform": rasterio.Affine(2.0, 0.0, 5e5, 0.0, -2.0, 5e6)}
_SHAPE, _CLASSES = (8, 9), 2  # Of the cells of a preview.


def _module(name: str):
  return importlib.import_module(f"lgag_jax.{name}")


def _item() -> dict:
  ring = [[15.0, 45.15], [15.002, 45.15], [15.002, 45.152], [15.0, 45.152], [15.0, 45.15]]
  image = {"href": "./a.tif?b=1", "type": "image/tiff; application=geotiff", "roles": ["data"]}
  bands = [{"name": name, "common_name": name, "scale": 0.1, "nodata": "nan"} for name in "rgb"]
  return {
    "type": "Feature", "stac_version": "1.0.0", "id": "one", "collection": "ground",
    "geometry": {"type": "Polygon", "coordinates": [ring]}, "bbox": [15.0, 45.15, 15.002, 45.152],
    "properties": {"datetime": "2015-05-01T12:00:00Z", "eo:cloud_cover": 3.5, "updated": "x"},
    "links": [{"rel": "self", "href": "./x.json"}],
    "assets": {"visual": {**image, "eo:bands": bands, "raster:bands": bands}, "SCL": image},
  }


def _catalogues() -> list[bytes]:
  """An item, a collection of items, and a catalogue."""
  links = [{"rel": rel, "href": href} for rel, href in (("item", "./item.json"), ("self", "x.json"))]
  head = {"stac_version": "1.1.0", "id": "area", "description": "Test.", "links": links}
  collection = {"type": "FeatureCollection", "features": [_item(), {**_item(), "id": "two"}]}
  return [json.dumps(one).encode() for one in (_item(), collection, {"type": "Catalog", **head})]


def _prepare_catalogue(folder: pathlib.Path) -> None:
  (folder / "item.json").write_text(json.dumps(_item()))
  (folder / "a.tif").write_bytes(fuzz_seeds.tiffs()[1])


def _read_catalogue(path: pathlib.Path) -> None:
  imagery = _module("options.area").Imagery
  for settings in (imagery(), imagery(assets=("r", "g", "b"), dates="2015-05-01", max_cloud=50.0)):
    try:
      images = _module("catalogues.search").find_images(str(path), None, 3, settings)
    except FileNotFoundError as error:
      raise FileNotFoundError(f"{path}: {error}") from error  # Of a file that it names.
    assert all(len(image.bands) == 3 and image.key and image.footprint.area > 0 for image in images)


def _cloud_masks() -> list[bytes]:
  """A scene classification, a QA_PIXEL, a mask with nodata."""
  values = fuzz_seeds.pixels(40, 40).astype(int)
  return [
    fuzz_seeds.tiff((values % 12).astype(np.uint8), compress="deflate", **_PLACE),
    fuzz_seeds.tiff(np.where(values > 99, 21824, 22280).astype(np.uint16), **_PLACE),
    fuzz_seeds.tiff((values % 2).astype(np.uint8), nodata=255, **_PLACE),
  ]


def _read_clouds(path: pathlib.Path) -> None:
  grid = _module("geo.grid").Grid(50, 40, _PLACE["crs"], _PLACE["transform"])
  clouds, cover = _module("geo.clouds").open_clouds(path, path.parent / "x-scene.tif", grid, "auto")
  with contextlib.closing(clouds):
    assert clouds.hidden(Window(4, 4, 20, 30), (15, 10)).shape == (15, 10)
    assert 0 <= cover.clouded <= 1 and 0 <= cover.unknown <= 1


def _banded() -> list[bytes]:
  """Scenes whose bands have names, colours and tags."""
  result = []
  for dtype in (np.uint8, np.float32):
    with rasterio.MemoryFile(ext=".tif") as memory:
      bands = fuzz_seeds.pixels(4, 40, 40).astype(dtype) / dtype(1 if dtype == np.uint8 else 255)
      with memory.open(
        driver="GTiff", dtype=dtype, count=4, height=40, width=40, photometric="MINISBLACK", **_PLACE
      ) as raster:
        raster.write(bands.astype(dtype))
        raster.descriptions = ("red", "green", "nir", "NDVI")
        raster.update_tags(4, LGAG_QUANTITY="ndvi", LGAG_RANGE="-1,1")
      result.append(memory.read())
  return result


def _add_bands(path: pathlib.Path) -> None:
  output = path.parent / "out"
  settings = _module("options.bands").Settings(str(path), str(output), ("ndvi",))
  try:
    _module("bands.add").add(settings)
    notes = _module("imagery.band_notes")
    with _module("geo.scene").open_scene(output / path.name, 5) as scene:
      assert notes.added(scene.notes)[-1] == len(scene.notes)
  finally:
    shutil.rmtree(output, ignore_errors=True)


def _answers() -> list[bytes]:
  """As lgag writes it, of an earlier release, and as a spreadsheet saves it."""
  head = "scene,row,col,label,tile_size,scene_grid,time\n"
  rows = (
    'a.tif,0,1,landslide,64,"EPSG:32633 40x40",2026-01-01T10:00:00.000+00:00\n'
    "a.tif,0,2,,64,,2026-01-01T10:00:01.000+00:00\n'=b.tif,3,4,unknown,64,,\n"
  )
  earlier = "scene,row,col,label,tile_size,time\na.tif,0,1,non-landslide,64,2026-01-01T10:00:00+00:00\n"
  return [
    f"{head}{rows}".encode(), earlier.encode(),
    f"\ufeff{head}{rows}".replace(",", ";").replace("\n", "\r\n").encode(),
  ]


def _read_answers(path: pathlib.Path) -> None:
  settings = _module("options.tiling").Settings("x", "x", str(path))
  try:
    for _ in range(2):  # What the first made of it is sound.
      answers = _module("labelling.answers").Answers(path.parent, settings)
      assert {"landslide", "non-landslide", "unknown"} >= {one.label for one in answers.latest.values()}
  finally:
    for kept in path.parent.glob("*.original*.csv"):
      kept.unlink()


def _npz(**arrays: np.ndarray) -> list[bytes]:
  """Stored, so that a changed number is one of an array, and compressed."""
  result = []
  for save in (np.savez, np.savez_compressed):
    buffer = io.BytesIO()
    save(buffer, allow_pickle=False, **arrays)
    result.append(buffer.getvalue())
  return result


def _gates() -> list[bytes]:
  places = np.array([(0, 8, 0, 5), (0, 8, 3, 9), (4, 4, 0, 9)], np.int32)
  sizes = (places[:, 1] - places[:, 0]) * (places[:, 3] - places[:, 2]) * _CLASSES
  scores = np.linspace(0, 1, 3 * _CLASSES, dtype=np.float32).reshape(3, _CLASSES)
  return _npz(image_scores=scores, places=places, values=fuzz_seeds.pixels(sizes.sum()))


def _read_gate(path: pathlib.Path) -> None:
  windows = _module("mapping.gate_windows").read(path, _SHAPE, _CLASSES)
  scores, changed = windows.at(0.3, 0.7, _SHAPE)
  assert scores.shape == changed.shape == (*_SHAPE, _CLASSES)
  assert np.isfinite(scores).all() and 0 <= windows.count_open(0.5) <= len(windows.places)


def _evidence():
  evidence = _module("inference.colour_evidence")
  table = np.linspace(-1, 1, evidence.BINS**3, dtype=np.float32)[None]
  ones = np.ones(3, np.float32)
  weights = evidence.no_image_weights(1)
  return evidence.ColourEvidence(table, ones[:1], weights, -ones, ones, (1, 2, 3), True)


def _evidences() -> list[bytes]:
  return _npz(**{
    name: np.array(value) for name, value in dataclasses.asdict(_evidence()).items()
  })


def _read_evidence(path: pathlib.Path) -> None:
  config = _module("config").Config()
  load = _module("inference.colour_evidence").load
  assert load(path.parent, config, _evidence().digest()) is not None


READERS: dict[str, Reader] = {
  "catalogue": Reader("x.json", _read_catalogue, _catalogues, prepare=_prepare_catalogue),
  "clouds": Reader("x.tif", _read_clouds, _cloud_masks),
  "bands": Reader("x.tif", _add_bands, _banded),
  "answers": Reader("x.csv", _read_answers, _answers),
  "gate": Reader("x.npz", _read_gate, _gates, fuzz_inputs.repair_zip),
  "colour-evidence": Reader(
    "colour_evidence.npz", _read_evidence, _evidences, fuzz_inputs.repair_zip),
}
