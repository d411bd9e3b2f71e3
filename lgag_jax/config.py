"""Everything that does not change during a run: typed, frozen, checked when built.

A config file builds a `ConfigDict` with `config_dict()`, assigns to its fields and returns it; the
program reads it back with `from_mapping()`. Names are checked both ways, so a typo in a file, on the
command line or in code is an error with a suggestion, never a new field.
"""

import dataclasses
import difflib
import json
import pathlib
from collections.abc import Mapping
from typing import Any, get_type_hints

import ml_collections

from lgag_jax.settings import earlier
from lgag_jax.settings.checks import require
from lgag_jax.settings.data import DataConfig
from lgag_jax.settings.maps import LocalizeConfig, RefineConfig
from lgag_jax.settings.model import BankConfig, GaaConfig, LossConfig, ModelConfig, SolConfig
from lgag_jax.settings.training import OptimConfig, TrainConfig

_MAX_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Config:
  """All of a run's settings."""

  data: DataConfig = DataConfig()
  model: ModelConfig = ModelConfig()
  sol: SolConfig = SolConfig()
  gaa: GaaConfig = GaaConfig()
  bank: BankConfig = BankConfig()
  loss: LossConfig = LossConfig()
  optim: OptimConfig = OptimConfig()
  train: TrainConfig = TrainConfig()
  localize: LocalizeConfig = LocalizeConfig()
  refine: RefineConfig = RefineConfig()

  @property
  def uses_colour_evidence(self) -> bool:
    """Whether maps take evidence from the colours of pixels; fewer than three bands have none."""
    return self.refine.colour_evidence and self.data.channels >= 3

  @property
  def trunk_bands(self) -> tuple[int, ...]:
    """The bands of one date that the trunk sees, from 1: all but model.evidence_bands."""
    bands = range(1, self.data.channels + 1)
    return tuple(band for band in bands if band not in self.model.evidence_bands)

  @property
  def trunk_rgb_bands(self) -> tuple[int, ...]:
    """Where the trunk sees model.rgb_bands, from 1."""
    if self.data.channels < 3:
      return self.model.rgb_bands
    return tuple(self.trunk_bands.index(band) + 1 for band in self.model.rgb_bands)

  def __post_init__(self):
    rgb, bands = self.model.rgb_bands, range(1, self.data.channels + 1)
    fits = self.data.channels < 3 or (len(rgb) == len(set(rgb)) == 3 and set(rgb) <= set(bands))
    require(fits, "model.rgb_bands", rgb, f"name three of {self.data.channels} bands, from 1.")
    nir = self.model.nir_band
    fits = nir == 0 or (self.data.channels > 3 and nir in set(bands) - set(rgb))
    require(fits, "model.nir_band", nir, "name a band that is none of model.rgb_bands, or 0 for none.")
    own = self.model.evidence_bands
    fits = len(own) == len(set(own)) and set(own) <= set(bands) - {*rgb, nir}
    fits &= not own or self.data.channels >= 3
    require(fits, "model.evidence_bands", own, (
      f"name bands from 1 to {self.data.channels} that are not in model.rgb_bands and model.nir_band."))
    require(
      len(set(self.data.classes)) == len(self.data.classes), "data.classes", self.data.classes,
      "names a class twice.",
    )
    frozen = self.model.first_trainable_stage == 5
    require(
      frozen or self.data.augment != "features", "data.augment", self.data.augment,
      "'features' needs a frozen trunk (model.first_trainable_stage=5): use 'image'.",
    )


def config_dict(config: Config = Config()) -> Any:
  """Returns `config` as a locked ConfigDict, whose fields have no static types, for a config file."""
  result = ml_collections.ConfigDict(dataclasses.asdict(config))
  result.lock()
  return result


def from_mapping(mapping: Mapping[str, Any] | ml_collections.ConfigDict) -> Config:
  """Builds a Config; raises ValueError or TypeError that names an unknown, missing or wrong field."""
  if isinstance(mapping, ml_collections.ConfigDict):
    mapping = mapping.to_dict()
  return _build(Config, mapping, "config")


def load(path: pathlib.Path) -> Config:
  """Reads a config written as JSON; raises ValueError naming the file when it is not a config.

  Fields that an earlier release did not know yet have their defaults; see `settings.earlier` for those
  that it had and this one has not.
  """
  try:
    if path.exists() and not path.is_file():  # A pipe would block.
      raise ValueError("it is not a regular file.")
    if path.exists() and path.stat().st_size > _MAX_BYTES:
      raise ValueError(f"it has more than {_MAX_BYTES >> 20} MiB.")
    mapping = json.loads(path.read_text())
    if not isinstance(mapping, dict):
      raise ValueError("it holds no JSON object.")
    mapping = earlier.upgraded(mapping)
    for group, fields in dataclasses.asdict(Config()).items():
      if isinstance(mapping.get(group), dict):
        mapping[group] = {**fields, **mapping[group]}
    return from_mapping(mapping)
  except FileNotFoundError:
    raise FileNotFoundError(f"{path} is missing: is its folder the workdir of a training?") from None
  except (ValueError, TypeError, RecursionError, OverflowError) as error:
    raise ValueError(f"{path} is no valid config: {error} Mend it, or take a copy's.") from error


def _build(cls: type, mapping: Mapping[str, Any], path: str) -> Any:
  types = get_type_hints(cls)
  for name in mapping:
    if name not in types:
      close = difflib.get_close_matches(name, types, n=1)
      hint = f" Did you mean {close[0]!r}?" if close else f" There are: {', '.join(types)}."
      raise ValueError(f"{path}.{name} is unknown.{hint}")
  missing = [name for name in types if name not in mapping]
  if missing:
    raise ValueError(f"{path} lacks {', '.join(missing)}: take them from config_dict().")
  return cls(**{n: _value(mapping[n], kind, f"{path}.{n}") for n, kind in types.items()})


def _value(value: Any, kind: Any, path: str) -> Any:
  if isinstance(kind, type) and dataclasses.is_dataclass(kind):
    if not isinstance(value, Mapping):
      raise TypeError(f"{path} must be a group of fields, not {value!r}.")
    return _build(kind, value, path)
  if hasattr(kind, "__args__"):  # A tuple[X, ...]; JSON has lists only.
    if not isinstance(value, tuple | list):
      raise TypeError(f"{path} must be a tuple, not {value!r}.")
    return tuple(_value(v, kind.__args__[0], f"{path}[{i}]") for i, v in enumerate(value))
  if kind is float and type(value) is int:
    return float(value)
  if type(value) is not kind:
    raise TypeError(f"{path} must be {kind.__name__}, not {value!r}.")
  return value
