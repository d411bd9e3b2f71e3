"""What --mode=export is told: typed, checked when built. Each field is a flag of the command line."""

import dataclasses

from lgag_jax.options.fields import flag

FORMS = ("stablehlo", "onnx", "model")
IMAGE_TYPES = ("uint8", "uint16", "float32")


@dataclasses.dataclass(frozen=True)
class Settings:
  """What is exported, and for which images."""

  what: tuple[str, ...] = flag(("stablehlo", "model"), (
    "stablehlo: one program for CPUs, GPUs and TPUs; onnx: one for ONNX Runtime; model: a folder of "
    "weights that prediction takes as --workdir."))
  image_types: tuple[str, ...] = flag(("auto",), (
    "types of the images that programs are for, a program each: uint8, uint16, float32; auto is uint8, "
    "or uint16 where data.max_value is above 255."))
  onnx_batch: int = flag(1, "how many images the program for ONNX Runtime takes at once.")
  bands: tuple[int, ...] = flag((), "bands of a scene, from 1, in the model's order, to note.")
  training_gsd: float = flag(0.0, "metres a pixel of the training images, where theirs did not tell.")

  def __post_init__(self):
    self._require(set(self.what) <= set(FORMS) and self.what, "what", f"some of {', '.join(FORMS)}")
    known = self.image_types == ("auto",) or set(self.image_types) <= set(IMAGE_TYPES)
    self._require(
      known and self.image_types, "image_types", f"auto, or some of {', '.join(IMAGE_TYPES)}"
    )
    self._require(self.onnx_batch > 0, "onnx_batch", "1 or more")
    self._require(all(band > 0 for band in self.bands), "bands", "numbers from 1")
    self._require(0 <= self.training_gsd < float("inf"), "training_gsd", "0 or more")

  def _require(self, condition: bool, name: str, wanted: str) -> None:
    if not condition:
      value = getattr(self, name)
      shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
      raise ValueError(f"--{name}={shown}: must be {wanted}.")
