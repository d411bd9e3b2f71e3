"""Images of a catalogue: where their bands lie, what ground and which day they show."""

import dataclasses
import datetime
import hashlib
import json
import pathlib

import numpy as np
from shapely.geometry.base import BaseGeometry


@dataclasses.dataclass(frozen=True)
class Band:
  """A band of a file, and what a catalogue says of its values; None where only the file says it."""

  address: str
  number: int = 1  # In the file, from 1.
  scale: float | None = None
  offset: float | None = None
  nodata: float | None = None


@dataclasses.dataclass(frozen=True)
class CloudMask:
  """A file that says where clouds hide an image."""

  address: str
  kind: str  # By its name, as in `imagery.cloud_kinds`; "" if only --cloud_classes says it.


@dataclasses.dataclass(frozen=True)
class Image:
  """An image of a catalogue."""

  name: str
  bands: tuple[Band, ...]  # In the model's order.
  footprint: BaseGeometry  # In longitude and latitude.
  time: datetime.datetime | None = None  # With a zone.
  cloud_cover: float | None = None  # Percent.
  clouds: CloudMask | None = None
  source: str = ""  # Of its item in the catalogue.
  version: str = ""  # Changes when the image changes.
  types: tuple[np.dtype, ...] = ()  # Of each band as it is read; () where only its files say them.
  before: bool = False  # Whether it shows the ground before the event, for a network of pairs.

  @property
  def label(self) -> str:
    """Names the image in messages."""
    if self.name in pathlib.PurePosixPath(self.source).name:
      return self.source
    return f"{self.source}, item {self.name}" if self.source else self.name

  @property
  def key(self) -> str:
    """Identifies the image's pixels."""
    parts = [self.name, self.version, *map(dataclasses.astuple, self.bands)]
    parts.append(self.clouds and dataclasses.astuple(self.clouds))
    parts += ["before"] if self.before else []
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def in_order(images: list[Image], composite: str) -> list[Image]:
  """Returns images in the order in which they fill a composite; an order that files do not change.

  "least_cloud" begins with the least cloud cover, an unknown one last; the other rules with the
  earliest. Images of the same time, or without one, keep their order.
  """
  latest = datetime.datetime.max.replace(tzinfo=datetime.UTC)
  images = sorted(images, key=lambda image: image.time or latest)
  if composite == "least_cloud":
    cover = lambda image: 101.0 if image.cloud_cover is None else image.cloud_cover
    images = sorted(images, key=cover)
  return images
