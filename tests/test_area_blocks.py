"""Blocks cover an area once, and their maps and polygons are those of the area as one piece."""

import dataclasses
import json
import re
import types

import numpy as np
import pyarrow.parquet
import pyogrio
import pyproj
import pytest
import rasterio
import rasterio.merge
import rasterio.warp
import scipy.ndimage
import shapely
from affine import Affine
from PIL import Image, ImageColor

from lgag_jax import config as configs
from lgag_jax.blocks import area_job, map_block, plan, quick_look, region_files, seams
from lgag_jax.blocks.block_arrays import Sides
from lgag_jax.blocks.plan import Block, BlockSize
from lgag_jax.geo.scale import Scale
from lgag_jax.mapping import qgis_style, rasters, regions, scene_tables, size_sections
from lgag_jax.mapping.loaded_model import LoadedModel
from lgag_jax.mapping.rasters import NO_DATA
from lgag_jax.options.area import Area, Engine, Imagery
from tests import area_data, untrained
from tests.conftest import make_small_config
from tests.stub_network import BRIGHT, Stub

RGB = Imagery(assets=area_data.NAMES)
SIZE = BlockSize(96, 64, 4)


@pytest.mark.parametrize(("pixels", "side", "step", "expected"), [
  (4096, 192, 144, (4032, 144, 48)), (64, 96, 64, (64, 64, 32)), (100, 100, 100, (100, 0, 0)),
  (100, 96, 24, (96, 72, 72)),
])
def test_the_windows_that_overlap_a_block_lie_in_its_halo(pixels, side, step, expected):
  size = BlockSize.fitting(pixels, side, step)
  assert (size.core, size.lead, size.trail) == expected
  starts = [n * step for n in range(-50, 100) if -side < n * step < size.core]
  assert starts[0] == -size.lead and starts[-1] + side == size.core + size.trail


def test_blocks_cover_an_area_once_and_always_the_same():
  area = shapely.Polygon([(84.2, 27.1), (84.9, 27.3), (84.4, 27.9)])
  footprints = [shapely.box(84.0, 27.0, 84.5, 28.0), shapely.box(84.4, 27.0, 85.0, 28.0)]
  blocks = plan.plan_blocks(area, 100.0, SIZE, footprints)
  assert blocks == plan.plan_blocks(area, 100.0, SIZE, footprints)
  other_area = area.buffer(0.2)
  others = {block.name: block for block in plan.plan_blocks(other_area, 100.0, SIZE, footprints)}
  assert len(others) > len(blocks)
  assert all(others[block.name] == block for block in blocks)
  boxes, halos = [], []
  for block in blocks:
    for halo, shapes in ((False, boxes), (True, halos)):
      grid = plan.block_grid(block, 100.0, SIZE, halo=halo)
      corners = [grid.transform @ corner for corner in ((0, 0), (grid.width, grid.height))]
      shapes.append(shapely.box(*corners[0], *corners[1]))
  zone_area = plan.to_zone(area, 32645) if blocks[0].epsg == 32645 else plan.to_zone(area, 32644)
  union = shapely.union_all(boxes)
  assert union.area == pytest.approx(sum(box.area for box in boxes))
  assert union.covers(zone_area) and all(box.intersects(zone_area) for box in boxes)
  for block, halo in zip(blocks, halos, strict=True):
    near = tuple(
      n for n, one in enumerate(footprints) if plan.to_zone(one, block.epsg).intersects(halo)
    )
    assert block.images == near


def test_a_place_belongs_to_the_zones_around_it():
  at = lambda lon, lat: {
    block.epsg for block in plan.plan_blocks(
      None, 100.0, SIZE, [shapely.box(lon - 0.1, lat - 0.1, lon + 0.1, lat + 0.1)]
    )
  }
  assert at(85.0, 27.0) == {32645}
  assert at(84.0, 27.0) == {32644, 32645}
  assert at(-60.5, -33.0) == {32720}
  assert at(3.0, 0.0) == {32631, 32731, 32630, 32730} - {32630, 32730}
  assert at(179.85, 10.0) == {32660} and at(-179.85, 10.0) == {32601}
  with pytest.raises(ValueError, match="UTM from -80 to 84"):
    at(0.0, 85.0)


