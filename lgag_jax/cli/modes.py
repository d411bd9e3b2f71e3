"""The modes of the command line: what each does and is told, for help, checks and completion.

A new mode is an entry here and a function in `main`.
"""

import dataclasses

from lgag_jax.inputs import catalogue
from lgag_jax.options import export, mapping, tiling

DEFAULT = "train"
PROGRAM = "{lgag}"  # In examples: what the command line was started as.
_OWN = "--config=configs/image_folder.py --config.data.directory=my_images"
_CONFIG, _WORKDIR = ("config", "workdir"), ("workdir",)


@dataclasses.dataclass(frozen=True)
class Mode:
  """What a mode does and what it is told."""

  does: str  # One line.
  needs: tuple[str, ...]  # Flags, of those that are no mode's own.
  examples: tuple[str, ...]
  may: tuple[str, ...] = ("method_file",)  # Flags that it takes besides.
  fields: tuple[type, ...] = ()  # Dataclasses whose fields are flags of its own.
  notes: str = ""
  processes: bool = True  # Whether it can be one of several processes.

  def takes(self) -> set[str]:
    """Names every flag that means something to it."""
    own = {field.name for cls in self.fields for field in dataclasses.fields(cls) if field.metadata}
    return {"mode", *self.needs, *self.may, *own}


MODES = {
  "train": Mode(
    "trains on image labels, evaluates, and writes a report; goes on where it was stopped",
    needs=_CONFIG,
    examples=(
      f"{PROGRAM} {_OWN} --workdir=runs/mine",
      f"{PROGRAM} --config=configs/image_folder.py:sol --config.data.directory=my_images "
      "--config.train.epochs=10 --workdir=runs/sol",
      f"{PROGRAM} --config=configs/synthetic_landslides.py --workdir=runs/demo",
    ),
    notes="Every setting is a field of the config: --config.GROUP.FIELD=VALUE. A method follows the "
    "config file after a colon: lgag (the default), sol, class_activation, segmentation, or the "
    "published lgagnet, lgagnet_sol, lgagnet_class_activation.",
  ),
  "doctor": Mode(
    "reads the data before training and says what is wrong with it, and what to do",
    needs=_CONFIG,
    examples=(f"{PROGRAM} --mode=doctor {_OWN} --workdir=runs/mine",),
    notes="The exit code is 0 when nothing is worse than a note, 2 with warnings, 1 with errors.",
  ),
  "predict": Mode(
    "maps images and scenes of any size: GeoTIFFs, polygons, pictures, a report",
    needs=("workdir", "input", "output"), fields=(mapping.Options,),
    examples=(
      f"{PROGRAM} --mode=predict --workdir=runs/mine --input=new_images --output=maps",
      f"{PROGRAM} --mode=predict --workdir=runs/mine --input='flight/*.tif' --bands=4,3,2 "
      "--output=maps",
    ),
    notes="The exit code is 2 when some images could not be mapped: report.html says which, and why.",
  ),
  "eval": Mode(
    "judges the newest checkpoint on held-out images, or its maps of scenes against references",
    needs=_WORKDIR, may=("method_file", "input", "output"),
    fields=(mapping.Options, mapping.References),
    examples=(
      f"{PROGRAM} --mode=eval --workdir=runs/mine",
      f"{PROGRAM} --mode=eval --workdir=runs/mine --input=scene.tif --labels=landslides.gpkg "
      "--output=maps",
    ),
    notes="With --input it maps the scenes, or takes the maps that are in --output, and judges them "
    "against --labels. The options below are for that.",
  ),
  "export": Mode(
    "writes the network for use elsewhere: StableHLO, ONNX, a folder of weights with a model card",
    needs=("workdir", "output"), fields=(export.Settings,),
    examples=(
      f"{PROGRAM} --mode=export --workdir=runs/mine --output=exported",
      f"{PROGRAM} --mode=export --workdir=runs/mine --what=onnx --output=exported_onnx",
    ),
  ),
  "tile": Mode(
    "cuts scenes and an inventory of landslides into labelled tiles to train on",
    needs=("input", "labels", "output"), may=(), fields=(tiling.Settings,), processes=False,
    examples=(
      f"{PROGRAM} --mode=tile --input='scenes/*.tif' --labels=inventory.gpkg --output=my_images",
    ),
  ),
  "datasets": Mode(
    "lists the field's published data sets, and says what each one needs",
    needs=(), may=(), fields=(catalogue.Choice,), processes=False,
    examples=(f"{PROGRAM} --mode=datasets", f"{PROGRAM} --mode=datasets --name=gvlm"),
  ),
  "stages": Mode(
    "trains a first stage, writes its pseudo-masks, and trains a second one on them",
    needs=_CONFIG, examples=(f"{PROGRAM} --mode=stages {_OWN} --workdir=runs/both",),
    notes="<workdir>/first and <workdir>/second are workdirs like any other.",
  ),
  "pseudo": Mode(
    "writes the pseudo-masks of a finished training's images, to look at or to train on",
    needs=_WORKDIR, examples=(f"{PROGRAM} --mode=pseudo --workdir=runs/mine",),
  ),
  "report": Mode(
    "writes the report of a workdir again",
    needs=_WORKDIR, examples=(f"{PROGRAM} --mode=report --workdir=runs/mine",),
  ),
  "completion": Mode(
    "prints what makes bash or zsh complete modes, flags and config fields of `lgag`",
    needs=(), may=(), processes=False,
    examples=(
      'eval "$(lgag --mode=completion)"                                 # in ~/.bashrc',
      'autoload -U bashcompinit; bashcompinit; eval "$(lgag --mode=completion)"    # in ~/.zshrc',
    ),
  ),
}

FIRST_STEPS = (
  ("look at your images, sorted into my_images/landslide and my_images/non-landslide",
   MODES["doctor"].examples[0]),
  ("train on them, and look at runs/mine/report.html", MODES["train"].examples[0]),
  ("map new images or scenes, and look at maps/report.html", MODES["predict"].examples[0]),
)
