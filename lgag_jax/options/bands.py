"""The settings of --mode=bands. Each field is a flag of the command line."""

import dataclasses

from lgag_jax.options import cloud_masks
from lgag_jax.options.fields import flag, require

TERRAIN = ("slope", "aspect", "curvature", "relief")
INDICES = ("ndvi", "ndwi", "bsi")
CHANGE = "_change"  # Ends the name of an index's change between two dates.
NAMES = ("red", "green", "blue", "nir", "swir1")  # Of bands that indices are made of.
_KNOWN = (*TERRAIN, *INDICES, *(f"{name}{CHANGE}" for name in INDICES))


@dataclasses.dataclass(frozen=True)
class Settings:
  """Which bands are added to scenes."""

  input: str
  output: str
  add: tuple[str, ...] = flag((), (
    f"what to add, such as slope,relief,ndvi: {', '.join(TERRAIN)} of --dem, the spectral indices "
    f"{', '.join(INDICES)}, or their change since --before, such as ndvi{CHANGE}."))
  dem: str = flag("", "a DEM with one band of heights in metres, of any grid and CRS.")
  relief_radius: float = flag(100.0, (
    "relief is the range of heights within this many metres around a pixel."))
  names: tuple[str, ...] = flag((), (
    "names of the scene's bands, in order, such as red,green,blue,nir. Indices use "
    f"{', '.join(NAMES)}; other bands may have any name. By default the file's own descriptions and "
    "colours of its bands."))
  bands: tuple[int, ...] = flag((), "bands of the scenes to write, such as 4,3,2.")
  max_value: float = flag(0.0, (
    "the value that data.max_value has in training. 0: the largest value of the data type, or 1 for "
    "floating-point numbers."))
  before: str = flag("", (
    "the image before the event: one file for all scenes, or a folder or glob of files with the "
    "scenes' names. Any grid and CRS."))
  max_shift: float = flag(5.0, (
    "with --before, the longest shift between the dates that is corrected, in pixels. 0: none is."))

  clouds, cloud_kind = "", cloud_masks.AUTO  # Not flags: later modes take them.

  def __post_init__(self):
    for name in ("input", "output"):
      require(getattr(self, name), self, name, "given: --mode=bands needs it")
    fits = len(self.add) > 0 and set(self.add) <= set(_KNOWN) and len(set(self.add)) == len(self.add)
    require(fits, self, "add", f"different names among {', '.join(_KNOWN)}")
    for name, users in (("dem", self.terrain), ("before", self.changes)):
      if bool(getattr(self, name)) != bool(users):
        given = f"--add={','.join(self.add)}"
        all_users = TERRAIN if name == "dem" else [one for one in _KNOWN if one.endswith(CHANGE)]
        raise ValueError(
          f"{given} needs --{name}, for {', '.join(users)}." if users else
          f"--{name} is only used for {', '.join(all_users)}, but {given} names none of them."
        )
    require(0 < self.relief_radius < float("inf"), self, "relief_radius", "positive")
    if self.relief_radius != Settings.relief_radius and "relief" not in self.add:
      raise ValueError(f"--relief_radius={self.relief_radius:g} needs relief in --add.")
    require(all(band > 0 for band in self.bands), self, "bands", "numbers from 1")
    known = [name for name in self.names if name in NAMES]
    require(len(set(known)) == len(known), self, "names", "different for the bands of indices")
    for name in ("max_shift", "max_value"):
      require(0 <= getattr(self, name) < float("inf"), self, name, "0 or more")

  @property
  def terrain(self) -> tuple[str, ...]:
    """What --add names of a DEM."""
    return tuple(name for name in self.add if name in TERRAIN)

  @property
  def indices(self) -> tuple[str, ...]:
    """The spectral indices and changes that --add names."""
    return tuple(name for name in self.add if name not in TERRAIN)

  @property
  def changes(self) -> tuple[str, ...]:
    """What --add names of two dates."""
    return tuple(name for name in self.add if name.endswith(CHANGE))
