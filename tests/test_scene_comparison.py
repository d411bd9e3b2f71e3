"""Scenes of one training set: types that differ are refused, values and resolutions are warned of."""

import logging
import re
import types

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.crs import CRS

from lgag_jax.config import Config, DataConfig
from lgag_jax.doctor import image_checks, survey
from lgag_jax.geo.scene import open_scene
from lgag_jax.imagery.opening import ImageError
from lgag_jax.inputs import sources
from lgag_jax.mapping import scene_plans
from lgag_jax.options.tiling import Settings
from lgag_jax.tiling import scene_comparison, tile
from tests.test_tile import write_layer

SIDE = 64


def write(path, *, dtype="uint8", largest=255, gsd=2.0, nodata=None):
  path.parent.mkdir(parents=True, exist_ok=True)
  values = np.random.default_rng(0).uniform(1, largest, (3, SIDE, SIDE)).astype(dtype)
  with rasterio.open(
    path, "w", driver="GTiff", height=SIDE, width=SIDE, count=3, dtype=dtype, nodata=nodata,
    crs=CRS.from_epsg(32644), transform=Affine(gsd, 0, 500000, 0, -gsd, 3000000),
  ) as file:
    file.write(values)
  return path


def warnings_of(folder, first, second):
  paths = [write(folder / "a.tif", **first), write(folder / "b.tif", **second)]
  measured = {}
  for path in paths:
    with open_scene(path, 3) as scene:
      measured[path] = scene_comparison.figures(scene)
  return scene_comparison.compare(measured)


TWELVE_BITS = {"dtype": "uint16", "largest": 4095}


@pytest.mark.parametrize(("first", "second"), [
  ({}, TWELVE_BITS), (TWELVE_BITS, {"dtype": "int16", "largest": 4095}),
  ({}, {"dtype": "float32", "largest": 255}),
])
def test_scenes_of_different_types_are_refused(tmp_path, first, second):
  words = rf"a\.tif holds {first.get('dtype', 'uint8')}, but .*b\.tif holds {second['dtype']}: .*-scale"
  with pytest.raises(ValueError, match=words):
    warnings_of(tmp_path, first, second)


def test_bands_of_different_types_are_warned_of(tmp_path):
  assert bands_of_two_types(tmp_path, "uint8", "uint16").exists()
  with open_scene(tmp_path / "s.vrt", 2) as scene:
    (text,) = scene_comparison.compare({tmp_path / "s.vrt": scene_comparison.figures(scene)})
  assert "has bands of uint8 and uint16, and its tiles will hold uint16" in text


@pytest.mark.parametrize(("first", "second", "data", "words"), [
  ("uint8", "uint16", {}, "would divide uint8 by 255 and uint16 by 65535"),
  ("uint8", "float32", {}, "would divide uint8 by 255 and float32 by 1"),
  ("uint8", "uint16", {"max_value": 4095.0}, ""), ("uint8", "float32", {"normalise": "given"}, ""),
  ("uint16", "uint16", {}, ""),
])
def test_maps_mix_no_bands_that_are_scaled_differently(tmp_path, first, second, data, words):
  path = bands_of_two_types(tmp_path, first, second)
  means = {"mean": (0.0, 0.0), "std": (9e9, 9e9)} if "normalise" in data else {}
  config = Config(data=DataConfig(channels=2, **data, **means))
  with open_scene(path, 2) as scene:
    if not words:
      scene_plans.check_types(scene, config)
      return
    with pytest.raises(ImageError, match=rf"s\.vrt has bands of {first} and {second}.* {words}"):
      scene_plans.check_types(scene, config)


def bands_of_two_types(folder, *types):
  """Writes a VRT of the first bands of scenes of these types."""
  names = [write(folder / f"{i}.tif", dtype=t, largest=200).name for i, t in enumerate(types)]
  kinds = {"uint8": "Byte", "uint16": "UInt16", "float32": "Float32"}
  bands = "".join(
    f'<VRTRasterBand dataType="{kinds[dtype]}" band="{number}"><SimpleSource><SourceFilename '
    f'relativeToVRT="1">{name}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>'
    for number, (dtype, name) in enumerate(zip(types, names, strict=True), 1))
  (folder / "s.vrt").write_text(
    f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}">{bands}</VRTDataset>')
  return folder / "s.vrt"


