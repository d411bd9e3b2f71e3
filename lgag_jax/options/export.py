"""The settings of --mode=export. Each field is a flag of the command line."""

import dataclasses

from lgag_jax.options.fields import flag, require

FORMS = ("stablehlo", "onnx", "model")
IMAGE_TYPES = ("uint8", "uint16", "float32")


@dataclasses.dataclass(frozen=True)
class Settings:
  """The export formats, and the images that the exported programs accept."""

  what: tuple[str, ...] = flag(("stablehlo", "model"), (
    "formats to write. stablehlo: one program for CPUs, GPUs and TPUs; onnx: one program for ONNX "
    "Runtime; model: a folder of weights that prediction accepts as --workdir."))
  image_types: tuple[str, ...] = flag(("auto",), (
    "image types to write programs for, one program per type: uint8, uint16, float32. auto: uint8, or "
    "uint16 if data.max_value is above 255."))
  onnx_batch: int = flag(1, "the number of images per call of the ONNX program.")
  bands: tuple[int, ...] = flag((), (
    "bands of a scene, counted from 1, in the model's order; recorded in the export."))
  training_gsd: float = flag(0.0, (
    "ground resolution of the training images in metres per pixel, if their files do not state it."))

  def __post_init__(self):
    known = self.what and set(self.what) <= set(FORMS)
    require(known, self, "what", f"one or more of {', '.join(FORMS)}")
    known = self.image_types and set(self.image_types) <= set(IMAGE_TYPES)
    known = known or self.image_types == ("auto",)
    require(known, self, "image_types", f"auto, or one or more of {', '.join(IMAGE_TYPES)}")
    require(self.onnx_batch > 0, self, "onnx_batch", "1 or more")
    require(all(band > 0 for band in self.bands), self, "bands", "numbers from 1")
    require(0 <= self.training_gsd < float("inf"), self, "training_gsd", "0 or more")
