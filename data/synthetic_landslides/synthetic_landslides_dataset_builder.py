"""TFDS builder for synthetic landslide patches, which are drawn, not downloaded."""

import dataclasses
import importlib
import pathlib
import sys
from typing import ClassVar

import tensorflow_datasets as tfds
from etils import epath

_FOLDER = pathlib.Path(__file__).resolve().parent

try:
  from . import drawing, paint, pairs
except ImportError:  # This file was imported by its path, not as part of its package.
  sys.path.insert(0, str(_FOLDER.parent))
  try:
    drawing, paint, pairs = (
      importlib.import_module(f"{_FOLDER.name}.{name}") for name in ("drawing", "paint", "pairs")
    )
  finally:
    sys.path.remove(str(_FOLDER.parent))

# The first seeds lie so far apart that the splits never share a seed.
FIRST_SEED = {"train": 0, "validation": 1_000_000_000}


@dataclasses.dataclass(kw_only=True)
class Config(tfds.core.BuilderConfig):
  """The side of a patch in pixels and the number of patches in each split.

  With `classes`, patches show any combination of paint.CLASSES; otherwise landslides or none. With
  `pairs` each has an image before the event, up to `max_shift` pixels beside it.
  """

  size: int
  train: int
  validation: int
  classes: bool = False
  pairs: bool = False
  max_shift: int = 1

  def seeds(self, split: str) -> range:
    """Returns the seeds of a split. Even ones show a landslide (with `classes`, see `present`)."""
    count, first = getattr(self, split), FIRST_SEED[split]
    if not 0 < count <= FIRST_SEED["validation"]:
      raise ValueError(f"{split}={count}: must be from 1 to {FIRST_SEED['validation']} patches")
    return range(first, first + count)

  @staticmethod
  def present(seed: int) -> tuple[str, ...]:
    """Returns the classes of a seed's patch: half of the patches show each, in all combinations."""
    return tuple(name for bit, name in enumerate(paint.CLASSES) if not seed >> bit & 1)


# Not registered by name: the module may be imported more than once, under several names.
class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Draws patches of mountain country, half of them with a landslide."""

  name = "synthetic_landslides"
  pkg_dir_path = epath.Path(_FOLDER)
  code_path = epath.Path(__file__)  # TFDS cannot find it where the module has a name of its own.
  VERSION = tfds.core.Version("1.0.0")
  RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First release."}
  BUILDER_CONFIGS: ClassVar[list[Config]] = [
    Config(
      name="default", description="256 pixels, to learn from.", size=256, train=640, validation=200
    ),
    Config(name="tiny", description="64 pixels, for tests.", size=64, train=24, validation=16),
    Config(
      name="three_classes", description="256 pixels: landslides, bare ground, rivers.", size=256,
      train=640, validation=200, classes=True,
    ),
    Config(
      name="tiny_three_classes", description="64 pixels, for tests.", size=64, train=24,
      validation=16, classes=True,
    ),
    Config(
      name="pairs", description="256 pixels, before and after.", size=256, train=640, validation=200,
      pairs=True,
    ),
    Config(
      name="pairs_shifted", description="Before and after, up to 3 pixels apart.", size=256, train=640,
      validation=200, pairs=True, max_shift=3,
    ),
    Config(
      name="tiny_pairs", description="64 pixels, for tests.", size=64, train=24, validation=16,
      pairs=True,
    ),
  ]

  def _info(self) -> tfds.core.DatasetInfo:
    size, more = self.builder_config.size, {}
    if self.builder_config.pairs:
      more = {
        "before": tfds.features.Image(shape=(size, size, 3), encoding_format="png"),
        "old": tfds.features.Image(shape=(size, size, 1), encoding_format="png"),
      }
    label = tfds.features.ClassLabel(names=["non-landslide", "landslide"])
    if self.builder_config.classes:
      label = tfds.features.Sequence(tfds.features.ClassLabel(names=list(paint.CLASSES)))
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(shape=(size, size, 3), encoding_format="png"),
          "mask": tfds.features.Image(shape=(size, size, 1), encoding_format="png"),
          "label": label,
          "id": tfds.features.Text(),
          **more,
        }
      ),
      supervised_keys=("image", "label"),
      homepage="lgag_jax, data/synthetic_landslides",
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager):
    del dl_manager
    return {split: self._generate_examples(split) for split in FIRST_SEED}

  def _generate_examples(self, split: str):
    config = self.builder_config
    for seed in config.seeds(split):
      more = {}
      if config.pairs:
        label = int(seed % 2 == 0)
        pair = pairs.draw_patch(
          seed, size=config.size, landslide=bool(label), max_shift=config.max_shift
        )
        image, mask = pair.after, pair.mask
        more = {"before": pair.before, "old": pair.old[..., None]}
      elif config.classes:
        label = config.present(seed)
        image, mask = drawing.draw_classes(seed, label, size=config.size)
      else:
        label = int(seed % 2 == 0)
        image, mask = drawing.draw_patch(seed, size=config.size, landslide=bool(label))
      name = f"{split}_{seed - FIRST_SEED[split]:06d}"
      yield name, {"image": image, "mask": mask[..., None], "label": label, "id": name, **more}