@pytest.mark.parametrize(("first", "second", "words"), [
  ({"gsd": 10.0}, {"gsd": 0.5}, [r"b.tif has pixels of 0.5 m, but .*a.tif of 10 m"]),
  ({"gsd": 1.0}, {"gsd": 1.4}, []), ({"gsd": 1.6}, {"gsd": 1.0}, [r"b.tif has pixels of 1 m"]),
  (TWELVE_BITS, {"dtype": "uint16", "largest": 65535}, [r"a.tif reach about 4,07., but .*b.tif 65,\d"]),
  ({"dtype": "float32", "largest": 2}, {"dtype": "float32", "largest": 255}, ["a.tif reach about 2, "]),
  (TWELVE_BITS, {"dtype": "uint16", "largest": 1000}, []), ({}, {"largest": 90}, []),
  ({"largest": 9, "gsd": 30.0}, {}, ["pixels of 2 m, but", "a.tif reach about 8, but"]),
])
def test_scenes_of_other_values_or_resolutions_are_warned_of(tmp_path, first, second, words):
  texts = warnings_of(tmp_path, first, second)
  assert len(texts) == len(words)
  for text, pattern in zip(texts, words, strict=True):
    assert re.search(pattern, text)


def test_a_scene_without_data_or_place_is_compared_by_the_rest(tmp_path):
  measured = {
    tmp_path / name: scene_comparison.SceneFigures(np.dtype(np.uint8), gsd, bright)
    for name, gsd, bright in (("a", None, 250.0), ("b", 2.0, 0.0), ("c", 2.1, 240.0))
  }
  assert scene_comparison.compare(measured) == []


def test_tiles_are_not_cut_from_scenes_of_two_types(tmp_path, caplog):
  write(tmp_path / "in" / "a.tif")
  write(tmp_path / "in" / "b.tif", gsd=0.5)
  labels = write_layer(tmp_path / "labels.gpkg", [shapely.box(4, 4, 14, 14)])
  settings = Settings(
    input=str(tmp_path / "in"), labels=str(labels), output=str(tmp_path / "tiles"), tile_size=16,
    min_pixels=10, block_buffer=0,
  )
  with caplog.at_level(logging.WARNING):
    tile.cut(settings)
  assert caplog.text.count("Resample all scenes to one ground resolution") == 1
  write(tmp_path / "in" / "c.tif", **TWELVE_BITS)
  with pytest.raises(ValueError, match=r"c\.tif holds uint16"):
    tile.cut(settings)


@pytest.mark.parametrize(("resolutions", "given", "named"), [
  ((2.0, 2.0, 2.0, 10.0), 0.0, ["l3.tif: 10 m"]), ((2.0, 2.2, 2.6, 2.0), 0.0, None),
  ((0.5, 2.0, 2.0, 2.0), 0.0, ["l0.tif: 0.5 m"]), ((2.0, 2.0, 2.0, 10.0), 2.0, None),
])
def test_the_doctor_names_images_of_other_ground_resolutions(tmp_path, resolutions, given, named):
  for number, gsd in enumerate(resolutions):
    write(tmp_path / "landslide" / f"l{number}.tif", gsd=gsd)
    write(tmp_path / "non-landslide" / f"n{number}.tif")
  data = DataConfig(directory=str(tmp_path), gsd=given, validation_fraction=0.0)
  source = sources.make_source(data, "train")
  examples = [
    types.SimpleNamespace(split="train", index=i, name=name.partition("/")[2])
    for i, name in enumerate(source.ids)
  ]
  known = survey.Survey(sources={"train": source}, examples=examples)
  found = image_checks._check_resolutions(known, Config(data=data))
  assert len(found) == bool(named)
  for finding in found:
    assert "Ground resolutions are mixed" in finding.what and list(finding.files) == named