def write_region_file(folder, name, mask, scores, classes):
  """Writes the regions of a block's mask and scores, as `map_block` does; returns nothing."""
  grid = plan.block_grid(Block(32645, 0, 0), 10.0, BlockSize(1, 1, len(mask)))
  with (
    rasters.write_and_open(
      folder / "p", grid, classes, np.dtype(np.uint8), iter([(0, scores)]), ("a",) * classes,
      averaged=True,
    ) as probability,
    rasters.write_and_open(
      folder / "m", grid, 1, np.dtype(np.uint8), iter([(0, mask[..., None])]), ("c",), averaged=False,
    ) as raster,
  ):
    found = list(regions.find_regions(raster, probability, classes))
  unknown = Sides(*np.zeros((4, len(mask)), bool))
  region_files.write(folder / f"{name}.npz", found, mask, unknown)
  return found


def as_rows(groups, shift=(0, 0)):
  """Returns the regions as comparable rows, whatever their order."""
  rows = []
  for group in groups:
    for i, outline in enumerate(group.outlines):
      outline = shapely.normalize(shapely.transform(outline, lambda points: points + np.array(shift)))
      rows.append((
        int(group.class_index[i]), int(group.pixels[i]), int(group.known[i]), round(group.mean[i], 9),
        round(group.maximum[i], 9), bool(group.touches_missing[i]), outline.wkt,
      ))
  return sorted(rows)


@pytest.mark.parametrize("share", [0.35, 0.6])
def test_regions_over_blocks_are_those_of_the_whole(tmp_path, share, rng):
  side, rows, cols, classes = 24, 3, 4, 2
  noise = scipy.ndimage.gaussian_filter(rng.normal(size=(rows * side, cols * side)), 1.5)
  whole = np.where(noise > np.quantile(noise, 1 - share), 1, 0).astype(np.uint8)
  whole[(whole == 1) & (rng.random(whole.shape) < 0.02)] = 2
  whole[side - 5 : side + 3, 2 * side - 4 : 2 * side + 6] = NO_DATA
  whole[2 * side :, : side] = NO_DATA  # A block without data.
  scores = rng.integers(0, 101, (*whole.shape, classes)).astype(np.uint8)
  scores[whole == NO_DATA] = NO_DATA
  scores[5, 5] = NO_DATA
  square = np.full((4 * side, 4 * side), NO_DATA, np.uint8)  # Of which the files are written.
  square[: rows * side] = whole
  padded = np.full((*square.shape, classes), NO_DATA, np.uint8)
  padded[: rows * side] = scores
  expected = write_region_file(tmp_path, "whole", square, padded, classes)
  blocks = [(row, col) for row in range(rows) for col in range(cols)]
  for row, col in blocks:
    place = np.s_[row * side : (row + 1) * side, col * side : (col + 1) * side]
    write_region_file(tmp_path, f"{row}_{col}", whole[place], scores[place], classes)
  read = lambda row, col: (
    None if (row, col) == (2, 0) else region_files.read(tmp_path / f"{row}_{col}.npz")
  )
  joined = list(seams.join(blocks, side, read))
  found = as_rows(joined)
  # The reference has missing data below its last row, the blocks have a border there.
  plain = lambda rows: [(*row[:5], row[6]) for row in rows]
  assert sorted(plain(found)) == sorted(plain(as_rows(expected)))
  inner = lambda rows: [
    row for row in rows if shapely.from_wkt(row[6]).bounds[3] < len(whole)
  ]
  assert inner(found) == inner(as_rows(expected))
  for group in joined:
    left, top, right, bottom = shapely.bounds(group.outlines).T
    at_border = (left == 0) | (top == 0) | (right == cols * side) | (bottom == rows * side)
    np.testing.assert_array_equal(group.at_border, at_border)


def test_a_landslide_stops_where_a_block_is_missing(tmp_path):
  side = 8
  mask, scores = np.ones((side, side), np.uint8), np.full((side, side, 1), 50, np.uint8)
  write_region_file(tmp_path, "one", mask, scores, 1)
  read = lambda row, col: region_files.read(tmp_path / "one.npz")
  blocks = [(0, 0), (0, 1), (2, 0), (3, 0), (3, 1), (3, 3)]
  pixels = np.concatenate([group.pixels for group in seams.join(blocks, side, read)])
  assert sorted(pixels.tolist()) == [64, 2 * 64, 3 * 64]
  shifted = [o.bounds for g in seams.join([(5, 7)], side, read) for o in g.outlines]
  assert shifted == [(56, 40, 64, 48)]


