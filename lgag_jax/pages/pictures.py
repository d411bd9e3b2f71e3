"""Pictures inside an HTML page, so that the page needs no other file."""

import base64
import dataclasses
import io

from matplotlib.figure import Figure
from PIL import Image


@dataclasses.dataclass(frozen=True)
class Picture:
  """A picture as a data URI, and the text that describes it to readers who cannot see it."""

  uri: str
  description: str


def from_figure(figure: Figure, description: str) -> Picture:
  """Returns a PNG of a matplotlib figure."""
  buffer = io.BytesIO()
  figure.savefig(buffer, format="png")
  return _picture(buffer, "png", description)


def from_image(image: Image.Image, side: int, description: str, *, kind: str = "png") -> Picture:
  """Returns a PNG or JPEG of an image, shrunk to fit a square of `side` pixels."""
  image.thumbnail((side, side))
  buffer = io.BytesIO()
  image.save(buffer, format=kind, quality=85)
  return _picture(buffer, kind, description)


def _picture(buffer: io.BytesIO, kind: str, description: str) -> Picture:
  data = base64.b64encode(buffer.getvalue()).decode()
  return Picture(f"data:image/{kind};base64,{data}", description)
