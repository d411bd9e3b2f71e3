"""The methods by name; method.py says what a method is, lgag_jax/methods.py has their settings.

They are the package's own, and those that a file of yours defines.
"""

import hashlib
import importlib.machinery
import importlib.util
import os
import pathlib
import sys

from lgag_jax import methods
from lgag_jax.config import Config
from lgag_jax.method import classifiers, gaa, head, losses, memory_bank, sol
from lgag_jax.method.method import Method, ScoreMap

_LABEL_TERMS = (losses.CLASSIFICATION, losses.NEGATIVE_PIXELS)
_ACTIVATION = ScoreMap("class_activation", head.activation_probability)
_NORMALISED = ScoreMap("class_activation", head.normalised_activation, normalised=True)

CLASS_ACTIVATION = Method(
  name="class_activation", classifier=classifiers.tap_classifier, anchor_features=sol.tap_features,
  losses=_LABEL_TERMS, maps=(_ACTIVATION,),
)
# Local anchors guide; nothing is shared between images (as in SIPE).
SOL = Method(
  name="sol", classifier=classifiers.tap_classifier, anchor_features=sol.tap_features,
  locate=sol.locate, guide=sol.cosine_guide, losses=(*_LABEL_TERMS, losses.CONSISTENCY),
  maps=(_ACTIVATION, ScoreMap("anchor_guided", head.guided_scores)),
)
# The whole method in the form that has measured best.
LGAG = Method(
  name="lgag", classifier=classifiers.tap_classifier, anchor_features=sol.tap_features,
  locate=sol.locate, aggregation=gaa.residual_attention, classifies_fused=True, guide=sol.cosine_guide,
  accept=memory_bank.accept_confident, push=memory_bank.push,
  losses=(*_LABEL_TERMS, losses.CONSISTENCY, losses.CONTRAST, losses.AUXILIARY),
  maps=(_ACTIVATION, ScoreMap("anchor_guided", head.fused_guided_scores)),
)
# A decoder that learns from masks knows what an image without the class looks like: no gate.
SEGMENTATION = Method(
  name="segmentation", classifier=classifiers.decoder, anchor_features=sol.tap_features,
  losses=(losses.SEGMENTATION,), maps=(ScoreMap("segmentation", head.activation_probability),),
  gated=False, supervision="masks", threshold_rule="otsu",
)
# The published form, and its first two rungs.
LGAGNET = Method(
  name="lgagnet", classifier=classifiers.linear_classifier, anchor_features=sol.side_projections,
  locate=sol.locate, structure="last_tap", aggregation=gaa.concatenated_attention,
  classifies_fused=True, guide=sol.cosine_guide, accept=memory_bank.accept_confident,
  push=memory_bank.push,
  losses=LGAG.losses, maps=(_NORMALISED, ScoreMap("anchor_guided", head.fused_guided_scores)),
)
LGAGNET_SOL = Method(
  name="lgagnet_sol", classifier=classifiers.linear_classifier, anchor_features=sol.side_projections,
  locate=sol.locate, structure="last_tap", guide=sol.cosine_guide, losses=SOL.losses,
  maps=(_NORMALISED, ScoreMap("anchor_guided", head.guided_scores)),
)
LGAGNET_CLASS_ACTIVATION = Method(
  name="lgagnet_class_activation", classifier=classifiers.linear_classifier,
  anchor_features=sol.side_projections, losses=_LABEL_TERMS, maps=(_NORMALISED,),
)

OWN = {
  method.name: method
  for method in (
    CLASS_ACTIVATION, SOL, LGAG, SEGMENTATION, LGAGNET, LGAGNET_SOL, LGAGNET_CLASS_ACTIVATION
  )
}
_METHODS = {name: (method, "") for name, method in OWN.items()}  # With the digest of its file.


def method_of(config: Config) -> Method:
  """Returns the method that a config names.

  Raises ValueError if the name is unknown, if the file that defines it has changed since the config
  was written, or if the data settings do not suit it.
  """
  name, digest = config.model.method, config.model.method_digest
  if name not in _METHODS:
    raise ValueError(methods.unknown(name))
  method, now = _METHODS[name]
  if digest != now:
    raise ValueError(
      f"config.model.method={name!r} comes from "
      + (f"a file with SHA-256 {digest[:12]}" if digest else "the package")
      + (f", but --method_file now has SHA-256 {now[:12]}" if now else ", not from a file of yours")
      + ". Name the file as it was when the training began, or train again in another --workdir."
    )
  if config.data.pseudo_masks and method.supervision != "masks":
    raise ValueError(
      f"config.data.pseudo_masks={config.data.pseudo_masks!r}: method {name!r} does not learn from "
      "masks; use model.method='segmentation'."
    )
  return method


def digest_of(name: str) -> str:
  """Returns the SHA-256 of the file that defines a method; "" for the package's own."""
  return _METHODS[name][1] if name in _METHODS else ""


def load_file(path: str | os.PathLike) -> tuple[str, ...]:
  """Runs a Python file of yours and takes the methods that it defines; returns their names.

  A method is any module-level `Method`. `SETTINGS = {name: {field: value}}` in the file gives the
  settings that go with it. The file is run because you named it: nothing in a workdir ever names one.
  Raises ValueError if the file is missing, fails, defines no method, or takes a name of the package's.
  """
  path = pathlib.Path(path).expanduser()
  try:
    content = path.read_bytes()
  except OSError as error:
    raise ValueError(f"--method_file={path} cannot be read: {error.strerror}.") from error
  digest = hashlib.sha256(content).hexdigest()
  module_name = f"lgag_jax_method_file_{digest[:16]}"
  spec = importlib.machinery.ModuleSpec(module_name, None, origin=str(path))
  module = importlib.util.module_from_spec(spec)
  module.__file__ = str(path)
  sys.modules[module_name] = module  # Flax and dataclasses look their module up.
  try:
    exec(compile(content, str(path), "exec"), module.__dict__)
  except Exception as error:
    raise ValueError(f"--method_file={path} fails: {type(error).__name__}: {error}") from error
  defined = {
    value.name: value for value in vars(module).values()
    if isinstance(value, Method) and value not in OWN.values()
  }
  if not defined:
    raise ValueError(f"--method_file={path} defines no Method: assign one to a name in the file.")
  for name in defined:
    if name in OWN:
      raise ValueError(f"--method_file={path} defines {name!r}, one of the package's names: rename it.")
  settings = getattr(module, "SETTINGS", {})
  for name, method in defined.items():
    _METHODS[name] = (method, digest)
    methods.SETTINGS[name] = dict(settings.get(name, {}))
  return tuple(defined)