@pytest.fixture(scope="module")
def workdir(image_folder, tmp_path_factory):
  draft = make_small_config(image_folder)
  draft.localize.gate = 0.0
  return untrained.make_workdir(tmp_path_factory.mktemp("area") / "run", configs.from_mapping(draft))


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
  return area_data.tiles(tmp_path_factory.mktemp("stac"), 1, 2, nodata=0, hole=(100, 150, 30))


def mapped(workdir, source, output, imagery=RGB, **options):
  area = Area(**{"block_size": 128, "min_area": 0.0} | options)
  result = area_job.map_area(workdir, str(source), output, imagery, area, Engine())
  assert not result.failed
  return result


def mosaic(output, kind):
  """Returns the blocks of an output as one array [bands, H, W] on the ground of the images."""
  height, west, north = area_data.SIDE * untrained.GSD, area_data.WEST, area_data.NORTH
  bounds = (west, north - height, west + 2 * height, north)
  paths = sorted((output / kind).glob("*.tif"))
  return rasterio.merge.merge(paths, bounds=bounds, nodata=255)[0]


def polygons(output):
  return pyarrow.parquet.read_table(output / "polygons" / "landslides.parquet").to_pylist()


@pytest.fixture(scope="module")
def outputs(workdir, catalogue, tmp_path_factory):
  """Returns the folders of the same map in small blocks and in one large block."""
  folder = tmp_path_factory.mktemp("outputs")
  mapped(workdir, catalogue, folder / "small")
  mapped(workdir, catalogue, folder / "large", block_size=2048)
  return folder / "small", folder / "large"


def test_blocks_show_no_seam(outputs):
  small, large = outputs
  for kind in ("mask", "probability"):
    np.testing.assert_array_equal(mosaic(small, kind), mosaic(large, kind))
  mask = mosaic(small, "mask")[0]
  missing = np.zeros(mask.shape, bool)
  missing[100:130, 150:180] = True
  np.testing.assert_array_equal(mask == NO_DATA, missing)
  assert 0.01 < (mask == 1).mean() < 0.99


def test_a_landslide_over_blocks_is_one_polygon(outputs):
  small, large = outputs
  mask = mosaic(small, "mask")[0] == 1
  labels, count = scipy.ndimage.label(mask)
  own = polygons(small)
  assert len(own) == count > 3
  sizes = np.bincount(labels.ravel())[1:]
  assert sorted(row["pixels"] for row in own) == sorted(sizes.tolist())
  in_blocks = [region_files.read(path) for path in (small / "regions").glob("*.npz")]
  assert sum(len(one.regions.pixels) for one in in_blocks) > count  # Some lie across borders.
  assert [row["id"] for row in own] == list(range(1, count + 1))
  assert len({row["stable_id"] for row in own}) == count
  same = ("stable_id", "pixels", "area_m2", "mean_probability", "touches_nodata", "touches_border")
  key = lambda rows: sorted(tuple(row[name] for name in same) for row in rows)
  assert key(own) == key(polygons(large))
  in_degrees = shapely.union_all(shapely.from_wkb([row["geometry"] for row in own]))
  metres = plan.to_zone(in_degrees, area_data.EPSG)
  assert metres.area == pytest.approx(mask.sum() * untrained.GSD**2, rel=1e-3)


def test_the_geopackage_holds_the_same_polygons(outputs):
  meta, _, geometry, columns = pyogrio.raw.read(
    outputs[0] / "polygons" / f"landslides_{area_data.EPSG}.gpkg"
  )
  rows = polygons(outputs[0])
  ids = columns[list(meta["fields"]).index("stable_id")]
  assert ids.tolist() == [row["stable_id"] for row in rows]
  assert meta["crs"] == f"EPSG:{area_data.EPSG}"
  geo = json.loads(pyarrow.parquet.read_metadata(
    outputs[0] / "polygons" / "landslides.parquet").metadata[b"geo"])
  bounds = shapely.total_bounds(shapely.from_wkb([row["geometry"] for row in rows]))
  np.testing.assert_allclose(geo["columns"]["geometry"]["bbox"], bounds)
  back = pyproj.Transformer.from_crs(4326, area_data.EPSG, always_xy=True)
  lon, lat = shapely.get_coordinates(shapely.from_wkb(rows[0]["geometry"]))[0]
  there = shapely.get_coordinates(shapely.from_wkb(geometry[0]))
  assert np.hypot(*(there - back.transform(lon, lat)).T).min() < 0.05


