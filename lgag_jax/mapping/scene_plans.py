"""Plans the maps of scenes: reads their headers, and says what each map depends on."""

import hashlib
import json
import logging
import pathlib
from collections.abc import Callable, Iterator

from lgag_jax.geo import crs_relation, placement, scale
from lgag_jax.geo.scene import open_scene
from lgag_jax.imagery import listing
from lgag_jax.mapping.loaded_model import LoadedModel
from lgag_jax.mapping.map_names import MapNames
from lgag_jax.mapping.products import ScenePlan
from lgag_jax.mapping.schemas import Provenance
from lgag_jax.options.mapping import Options

_LOG = logging.getLogger(__name__)


def plan_scenes(
  paths: list[pathlib.Path], loaded: LoadedModel, options: Options, names: MapNames,
  skip: Callable[[pathlib.Path, Exception], None],
) -> Iterator[ScenePlan]:
  """Yields a plan for each scene whose header can be read; calls `skip` with the others."""
  config, training_scale = loaded.config, loaded.scale_for(options)
  maker = _maker(loaded, options)
  if training_scale.gsd is None:
    _LOG.info(
      "The ground resolution of training is unknown (--training_gsd): scenes are assumed to have the "
      "same."
    )
  for path in paths:
    try:
      with open_scene(path, config.data.channels, bands=options.bands) as scene:
        grid, dtype = scene.grid, scene.dtype
      gsd = grid.gsd() or options.gsd or None
      shape = grid.height, grid.width
      windows = scale.plan_windows(training_scale, config, gsd, options.tile_size, shape)
    except ValueError as error:
      skip(path, error)
      continue
    for text in (warnings := placement.warnings(grid, path)):
      _LOG.warning("%s: %s", path, text)
    if grid.georeferenced and grid.to_wgs84() is None:
      system = f"the CRS {crs_relation.full_name(grid.crs)}" if grid.crs else "no CRS"
      _LOG.warning(
        "%s has %s, so its place on the Earth is unknown: polygons have no area in m², and there is no "
        "GeoJSON. Give it its true CRS first, such as gdal_edit.py -a_srs EPSG:32633.", path, system,
      )
    if gsd is None and training_scale.gsd:
      _LOG.info("%s does not give its ground resolution (--gsd): assuming that of training.", path.name)
    parts = json.dumps([*maker, listing.file_key(path)])
    key = hashlib.sha256(parts.encode()).hexdigest()
    provenance = _provenance(loaded, options, gsd)
    stem = names.stem(path, grid, key)
    yield ScenePlan(path, stem, grid, windows, key, dtype, warnings, provenance)


def _provenance(loaded: LoadedModel, options: Options, gsd: float | None) -> Provenance:
  model = loaded.config.model
  levels = ", ".join(f"{threshold:.3f}" for threshold in loaded.thresholds)
  return Provenance(
    gsd=gsd, thresholds=tuple(loaded.thresholds), event=options.event, image_date=options.image_date,
    method=f"{model.method} on {model.trunk}, step {int(loaded.state.step)}, score threshold {levels}",
  )


def _maker(loaded: LoadedModel, options: Options) -> list[str]:
  """Returns all that a map depends on, except its scene."""
  data, evidence = loaded.config.data, loaded.network.evidence
  return [str(part) for part in (
    *([evidence.digest()] if evidence else []),
    int(loaded.state.step), loaded.thresholds, (loaded.workdir / "config.json").read_text(),
    loaded.scale_for(options), options,
    (data.mean, data.std),  # With data.normalise="train" they are not in config.json.
  )]
