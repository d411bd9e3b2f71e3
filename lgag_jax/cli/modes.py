"""The modes of the command line with their flags and examples, for help, checks and completion.

A new mode is an entry here and a function in one of main.py's three tables of modes.
"""

import dataclasses

from lgag_jax.inputs import catalogue
from lgag_jax.options import export, mapping, tiling

DEFAULT = "train"
PROGRAM = "{lgag}"  # Placeholder in examples for the command that started the program.
_OWN_IMAGES = "--config=configs/image_folder.py --config.data.directory=my_images"
_CONFIG, _WORKDIR = ("config", "workdir"), ("workdir",)


@dataclasses.dataclass(frozen=True)
class Mode:
  """The purpose and the flags of a mode."""

  purpose: str  # One line.
  required: tuple[str, ...]  # Flags.
  examples: tuple[str, ...]
  optional: tuple[str, ...] = ("method_file",)  # Flags that several modes share.
  fields: tuple[type, ...] = ()  # Dataclasses whose fields are optional flags of this mode.
  notes: str = ""
  processes: bool = True  # Whether the mode can run as one of several processes.

  def takes(self) -> set[str]:
    """Returns the names of all flags that the mode uses."""
    own = {field.name for cls in self.fields for field in dataclasses.fields(cls) if field.metadata}
    return {"mode", *self.required, *self.optional, *own}


MODES = {
  "train": Mode(
    "trains on image labels, evaluates, and writes a report; resumes a stopped training",
    required=_CONFIG,
    examples=(
      f"{PROGRAM} {_OWN_IMAGES} --workdir=runs/mine",
      f"{PROGRAM} --config=configs/image_folder.py:sol --config.data.directory=my_images "
      "--config.train.epochs=10 --workdir=runs/sol",
      f"{PROGRAM} --config=configs/synthetic_landslides.py --workdir=runs/demo",
    ),
    notes="Every setting is a field of the config: --config.GROUP.FIELD=VALUE. To choose a method, add "
    "it to the config file after a colon: lgag (the default), sol, class_activation, segmentation, or "
    "the published lgagnet, lgagnet_sol, lgagnet_class_activation.",
  ),
  "doctor": Mode(
    "checks the data before training, and says what is wrong and what to do",
    required=_CONFIG,
    examples=(f"{PROGRAM} --mode=doctor {_OWN_IMAGES} --workdir=runs/mine",),
    notes="The exit code is 1 if there are errors, 2 if there are warnings only, 0 otherwise.",
  ),
  "predict": Mode(
    "maps images and scenes of any size: GeoTIFFs, polygons, pictures, a report",
    required=("workdir", "input", "output"), fields=(mapping.Options,),
    examples=(
      f"{PROGRAM} --mode=predict --workdir=runs/mine --input=new_images --output=maps",
      f"{PROGRAM} --mode=predict --workdir=runs/mine --input='flight/*.tif' --bands=4,3,2 "
      "--output=maps",
    ),
    notes="The exit code is 2 if some images could not be mapped. report.html says which, and why.",
  ),
  "eval": Mode(
    "evaluates the newest checkpoint on held-out images, or its maps of scenes against references",
    required=_WORKDIR, optional=("method_file", "input", "output"),
    fields=(mapping.Options, mapping.References),
    examples=(
      f"{PROGRAM} --mode=eval --workdir=runs/mine",
      f"{PROGRAM} --mode=eval --workdir=runs/mine --input=scene.tif --labels=landslides.gpkg "
      "--output=maps",
    ),
    notes="With --input it maps the scenes, or reuses the maps in --output, and evaluates them against "
    "--labels. The options below are for this use.",
  ),
  "export": Mode(
    "exports the network: as StableHLO, ONNX, or a folder of weights with a model card",
    required=("workdir", "output"), fields=(export.Settings,),
    examples=(
      f"{PROGRAM} --mode=export --workdir=runs/mine --output=exported",
      f"{PROGRAM} --mode=export --workdir=runs/mine --what=onnx --output=exported_onnx",
    ),
  ),
  "tile": Mode(
    "cuts scenes into tiles to train on, labelled by an inventory of landslides",
    required=("input", "labels", "output"), optional=(), fields=(tiling.Settings,), processes=False,
    examples=(
      f"{PROGRAM} --mode=tile --input='scenes/*.tif' --labels=inventory.gpkg --output=my_images",
    ),
  ),
  "datasets": Mode(
    "lists the published data sets, and says what each one needs",
    required=(), optional=(), fields=(catalogue.Options,), processes=False,
    examples=(f"{PROGRAM} --mode=datasets", f"{PROGRAM} --mode=datasets --name=gvlm"),
  ),
  "stages": Mode(
    "trains a first stage, writes its pseudo-masks, and trains a second stage on them",
    required=_CONFIG, examples=(f"{PROGRAM} --mode=stages {_OWN_IMAGES} --workdir=runs/both",),
    notes="<workdir>/first and <workdir>/second are workdirs like any other.",
  ),
  "pseudo": Mode(
    "writes pseudo-masks of the training images, to view or to train on",
    required=_WORKDIR, examples=(f"{PROGRAM} --mode=pseudo --workdir=runs/mine",),
  ),
  "report": Mode(
    "writes the report of a workdir again",
    required=_WORKDIR, examples=(f"{PROGRAM} --mode=report --workdir=runs/mine",),
  ),
  "completion": Mode(
    "prints a script that makes bash or zsh complete the modes, flags and config fields of `lgag`",
    required=(), optional=(), processes=False,
    examples=(
      'eval "$(lgag --mode=completion)"                                 # in ~/.bashrc',
      'autoload -U bashcompinit; bashcompinit; eval "$(lgag --mode=completion)"    # in ~/.zshrc',
    ),
  ),
}

FIRST_STEPS = (
  ("check your images, sorted into my_images/landslide and my_images/non-landslide",
   MODES["doctor"].examples[0]),
  ("train on them, then open runs/mine/report.html", MODES["train"].examples[0]),
  ("map new images or scenes, then open maps/report.html", MODES["predict"].examples[0]),
)