def test_the_results_are_a_valid_collection(outputs):
  import pystac
  from pystac.validation.stac_validator import JsonSchemaSTACValidator

  output = outputs[0]
  collection = pystac.Collection.from_file(str(output / "collection.json"))
  validator = JsonSchemaSTACValidator()
  validator.validate_core(collection.to_dict(), pystac.STACObjectType.COLLECTION, "1.1.0")
  items = list(collection.get_items())
  assert len(items) == len(list((output / "items").glob("*.json")))
  shown = 0
  for item in items:
    validator.validate_core(item.to_dict(), pystac.STACObjectType.ITEM, "1.1.0")
    for asset in item.assets.values():
      with rasterio.open(asset.get_absolute_href()) as raster:
        code = asset.extra_fields["proj:code"]
        assert raster.crs == rasterio.crs.CRS.from_string(code)
        assert list(raster.transform)[:6] == asset.extra_fields["proj:transform"]
        assert list(raster.shape) == asset.extra_fields["proj:shape"]
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    shown += sum(item.properties["lgag:class_pixels"].values())
  assert shown == (mosaic(output, "mask") == 1).sum()
  assert items[0].common_metadata.start_datetime or items[0].datetime
  for asset in collection.assets.values():
    assert (output / asset.href).is_file()


def test_the_page_shows_what_the_files_hold(outputs):
  page, rows = (outputs[0] / "report.html").read_text(), polygons(outputs[0])
  cards = {name: value for value, name in re.findall(r"<b>(.*?)</b><span>(.*?)</span>", page)}
  areas, mask = [row["area_m2"] for row in rows], mosaic(outputs[0], "mask")[0]
  ground = (mask != NO_DATA).sum() * untrained.GSD**2
  assert cards["polygons: landslide"] == f"{len(rows):,}"
  assert cards["total area: landslide"] == scene_tables.area(sum(areas))
  assert cards["median polygon: landslide"] == scene_tables.area(float(np.median(areas)))
  assert cards["ground with data"] == scene_tables.area(ground)
  assert float(cards["polygons per km²: landslide"].replace(",", "")) == pytest.approx(
    len(rows) / ground * 1e6, rel=0.01
  )
  count = lambda folder: len(list((outputs[0] / folder).iterdir()))
  assert cards["blocks with data"] == f"{count('mask')} of {count('items')}"
  assert cards["blocks without data"] == str(count("items") - count("mask"))
  listed = re.findall(
    r'<td class="text">(\d+)</td><td class="text">landslide</td><td>(.*?)</td><td>([\d.]+)° E</td>'
    r"<td>([\d.]+)° N</td>", page
  )
  largest = sorted(rows, key=lambda row: (-row["area_m2"], row["id"]))[:20]
  assert [(int(number), size) for number, size, *_ in listed] == [
    (row["id"], scene_tables.area(row["area_m2"])) for row in largest
  ]
  for (*_, longitude, latitude), row in zip(listed, largest, strict=True):
    inside = shapely.Point(float(longitude), float(latitude)).buffer(1e-5)
    assert inside.intersects(shapely.from_wkb(row["geometry"]))
  assert "images</td><td class=\"text\">2, 2015-05-01 to 2015-05-02<" in page
  assert not re.search(r'(src|href)="(?!data:)|url\(', page)  # It needs no other file.


def test_the_quick_look_shows_the_masks_in_longitude_and_latitude(outputs):
  for output in outputs:
    blocks = {
      Block(*map(int, path.name.partition(".")[0].split("_"))): not map_block.is_empty(path.name)
      for path in sorted((output / "items").iterdir())
    }
    core = rasterio.open(next((output / "mask").iterdir())).height
    size = BlockSize(core, core, 1)
    job = map_block.AreaJob(output, (), RGB, untrained.GSD, size, 3, ("landslide",), "uint8", "")
    look = quick_look.draw(job, blocks, (), None)
    expected, mask = np.full(look.values.shape, NO_DATA, np.uint8), mosaic(output, "mask")[0]
    transform = Affine(untrained.GSD, 0, area_data.WEST, 0, -untrained.GSD, area_data.NORTH)
    rasterio.warp.reproject(
      mask, expected, src_transform=transform, src_crs=area_data.EPSG, src_nodata=NO_DATA,
      dst_transform=look.frame.transform, dst_crs=4326, dst_nodata=NO_DATA, tolerance=0,
    )
    rows, cols = np.nonzero(mask == 1)
    x, y = transform @ (cols + 0.5, rows + 0.5)
    place = pyproj.Transformer.from_crs(area_data.EPSG, 4326, always_xy=True).transform(x, y)
    cols, rows = np.floor(~look.frame.transform @ np.array(place)).astype(int)
    expected[rows, cols] = 1  # Where a pixel shows a landslide beside its centre.
    assert (look.values == expected).mean() > 0.9995
    shown = look.values == 1
    assert 0.01 < shown.mean() < 0.99
    picture = np.array(Image.open(output / "quick_look.png"))
    np.testing.assert_array_equal(picture, np.array(look.image()))
    factor = len(picture) // len(shown)
    red = (picture[::factor, ::factor] == ImageColor.getrgb(qgis_style.COLOURS[0])).all(axis=-1)
    np.testing.assert_array_equal(red, shown)


