"""Where examples come from, and what the network sees of them."""

import dataclasses

from lgag_jax.settings.checks import at_most, fraction, not_negative, one_of, positive, require

_MAX_SIDE = 4096  # Pixels of the network's input.


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Where examples come from and what the model sees of them."""

  source: str = "folder"  # "tfds", "folder" (a folder per class) or "patches" (images with masks).
  directory: str = ""  # The data's root; for "tfds" the data_dir ("" is TFDS's own default).
  builder: str = ""  # "tfds": a registered name, or a folder with a *_dataset_builder.py.
  original: str = ""  # "tfds": the data set as published: a folder, an archive or its address.
  manifest: str = ""  # A CSV of images, masks ("patches") and splits; "" is <directory>/manifest.csv.
  pseudo_masks: str = ""  # A folder that --mode=pseudo wrote: training takes its masks from there.
  train_split: str = "train"  # TFDS syntax: "train", "train[:80%]", "train[:40%]+train[60%:]".
  validation_split: str = "validation"
  validation_fraction: float = 0.2  # If the data names no splits: the last images by name.
  block_size: int = 0  # "patches": side of a block in source pixels; 0 splits whole images.
  block_buffer: int = 0  # Source pixels around a validation block that no training tile may touch.
  classes: tuple[str, ...] = ("landslide",)  # Foreground classes; folder names for "folder".
  background: str = "non-landslide"  # "folder": the folder of images without any class.
  channels: int = 3  # Bands of an image, of one date.
  before: str = ""  # Images before the event: a folder, "manifest" or "stacked"; "tfds": a feature.
  max_shift: float = 5.0  # A shift between the dates is corrected up to this, in pixels; 0: never.
  image_size: int = 256  # Side in pixels of what the model sees.
  tile_size: int = 0  # Side in source pixels of the tiles cut from images; 0 takes images whole.
  gsd: float = 0.0  # Metres per source pixel; 0 reads it from georeferenced images.
  min_mask_pixels: int = 1  # A tile is positive when its mask has at least this many pixels ...
  min_mask_fraction: float = 0.0  # ... and at least this share of its area.
  mask_ignore: int = -2  # Mask value that means unknown; -1: none; -2: the masks' values decide.
  normalise: str = "trunk"  # "train": by the training images' own mean and std; "given": by these.
  max_value: float = 0.0  # "trunk": pixel value that maps to 1; 0 takes the data type's largest.
  mean: tuple[float, ...] = ()  # Per channel, "trunk": of images in [0, 1]; empty: the trunk's mean.
  std: tuple[float, ...] = ()  # Likewise.
  balance: bool = True  # Draw positives and negatives equally often.
  augment: str = "features"  # Flips and quarter turns of trunk outputs, of the "image", or "none".
  colour_jitter: float = 0.0  # Strength of brightness and contrast jitter; needs augment="image".
  scale_jitter: float = 0.0  # Random zoom in [1, 1 + this]; needs augment="image".
  on_bad_image: str = "error"  # "error" or "skip".
  max_bad_images: int = 20  # With "skip": more than this many stop the run with an error.
  decoded_cache_gib: float = 1.0  # Decoded images are kept in memory up to this size.
  feature_cache_gib: float = 6.0  # Frozen trunk outputs are kept on disk up to this size; 0: never.
  feature_cache_directory: str = ""  # "" is <workdir>/features.

  def __post_init__(self):
    one_of("data.source", self.source, ("tfds", "folder", "patches"))
    fits = self.source == "tfds" or not self.original
    require(fits, "data.original", self.original, "only builders (data.source='tfds') take one.")
    require(len(self.classes) > 0, "data.classes", self.classes, "name at least one class.")
    positive("data", self, "channels", "image_size")
    at_most("data", self, _MAX_SIDE, "image_size")  # A stranger's may take any memory.
    not_negative("data", self, "tile_size", "gsd", "min_mask_pixels", "max_value", "colour_jitter")
    not_negative("data", self, "scale_jitter", "decoded_cache_gib", "feature_cache_gib")
    not_negative("data", self, "block_size", "block_buffer", "max_bad_images", "max_shift")
    fits = self.block_size == 0 or 0 < self.tile_size <= self.block_size
    require(
      fits and (self.source == "patches" or self.block_size == 0), "data.block_size", self.block_size,
      f"needs data.source='patches' and a data.tile_size from 1 to this, not {self.tile_size}.",
    )
    fits = self.block_size > 0 or self.block_buffer == 0
    require(fits, "data.block_buffer", self.block_buffer, "set data.block_size, or 0 here.")
    fraction("data", self, "min_mask_fraction", "validation_fraction")
    one_of("data.augment", self.augment, ("none", "image", "features"))
    one_of("data.on_bad_image", self.on_bad_image, ("error", "skip"))
    for name, value in (("mean", self.mean), ("std", self.std)):
      count = self.input_channels if self.normalise == "given" else self.channels
      fits = len(value) in (0, count)
      require(fits, f"data.{name}", value, f"give one value for each of {count} channels.")
    require(all(s > 0 for s in self.std), "data.std", self.std, "must be positive.")
    fits = {"trunk": True, "train": not (self.mean or self.std or self.max_value),
            "given": self.mean and self.std and not self.max_value}
    require(bool(fits.get(self.normalise)), "data.normalise", self.normalise, (
      "must be 'trunk', 'train' without data.mean, std and max_value, or 'given' with mean and std."))
    fits = self.augment == "image" or not (self.colour_jitter or self.scale_jitter)
    require(fits, "data.augment", self.augment, (
      "colour_jitter and scale_jitter change the image: set it to 'image'."))

  @property
  def paired(self) -> bool:
    """Whether each image has one before the event."""
    return bool(self.before)

  @property
  def input_channels(self) -> int:
    """The bands of both dates together."""
    return self.channels * (2 if self.paired else 1)
