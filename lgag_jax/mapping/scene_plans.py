"""Plans the maps of scenes: reads their headers, and says what each map depends on."""

import dataclasses
import hashlib
import json
import logging
import math
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from lgag_jax.config import Config
from lgag_jax.geo import crs_relation, pair, placement, scale, scene_files
from lgag_jax.geo.clouds import Cover
from lgag_jax.geo.companions import SceneFiles
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.pair import Pair
from lgag_jax.geo.scale import WindowPlan
from lgag_jax.geo.scene import Scene
from lgag_jax.imagery import band_notes, scaling
from lgag_jax.imagery.opening import ImageError
from lgag_jax.mapping import (
  decided_ground,
  density,
  gate_windows,
  output_folder,
  overlay,
  rasters,
  terrain_filter,
)
from lgag_jax.mapping.loaded_model import LoadedModel
from lgag_jax.mapping.map_names import MapNames
from lgag_jax.mapping.schemas import Provenance
from lgag_jax.method.registry import method_of
from lgag_jax.options.mapping import Options
from lgag_jax.tiling.ground_labels import GroundLabels

_LOG = logging.getLogger(__name__)

_SAME_RESOLUTION = 0.01  # Map projections distort lengths a little.
_MIN_POLYGON_SIDE = 4  # In the larger pixels of the scene's and the network's: what a map resolves.


@dataclasses.dataclass(frozen=True)
class ScenePlan:
  """A scene to map, and how."""

  path: pathlib.Path
  stem: str  # Of the names of its files.
  grid: Grid
  windows: WindowPlan
  key: str  # Identifies the network, the scene and the options: another key is another map.
  dtype: np.dtype = np.dtype(np.uint8)  # Of its values.
  gated: bool = True  # Whether the network has a gate.
  warnings: tuple[str, ...] = ()  # What its header tells the reader of its map to check.
  provenance: Provenance = Provenance()
  workdir: str = ""  # Of the network.
  files: SceneFiles | None = None  # What is read with it, if anything.
  cover: Cover | None = None  # Of its cloud mask.
  decided: GroundLabels | None = None  # What somebody has decided of it.

  @property
  def source(self) -> SceneFiles:
    """The files that the scene's pixels are read from."""
    return self.files or SceneFiles(self.path)

  @property
  def dates(self) -> int:
    """Returns the number of images of the scene: 2 with one before the event."""
    return 2 if self.source.before else 1

  def working_folder(self, output: pathlib.Path) -> pathlib.Path:
    """Returns the folder of the map's rows until the map is whole."""
    return output_folder.working_folder(output, self.stem)

  def figures_path(self, output: pathlib.Path) -> pathlib.Path:
    """Returns the file of the map's figures, which is written last."""
    return output_folder.record_path(output, self.stem)

  def product_names(self, classes: int, options: Options) -> list[str]:
    """Returns the files of the map below its output, except the figures."""
    raster = lambda folder, bands, dtype: rasters.path_with_suffix(
      pathlib.Path(folder, self.stem), self.grid, bands, np.dtype(dtype)
    ).as_posix()
    names = [raster("probability", classes, options.dtype), raster("mask", 1, np.uint8)]
    if self.grid.georeferenced:
      names += [f"{folder}/{self.stem}.qml" for folder in ("mask", "probability", "polygons")]
      names.append(f"polygons/{self.stem}.gpkg")
      names += [f"unsplit/{self.stem}{suffix}" for suffix in (".gpkg", ".qml") if options.split_necks]
      if self.grid.to_wgs84() is not None:
        names += [f"polygons/{self.stem}{suffix}" for suffix in (".geojson", ".parquet")]
        names += [f"points/{self.stem}{suffix}" for suffix in (".gpkg", ".qml") if options.dem]
      if density.cells_of(self.grid) is not None:
        names += density.file_names(self.stem)  # If there is a landslide.
    names += [gate_windows.file_name(self.stem)] * self.gated
    return [*names, *overlay.file_names(self.stem, self.dates)]

  def min_area(self, options: Options) -> float:
    """Returns the smallest area of a polygon in square metres, or in pixels without a CRS."""
    return min_area(options, self.windows, self.grid.gsd() or 1.0)


def min_area(options: Options, windows: WindowPlan, gsd: float) -> float:
  """Returns the smallest area of a polygon in square metres, or in pixels with a `gsd` of 1."""
  if options.min_area >= 0:
    return options.min_area
  network_pixel = windows.reduction * windows.side / windows.model_side  # In the scene's.
  return (_MIN_POLYGON_SIDE * max(1.0, network_pixel) * gsd) ** 2


def check_dates(config: Config, options: Options) -> None:
  """Raises ValueError if the network needs an image before the event that is not given, or none."""
  if config.data.paired and not options.before:
    raise ValueError(
      "This network compares images before and after an event: name those before with --before."
    )
  if options.before and not config.data.paired:
    raise ValueError(
      f"--before={options.before}: this network maps images of one date. Omit it, or train a network "
      "for pairs with --config.data.before."
    )


