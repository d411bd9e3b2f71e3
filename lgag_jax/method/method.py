"""The parts of a method; registry.py has the methods by name, lgag_jax/methods.py their settings.

A method of your own is another `Method`, made of these parts and yours; see docs/research.md.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Bool, Float

from lgag_jax.config import Config
from lgag_jax.settings.maps import RULES
from lgag_jax.state import MemoryBank


@struct.dataclass(kw_only=True)
class Outputs:
  """The head's outputs for a batch. Without `locate`, guided is activation and no anchor exists."""

  scores: jax.Array  # f32[B, C], image scores s (logits).
  logits: jax.Array  # f32[B, h, w, C], class activation c before any normalisation.
  activation: jax.Array  # f32[B, h, w, K], M.
  # On the grid of the anchors, which may be finer:
  seeds: jax.Array  # i32[B, h, w], the class of each cell.
  anchors: jax.Array  # f32[B, K, D], local category anchors a.
  exists: jax.Array  # bool[B, K], e: class present and seeded.
  guided: jax.Array  # f32[B, h, w, K], R^.
  fused_logits: jax.Array  # f32[B, h, w, C], class activation of the fused features g'.


@dataclasses.dataclass(frozen=True)
class LossTerm:
  """One term of the hybrid loss: `weight` times `value`, which is one number per image."""

  name: str
  weight: Callable[[Config, Array | float], Array | float]  # Of the config and the epoch, a fraction.
  # Of the outputs, the batch ("label" f32[B, C], perhaps "mask" u8[B, H, W]) and the bank: f32[B].
  value: Callable[[Outputs, dict, MemoryBank, Config], Float[Array, " B"]]


@dataclasses.dataclass(frozen=True)
class ScoreMap:
  """A map that a method draws: scores in [0, 1], f32[B, h, w, C], of the head's outputs."""

  name: str
  scores: Callable[[Outputs, Config], Float[Array, "B h w C"]]
  normalised: bool = False  # By each image's own maximum: says nothing on negative images.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
  """All that differs between methods. Frozen: a checkpoint belongs to one of them, by name.

  The modules and functions have these signatures; letters as in the package's docstring:

  - classifier(config): a module of the taps to logits f32[B, h, w, C] and features f32[B, h, w, E];
  - anchor_features(config): a module of the taps and a grid (h, w) to g, f32[B, h, w, D]. The memory
    bank has the same D;
  - locate(structure f32[B, h', w', E], activation f32[B, h', w', K], present bool[B, K],
    g f32[B, h, w, D], config): one-hot seeds f32[B, h, w, K];
  - aggregation(config): a module of cells f32[B, N, D], global anchors f32[A, D] and whether there are
    any, bool[], to cells f32[B, N, D];
  - guide(cells f32[B, N, D], seeds f32[B, N, K], config): guided maps f32[B, N, K], unnormalised;
  - accept(outputs, batch, config): which anchors enter the bank, bool[B, K];
  - push(bank, anchors f32[B, K, D], accepted bool[B, K]): the next bank.
  """

  name: str
  classifier: Callable[[Config], nn.Module]
  anchor_features: Callable[[Config], nn.Module]
  losses: tuple[LossTerm, ...]
  maps: tuple[ScoreMap, ...]  # The last one is what the method is about.
  locate: Callable[..., Float[Array, "B h w K"]] | None = None  # None: no anchors, no guided map.
  structure: Literal["classifier", "last_tap", "anchors"] = "classifier"  # Features that locate reads.
  aggregation: Callable[[Config], nn.Module] | None = None
  classifies_fused: bool = False  # The fused features have a class activation of their own.
  guide: Callable[..., Float[Array, "B N K"]] | None = None
  accept: Callable[[Outputs, dict, Config], Bool[Array, "B K"]] | None = None  # None: no bank.
  push: Callable[..., MemoryBank] | None = None
  gated: bool = True  # A class that the image score denies is not mapped.
  supervision: Literal["labels", "masks"] = "labels"  # What training learns from.
  threshold_rule: str = "argmax"  # Used where localize.threshold_rule is "default".

  def __post_init__(self):
    self._require(self.name.isidentifier(), "name", "a name such as my_method")
    for field in ("classifier", "anchor_features"):
      self._require(callable(getattr(self, field)), field, "callable")
    self._require((self.accept is None) == (self.push is None), "push", "given with accept")
    for field in ("locate", "aggregation", "guide", "accept", "push"):
      value = getattr(self, field)
      self._require(value is None or callable(value), field, "callable, or None")
    for field, kind in (("losses", LossTerm), ("maps", ScoreMap)):
      values = getattr(self, field)
      sound = isinstance(values, tuple) and values and all(isinstance(v, kind) for v in values)
      self._require(sound, field, f"a tuple of one or more {kind.__name__}")
      self._require(len({v.name for v in values}) == len(values), field, "names that differ")
    self._require(self.threshold_rule in RULES, "threshold_rule", f"one of {', '.join(RULES)}")
    self._require(self.supervision in ("labels", "masks"), "supervision", "'labels' or 'masks'")
    structures = ("classifier", "last_tap", "anchors")
    self._require(self.structure in structures, "structure", f"one of {', '.join(structures)}")
    self._require((self.locate is None) == (self.guide is None), "guide", "given with locate")
    if self.locate is None:
      needs_anchors = self.aggregation or self.accept or self.classifies_fused
      self._require(not needs_anchors, "locate", "given, since other parts work on anchors")

  def _require(self, condition: object, field: str, expected: str) -> None:
    if not condition:
      value = getattr(self, field)
      raise ValueError(f"Method {self.name!r}: {field}={value!r} must be {expected}.")

  def map_names(self) -> tuple[str, ...]:
    return tuple(map_.name for map_ in self.maps)

  def main_map(self, config: Config) -> str:
    """Returns the map that is judged and drawn: the last, unless localize.map names another."""
    name = config.localize.map
    if name not in ("best", *self.map_names()):
      raise ValueError(
        f"config.localize.map={name!r}: method {self.name!r} draws {', '.join(self.map_names())}."
      )
    return self.maps[-1].name if name == "best" else name

  def learns_masks(self, config: Config) -> bool:
    """Whether training learns from pixels of masks, and not only from labels."""
    return self.supervision == "masks" or config.loss.drawn_pixel_weight > 0

  def takes_colour_evidence(self, config: Config) -> bool:
    """Whether evidence from the colours of pixels is added to the maps, which masks need not."""
    return self.supervision == "labels" and config.uses_colour_evidence

  def rule(self, config: Config) -> str:
    """Returns the threshold rule in use."""
    chosen = config.localize.threshold_rule
    if chosen == "default" and self.takes_colour_evidence(config):
      return "agreement"  # Evidence that is added moves the point where both classes are level.
    return self.threshold_rule if chosen == "default" else chosen
