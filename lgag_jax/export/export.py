"""Exports a trained network as StableHLO, as ONNX, or as a folder of weights."""

import dataclasses
import logging
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from lgag_jax.config import Config
from lgag_jax.export import onnx_conversion
from lgag_jax.geo import scale
from lgag_jax.inference import exclusive_classes
from lgag_jax.inference.localize import main_map_name
from lgag_jax.mapping import predict
from lgag_jax.mapping.predict import LoadedModel
from lgag_jax.mapping.window_scores import make_traceable_window_scores
from lgag_jax.method import network as networks
from lgag_jax.options.export import Settings
from lgag_jax.runtime import files, folders, processes
from lgag_jax.training import model_directory

_LOG = logging.getLogger(__name__)

OUTPUTS = ("scores", "probabilities", "mask")
PLATFORMS = ("cpu", "cuda", "tpu")
_LOADERS = pathlib.Path(__file__).parent


def export(
  workdir: pathlib.Path, output: str | pathlib.Path | None, settings: Settings = Settings()
) -> None:
  """Writes the forms in `settings.what` of a workdir's network to `output`, a new or empty folder.

  Beside a program it writes a loader, which does not need this package, and facts.json. Raises
  ValueError naming a setting that a form does not support, and OSError if `output` is not empty.
  """
  if not output:
    raise ValueError("--mode=export needs --output, a new folder.")
  if "onnx" in settings.what:
    onnx_conversion.require()
  model = predict.load_model(workdir)
  if settings.training_gsd:
    training_scale = dataclasses.replace(model.training_scale, gsd=settings.training_gsd)
    model = dataclasses.replace(model, training_scale=training_scale)
  if settings.bands and len(settings.bands) != model.config.data.channels:
    raise ValueError(
      f"--bands={','.join(map(str, settings.bands))}: the network takes {model.config.data.channels} "
      "bands."
    )
  processes.run_on_first(lambda: _write(model, pathlib.Path(output), settings))


def _write(model: LoadedModel, output: pathlib.Path, settings: Settings) -> None:
  with folders.atomic_folder(output) as folder:
    if "model" in settings.what:
      state = jax.tree.map(np.asarray, model.state)
      model_directory.write(folder / "model", model.workdir, model.config, state)
    programs = {form: {} for form in ("stablehlo", "onnx") if form in settings.what}
    for form in programs:
      for image_type in image_types(model.config, settings):
        if form == "stablehlo":
          program = stablehlo_program(model, image_type)
        else:
          program = onnx_program(model, image_type, settings.onnx_batch)
        name = f"model_{image_type}.{form}"
        (folder / name).write_bytes(program)
        programs[form][image_type] = name
      loader = f"load_{form}.py"
      files.write_text(folder / loader, (_LOADERS / loader).read_text())
    if programs:
      files.write_json(folder / "facts.json", facts(model, settings) | programs)
    names = sorted(path.relative_to(folder) for path in folder.iterdir())
  _LOG.info("Exported to %s: %s.", output, ", ".join(map(str, names)))


def facts(model: LoadedModel, settings: Settings) -> dict:
  """Returns what a program's user must know about images and results."""
  data, windows = model.config.data, training_windows(model)
  gsd = model.training_scale.gsd
  return {
    "side": windows.side, "channels": data.input_channels, "classes": list(data.classes),
    # Of an image of either date; a program of pairs takes those after the event, then those before.
    "bands": list(settings.bands or range(1, data.channels + 1)), "dates": 2 if data.paired else 1,
    # [0, None]: the upper end is an integer type's largest value, for floats 1. None: the program
    # scales each band by its own mean and deviation.
    "value_range": [0, data.max_value or None] if data.normalise == "trunk" else None,
    "thresholds": list(model.thresholds),
    "gate": model.config.localize.gate, "map": main_map_name(model.config),
    # Metres per pixel of the program's input; None if unknown. "averaged" by "averaged" pixels of
    # images like those of training make one pixel of it.
    "gsd": gsd and gsd * windows.reduction, "averaged": windows.reduction,
    "outputs": list(OUTPUTS), "platforms": list(PLATFORMS), "onnx_batch": settings.onnx_batch,
    "step": int(model.state.step),
  }


def stablehlo_program(model: LoadedModel, image_type: str) -> bytes:
  """Returns the serialised program of images [B, side, side, channels] for all of PLATFORMS."""
  (batch,) = jax_export.symbolic_shape("batch")
  function = _make_program_function(model, "any")
  named = jax.jit(lambda images: dict(zip(OUTPUTS, function(images), strict=True)))
  exported = jax_export.export(named, platforms=PLATFORMS)(_image_struct(model, batch, image_type))
  return bytes(exported.serialize())


def onnx_program(model: LoadedModel, image_type: str, batch: int = 1) -> bytes:
  """Returns the ONNX program of `batch` images; raises ValueError naming an unsupported setting."""
  config = model.config
  if config.model.precision != "float32":
    raise ValueError(
      f"--what=onnx does not support config.model.precision={config.model.precision!r}: its maps would "
      "differ. Export stablehlo, or train in float32."
    )
  image = _image_struct(model, batch, image_type)
  try:
    # ONNX Runtime has grouped convolutions, as CUDA does.
    return onnx_conversion.convert(_make_program_function(model, "cuda"), image, OUTPUTS)
  except ValueError as error:
    candidates = [
      f"localize.scales={config.localize.scales}", f"refine.method={config.refine.method!r}",
      f"model.trunk={config.model.trunk!r}",
    ]
    raise ValueError(
      f"--what=onnx: {error}. The cause is probably one of {', '.join(candidates)}. Export stablehlo, "
      "or change the setting in the workdir's config.json and run --mode=eval first."
    ) from error


def _make_program_function(model: LoadedModel, platform: str) -> Callable:
  """Returns the function from images to OUTPUTS, with weights and thresholds as constants."""
  config = model.config
  network = networks.build(config, platform)
  network = dataclasses.replace(network, evidence=model.network.evidence)
  window_scores = make_traceable_window_scores(network, config, training_windows(model))
  # NumPy arrays become constants of the traced function; JAX arrays would become arguments.
  state = jax.tree.map(np.asarray, dataclasses.replace(model.state, opt_state=None))
  thresholds = np.array(model.thresholds, np.float32)

  def function(images: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    scores, probabilities = window_scores(jax.tree.map(jnp.asarray, state), images)
    return scores, probabilities, exclusive_classes.drawn(scores, thresholds)

  return function


def training_windows(model: LoadedModel) -> scale.WindowPlan:
  """Plans windows of a scene of the training images' ground resolution."""
  return scale.plan_windows(model.training_scale, model.config, model.training_scale.gsd)


def _image_struct(model: LoadedModel, batch, image_type: str) -> jax.ShapeDtypeStruct:
  side, channels = training_windows(model).side, model.config.data.input_channels
  return jax.ShapeDtypeStruct((batch, side, side, channels), np.dtype(image_type))


def image_types(config: Config, settings: Settings) -> tuple[str, ...]:
  """Returns the types of images to write programs for, "auto" resolved."""
  if settings.image_types != ("auto",):
    return settings.image_types
  return ("uint16",) if config.data.max_value > 255 else ("uint8",)
