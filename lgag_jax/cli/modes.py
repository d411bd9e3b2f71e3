"""The modes of the command line with their flags and examples, for help, checks and completion.

A new mode needs an entry in modes.toml and a function in one of main.py's three tables of modes.
"""

import dataclasses
import pathlib
import tomllib
from collections.abc import Sequence

from lgag_jax.inputs import catalogue
from lgag_jax.options import area, bands, clouds, export, labelling, mapping, reviewing, tiling

DEFAULT = "train"
PROGRAM = "{lgag}"  # Placeholder in examples for the command that started the program.


@dataclasses.dataclass(frozen=True)
class Mode:
  """The purpose and the flags of a mode."""

  purpose: str  # One line.
  required: Sequence[str]  # Flags.
  examples: Sequence[str]
  optional: Sequence[str] = ("method_file",)  # Flags that several modes share.
  fields: tuple[type, ...] = ()  # Dataclasses whose fields are optional flags of this mode.
  notes: str = ""
  processes: bool = True  # Whether the mode can run as one of several processes.

  def takes(self) -> set[str]:
    """Returns the names of all flags that the mode uses."""
    own = {field.name for cls in self.fields for field in dataclasses.fields(cls) if field.metadata}
    return {"mode", *self.required, *self.optional, *own}


_FIELDS = {
  "predict": (mapping.Options,), "eval": (mapping.Options, mapping.References),
  "map": (area.Imagery, area.Area, area.Engine), "export": (export.Settings,),
  "label": (labelling.Settings,), "review": (reviewing.Settings,), "tile": (tiling.Settings,),
  "bands": (bands.Settings,), "clouds": (clouds.Settings,),
  "datasets": (catalogue.Options,),
}
_TEXT = pathlib.Path(__file__).with_name("modes.toml").read_text()
MODES = {
  name: Mode(**values, fields=_FIELDS.get(name, ())) for name, values in tomllib.loads(_TEXT).items()
}
FIRST_STEPS = (
  ("check your images, sorted into my_images/landslide and my_images/non-landslide",
   MODES["doctor"].examples[0]),
  ("train on them, then open runs/mine/report.html", MODES["train"].examples[0]),
  ("map new images or scenes, then open maps/report.html", MODES["predict"].examples[0]),
)