def plan_scenes(
  scenes: Sequence[SceneFiles], loaded: LoadedModel, options: Options, names: MapNames,
  skip: Callable[[pathlib.Path, Exception], None],
) -> Iterator[ScenePlan]:
  """Yields a plan for each scene whose header can be read; calls `skip` with the others."""
  config, training_scale = loaded.config, loaded.scale_for(options)
  gated = method_of(config).gated
  maker = map_maker(loaded, options)
  if training_scale.gsd is None:
    _LOG.info(
      "The ground resolution of training is unknown (--training_gsd): scenes are assumed to have the "
      "same."
    )
  for source in scenes:
    path = source.path
    try:
      with source.open(
        config.data.channels, bands=options.bands, max_shift=options.max_shift
      ) as scene:
        grid, dtype = scene.grid, scene.dtype
        check_types(scene, config)
        of_dates = _date_warnings(scene, options)
        band_notes.check(path, scene.notes, training_scale.bands, "this network was trained with")
      cover = source.cover(grid)
      decided = decided_ground.find(path, grid, options, config)
      gsd = ground_resolution(grid, options, path.name)
      shape = grid.height, grid.width
      windows = scale.plan_windows(training_scale, config, gsd, options.tile_size, shape)
    except ValueError as error:
      skip(path, error)
      continue
    warnings = (
      *placement.warnings(grid, path), *of_dates, *terrain_filter.grid_warnings(grid, options)
    )
    for text in warnings:
      _LOG.warning("%s: %s", path, text)
    if grid.georeferenced and grid.to_wgs84() is None:
      system = f"the CRS {crs_relation.full_name(grid.crs)}" if grid.crs else "no CRS"
      _LOG.warning(
        "%s has %s, so its place on the Earth is unknown: polygons have no area in m², and there is no "
        "GeoJSON. Give it its true CRS first, such as gdal_edit.py -a_srs EPSG:32633.", path, system,
      )
    if gsd is None and training_scale.gsd:
      _LOG.info("%s does not give its ground resolution (--gsd): assuming that of training.", path.name)
    if cover:
      _LOG.info("%s: %s.", path, cover)
    made_of = [*source.keys()]
    made_of += [grid.unplaced] if grid.unplaced else []  # Earlier versions placed them by a CRS alone.
    made_of += [decided.digest] if decided else []
    parts = json.dumps([*maker, *made_of])
    key = hashlib.sha256(parts.encode()).hexdigest()
    made_by = provenance(loaded, options, gsd, path.name)
    stem = names.stem(path, grid, key)
    yield ScenePlan(
      path, stem, grid, windows, key, dtype, gated, warnings, made_by, str(loaded.workdir), source,
      cover, decided,
    )


def ground_resolution(grid: Grid, options: Options, name: str) -> float | None:
  """Returns metres per pixel as a scene's file states them, else as --gsd does; None without both."""
  stated = grid.gsd()
  if stated and options.gsd and not math.isclose(stated, options.gsd, rel_tol=_SAME_RESOLUTION):
    _LOG.warning(
      "%s states its ground resolution, %.3g m per pixel, so --gsd=%g is not used for it. If the file "
      "is wrong, correct its CRS or its transform (gdal_edit.py).", name, stated, options.gsd,
    )
  return stated or options.gsd or None


def check_types(scene: Scene | Pair, config: Config) -> None:
  """Raises ImageError for bands of types that the network would have to divide by different numbers."""
  divisors = {str(dtype): scaling.divisor(dtype, config.data) for dtype in scene.band_types}
  if len({*divisors.values()}) > 1:
    scales = " and ".join(f"{name} by {value:g}" for name, value in divisors.items())
    raise ImageError(
      f"{scene.path} has bands of {' and '.join(divisors)}, and the network would divide {scales}. "
      "Save them in the type and the range of the training images: gdal_translate -ot Byte -scale 0 "
      "65535 0 255 in.tif out.tif. Or train with data.max_value, or with data.normalise='train'."
    )


def _date_warnings(scene: Scene | Pair, options: Options) -> list[str]:
  if isinstance(scene, Pair) and (shift := scene.shift).length is not None:
    corrected = " and is moved there" if any(shift.within(options.max_shift)) else ""
    _LOG.info(
      "%s: the image before lies %.1f pixels beside it, by %d of %d blocks%s.", scene.path.name,
      shift.length, shift.agreeing, shift.blocks, corrected,
    )
  return pair.warnings(scene, options.max_shift)


def provenance(
  loaded: LoadedModel, options: Options, gsd: float | None, source: str
) -> Provenance:
  """Returns what made the map of a scene, which `source` names."""
  model = loaded.config.model
  levels = ", ".join(f"{threshold:.3f}" for threshold in loaded.thresholds)
  return Provenance(
    gsd=gsd, dem=pathlib.Path(options.dem).name, thresholds=tuple(loaded.thresholds),
    event=options.event, image_date=options.image_date, source=source,
    before_date=options.before_date,
    method=(
      f"{model.method} on {model.trunk}, step {int(loaded.state.step)}, score threshold {levels}"
      + (f", gate {loaded.config.localize.gate:g} ({loaded.choice})" if loaded.choice else "")
    ),
  )


def map_maker(loaded: LoadedModel, options: Options) -> list[str]:
  """Returns all that a map depends on, except its scene."""
  data, evidence = loaded.config.data, loaded.network.evidence
  return [str(part) for part in (
    *([evidence.digest()] if evidence else []),
    int(loaded.state.step), loaded.thresholds, (loaded.workdir / "config.json").read_text(),
    loaded.scale_for(options), dataclasses.replace(options, review=""),  # Of which scenes, each says.
    *([scene_files.key(pathlib.Path(options.dem))] if options.dem else []),
    (data.mean, data.std),  # With data.normalise="train" they are not in config.json.
  )]
