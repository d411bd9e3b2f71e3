"""A trained network for use elsewhere: as StableHLO, as ONNX, or as a folder of weights."""

import dataclasses
import logging
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from lgag_jax.config import Config
from lgag_jax.export import onnx_form
from lgag_jax.geo import scale
from lgag_jax.inference import exclusive_classes
from lgag_jax.mapping import predict
from lgag_jax.mapping.predict import Ready
from lgag_jax.mapping.window_scores import plain_look
from lgag_jax.method import network as networks
from lgag_jax.options.export import Settings
from lgag_jax.runtime import files, processes
from lgag_jax.training import model_directory

_LOG = logging.getLogger(__name__)

OUTPUTS = ("scores", "probabilities", "mask")
PLATFORMS = ("cpu", "cuda", "tpu")
_LOADERS = pathlib.Path(__file__).parent


def export(
  workdir: pathlib.Path, output: str | pathlib.Path | None, settings: Settings = Settings()
) -> None:
  """Writes what `settings.what` names of a workdir's network to `output`, which must be new or empty.

  Programs come with a loader that does not need this package, and with facts.json. Raises ValueError
  naming the setting for what has no such form, OSError when `output` holds anything.
  """
  if not output:
    raise ValueError("--mode=export needs --output, a new folder.")
  if "onnx" in settings.what:
    onnx.require()
  ready = predict.make_ready(workdir)
  if settings.training_gsd:
    seen = dataclasses.replace(ready.seen, gsd=settings.training_gsd)
    ready = dataclasses.replace(ready, seen=seen)
  if settings.bands and len(settings.bands) != ready.config.data.channels:
    raise ValueError(
      f"--bands={','.join(map(str, settings.bands))}: the network takes {ready.config.data.channels}."
    )
  processes.from_first(lambda: _write(ready, pathlib.Path(output), settings))


def _write(ready: Ready, output: pathlib.Path, settings: Settings) -> None:
  types = _image_types(ready.config, settings)
  with files.atomic_folder(output) as folder:
    if "model" in settings.what:
      state = jax.tree.map(np.asarray, ready.state)
      model_directory.write(folder / "model", ready.workdir, ready.config, state)
    programs = {}
    for form, make in (("stablehlo", stablehlo), ("onnx", onnx)):
      if form not in settings.what:
        continue
      programs[form] = {}
      for kind in types:
        name = f"model_{kind}.{form}"
        (folder / name).write_bytes(make(ready, kind, settings))
        programs[form][kind] = name
      loader = f"load_{form}.py"
      files.write_text(folder / loader, (_LOADERS / loader).read_text())
    if programs:
      files.write_json(folder / "facts.json", facts(ready, settings) | programs)
    written = sorted(path.relative_to(folder) for path in folder.iterdir())
  _LOG.info("Exported to %s: %s.", output, ", ".join(map(str, written)))


def facts(ready: Ready, settings: Settings) -> dict:
  """Returns what a program's user must know of images and results."""
  data, view = ready.config.data, _view(ready)
  return {
    "side": view.side, "channels": data.channels, "classes": list(data.classes),
    "bands": list(settings.bands or range(1, data.channels + 1)),
    # [0, None]: to the largest value of an integer type, 1 for floats. None: bands have means of their
    # own, within the program.
    "value_range": [0, data.max_value or None] if data.normalise == "trunk" else None,
    "thresholds": list(ready.thresholds),
    "gate": ready.config.localize.gate, "map": predict.map_of(ready.config),
    # Metres; None where nothing tells. Of images like training's this many by as many pixels are one.
    "gsd": ready.seen.gsd and ready.seen.gsd * view.reduction, "averaged": view.reduction,
    "outputs": list(OUTPUTS), "platforms": list(PLATFORMS), "onnx_batch": settings.onnx_batch,
    "step": int(ready.state.step),
  }


def stablehlo(ready: Ready, image_type: str, settings: Settings = Settings()) -> bytes:
  """Returns the serialised program of images [B, side, side, channels] for all of PLATFORMS."""
  del settings
  (batch,) = jax_export.symbolic_shape("batch")
  function = _function(ready, "any")
  named = jax.jit(lambda images: dict(zip(OUTPUTS, function(images), strict=True)))
  exported = jax_export.export(named, platforms=PLATFORMS)(_image(ready, batch, image_type))
  return bytes(exported.serialize())


def onnx(ready: Ready, image_type: str, settings: Settings = Settings()) -> bytes:
  """Returns the ONNX program of `settings.onnx_batch` images; raises ValueError naming the setting."""
  config = ready.config
  if config.model.precision != "float32":
    raise ValueError(
      f"--what=onnx: config.model.precision={config.model.precision!r} has no form there that gives "
      "the same maps. Export stablehlo, or train in float32."
    )
  image = _image(ready, settings.onnx_batch, image_type)
  try:
    # ONNX Runtime has grouped convolutions of its own.
    return onnx_form.convert(_function(ready, "cuda"), image, OUTPUTS)
  except ValueError as error:
    unusual = [
      f"localize.scales={config.localize.scales}", f"localize.turns={config.localize.turns!r}",
      f"refine.method={config.refine.method!r}", f"model.trunk={config.model.trunk!r}",
    ]
    raise ValueError(
      f"--what=onnx: {error}. Of the config one of {', '.join(unusual)} will be the reason: export "
      "stablehlo, or change it in the workdir's config.json and run --mode=eval first."
    ) from error


def _function(ready: Ready, platform: str) -> Callable:
  """Returns the function from images to OUTPUTS, weights and thresholds within."""
  config = ready.config
  look = plain_look(networks.build(config, platform), config, _view(ready))
  # As arrays of the host: constants, not arguments, of what is traced.
  state = jax.tree.map(np.asarray, ready.state.replace(opt_state=None))
  thresholds = np.array(ready.thresholds, np.float32)

  def function(images: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    scores, probabilities = look(jax.tree.map(jnp.asarray, state), images)
    return scores, probabilities, exclusive_classes.drawn(scores, thresholds)

  return function


def _view(ready: Ready) -> scale.View:
  """A scene of training's own ground resolution is looked at like this."""
  return scale.view(ready.seen, ready.config, ready.seen.gsd)


def _image(ready: Ready, batch: int, image_type: str) -> jax.ShapeDtypeStruct:
  side = _view(ready).side
  return jax.ShapeDtypeStruct((batch, side, side, ready.config.data.channels), np.dtype(image_type))


def _image_types(config: Config, settings: Settings) -> tuple[str, ...]:
  if settings.image_types != ("auto",):
    return settings.image_types
  return ("uint16",) if config.data.max_value > 255 else ("uint8",)