@pytest.fixture
def stub(monkeypatch, tmp_path_factory):
  """Puts a stub in the place of the model; returns what it is told and what it was asked."""
  folder = tmp_path_factory.mktemp("model")
  (folder / "config.json").write_text("{}")
  model = LoadedModel(
    folder, configs.Config(), types.SimpleNamespace(evidence=None), types.SimpleNamespace(step=7), None,
    [0.5], Scale(untrained.SIDE, untrained.GSD),
  )
  monkeypatch.setattr(area_job, "load_model", lambda workdir: model)
  monkeypatch.setattr(size_sections, "figures", lambda areas: [])  # Slow to draw.
  told = {"bad": (), "asked": [], "workdir": folder}

  def make(loaded, windows, size, dtype):
    network = Stub(size, bad=told["bad"])

    class Counting:
      def map_pixels(self, name, pixels):
        told["asked"].append(name)
        return network.map_pixels(name, pixels)

    return Counting()

  monkeypatch.setattr(area_job.network, "BlockNetwork", make)
  return told


def test_a_second_run_maps_only_what_is_missing(catalogue, tmp_path, stub):
  output, asked = tmp_path / "out", stub["asked"]
  mapped(stub["workdir"], catalogue, output)
  before = polygons(output)
  assert len(before) > 3
  asked.clear()
  mapped(stub["workdir"], catalogue, output)
  assert asked == []
  records = sorted((output / "items").glob("*[0-9a-f].json"))
  mask = sorted((output / "mask").glob("*.tif"))[0]
  mask.unlink()
  records[-1].unlink()
  mapped(stub["workdir"], catalogue, output)
  assert sorted(asked) == sorted({mask.stem, records[-1].name.partition(".")[0]})
  assert polygons(output) == before
  asked.clear()
  other = dataclasses.replace(RGB, composite="least_cloud")
  mapped(stub["workdir"], catalogue, output, other)
  assert len(asked) == len(list((output / "mask").glob("*.tif")))
  assert not (output / ".unfinished").exists()


def test_parts_make_the_whole(catalogue, tmp_path, stub):
  for part in ("1/2", "2/2"):
    assert mapped(stub["workdir"], catalogue, tmp_path / "out", part=part).landslides is None
  asked = len(stub["asked"])
  joined = mapped(stub["workdir"], catalogue, tmp_path / "out")
  assert len(stub["asked"]) == asked == len(set(stub["asked"]))
  mapped(stub["workdir"], catalogue, tmp_path / "whole")
  assert polygons(tmp_path / "out") == polygons(tmp_path / "whole")
  assert joined.landslides == len(polygons(tmp_path / "out")) > 3


def test_a_block_that_fails_costs_itself_alone(catalogue, tmp_path, stub):
  run = lambda name, engine=Engine(): area_job.map_area(
    stub["workdir"], str(catalogue), tmp_path / name, RGB, Area(block_size=128), engine
  )
  assert not run("all").failed
  names = sorted(stub["asked"])
  bad = names[4]
  stub["bad"] = (bad,)
  stub["asked"].clear()
  result = run("out", Engine(attempts=2))
  assert result.failed == {bad: f"{bad} cannot be mapped"} and stub["asked"].count(bad) == 2
  manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
  assert manifest["failed"] == result.failed and not manifest["whole"]
  stub["bad"] = ()
  stub["asked"].clear()
  assert not run("out").failed
  assert stub["asked"] == [bad] and polygons(tmp_path / "out") == polygons(tmp_path / "all")


def test_no_file_of_an_earlier_map_stays_in_the_place_of_a_block(tmp_path, stub, caplog):
  """Of two images, one loses its data, and the other changes and cannot be mapped."""
  folder, output = tmp_path / "images", tmp_path / "out"
  ground = np.full((60, 60, 3), BRIGHT + 9, np.uint8)
  east = area_data.WEST + 2000  # Metres.

  def write(name, more=0, **options):
    area_data.write_cog(folder / f"{name}.tif", ground + more, **options)

  write("west", nodata=1)
  write("east", west=east)
  run = lambda: area_job.map_area(
    stub["workdir"], str(folder), output, Imagery(), Area(block_size=128), Engine(attempts=1)
  )
  files_of = lambda names: sorted(
    f"{folder}/{path.name}" for folder in ("mask", "probability", "regions")
    for path in (output / folder).iterdir() if path.stem in names
  )
  run()
  names = sorted({path.stem for path in (output / "mask").iterdir()})
  columns = [int(name.rpartition("_")[2]) for name in names]
  border = (min(columns) + max(columns)) / 2
  in_west = [name for name, column in zip(names, columns, strict=True) if column < border]
  in_east = sorted({*names} - {*in_west})
  assert in_west and in_east and len(files_of(names)) == 3 * len(names)
  write("west", nodata=BRIGHT + 9)
  write("east", 1, west=east)
  stub["bad"] = in_east
  result = run()
  assert sorted(result.failed) == in_east and files_of(names) == []
  (folder / "east.tif").unlink()
  caplog.clear()
  write("west", nodata=1)
  run()
  assert files_of(names) == files_of(in_west) and len(files_of(in_west)) == 3 * len(in_west)
  assert "earlier map" not in caplog.text
  (folder / "west.tif").unlink()
  write("east", west=east)
  stub["bad"] = ()
  run()
  assert files_of(in_west) and f"{len(in_west)} blocks of an earlier map" in caplog.text


def test_damaged_regions_are_named_with_their_own_remedy(tmp_path):
  (tmp_path / "a.npz").write_bytes(b"PK")
  with pytest.raises(ValueError, match=r"a\.npz is damaged: .*Delete it, and run") as told:
    region_files.read(tmp_path / "a.npz")
  assert "--mode=eval" not in str(told.value)


def test_a_part_without_blocks_has_nothing_to_do(catalogue, tmp_path, stub):
  result = mapped(stub["workdir"], catalogue, tmp_path / "out", part="100/100")
  assert (result.blocks, result.failed, stub["asked"]) == (0, {}, [])


def test_if_no_block_can_be_mapped_the_reason_is_the_error(tmp_path):
  job = map_block.AreaJob(tmp_path, (), RGB, 2.0, SIZE, 3, ("landslide",), "uint8", "")
  fail = lambda job, blocks, done: [done(block, ValueError("x.tif is damaged")) for block in blocks]
  with pytest.raises(ValueError, match=r"All 2 blocks failed; the first: x\.tif is damaged"):
    area_job.map_missing(job, [Block(32645, 0, 0), Block(32645, 0, 1)], fail)


def test_a_landslide_across_two_zones_is_reported_once(tmp_path, stub):
  """The image lies across 84 degrees east, where zones 44 and 45 meet."""
  west, north = pyproj.Transformer.from_crs(4326, 32645, always_xy=True).transform(84.0, 27.5)
  west, north = round(west / 2) * 2 - 100, round(north / 2) * 2
  area_data.write_cog(
    tmp_path / "image.tif", np.full((60, 100, 3), BRIGHT + 9, np.uint8), west=west, north=north
  )
  for block_size in (64, 128):
    output = tmp_path / f"out_{block_size}"
    area = Area(block_size=block_size)
    result = area_job.map_area(
      stub["workdir"], str(tmp_path / "image.tif"), output, Imagery(), area, Engine()
    )
    (row,) = polygons(output)
    assert result.landslides == 1
    assert row["area_m2"] == pytest.approx(60 * 100 * 4, rel=0.02)


def test_only_an_output_of_its_own_is_written(catalogue, tmp_path, stub):
  (tmp_path / "notes.txt").write_text("Mine.")
  with pytest.raises(ValueError, match=r"notes\.txt, which --mode=map has not written"):
    mapped(stub["workdir"], catalogue, tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(("options", "message"), [
  ({"resolution": 0.2}, "--resolution=0.2 is finer than the network sees: use 2 metres"),
  ({"resolution": 50.0}, "times as coarse"),
])
def test_a_resolution_that_does_not_suit_is_an_error(catalogue, tmp_path, stub, options, message):
  with pytest.raises(ValueError, match=message):
    mapped(stub["workdir"], catalogue, tmp_path / "out", **options)
