"""The published data sets that data/ has builders for (catalogue.toml), and how to get them."""

import dataclasses
import pathlib
import textwrap
import tomllib
from collections.abc import Sequence

from lgag_jax.options.fields import flag

PLACEHOLDER = "FOLDER"  # Stands for the user's own folder in commands and layouts.


@dataclasses.dataclass(frozen=True)
class Options:
  """The flags of --mode=datasets."""

  name: str = flag("", "the data set to show in detail.")


@dataclasses.dataclass(frozen=True)
class DataSet:
  """A data set as published; its builder is data/<name>, its config configs/<name>.py."""

  name: str
  title: str
  sensor: str  # With the ground resolution.
  size: str
  channels: str
  split: str  # How training and validation are separated.
  licence: str
  page: str
  layout: str  # Files below the folder of the data set.
  variants: Sequence[tuple[str, str]] = ()  # Flags of a variant, and its description.
  record: int = 0  # Zenodo record to download from; 0: download by hand.
  suffixes: Sequence[str] = ()  # Name endings of the required files in the record.
  max_gib: int = 0  # Upper bound for the size of these files.

  @property
  def command(self) -> str:
    """The command that trains on the data set."""
    original = "" if self.record else f" --config.data.original={PLACEHOLDER}"
    return (
      f"python -m lgag_jax.main --config=configs/{self.name}.py{original} --workdir=runs/{self.name}"
    )

  @property
  def preparation(self) -> str:
    """What the user has to do before training."""
    if self.record:
      return (
        "Nothing: training downloads it from Zenodo, unpacks it and builds it once, in runs/tfds. If "
        f"you have a copy, add --config.data.original={PLACEHOLDER}: the folder that holds the files "
        "listed below, an archive of it, or the URL of the archive."
      )
    return (
      f"Download it by hand from its page. {PLACEHOLDER} is the folder that holds the files listed "
      "below, an archive of it (.zip, .tar, .tar.gz), or the URL of the archive on a server of yours. "
      "Training builds it once, in runs/tfds."
    )


_TEXT = pathlib.Path(__file__).with_name("catalogue.toml").read_text()
TABLE = {name: DataSet(name=name, **fields) for name, fields in tomllib.loads(_TEXT).items()}


def find(name: str) -> DataSet:
  """Returns a data set; raises ValueError if the name is unknown."""
  if name not in TABLE:
    close = [known for known in TABLE if name and name.replace("_", "") in known.replace("_", "")]
    hint = f" Did you mean {close[0]}?" if close else ""
    raise ValueError(f"--name={name} is unknown: choose one of {', '.join(TABLE)}.{hint}")
  return TABLE[name]


def layout(name: str) -> str:
  """Returns the lines that show what a data set's folder must hold."""
  return textwrap.indent(find(name).layout.strip("\n"), "    ")


def instructions(name: str) -> str:
  """Returns how to get a data set: its page, what to do, and the expected layout."""
  data_set = find(name)
  return f"{data_set.title}: {data_set.page}\n{data_set.preparation}\n{layout(name)}"


def text(name: str = "") -> str:
  """Returns the output of --mode=datasets: one data set in detail, or a summary of all."""
  if name:
    return _details(find(name))
  lines = ["Published data sets with a builder and a config:", ""]
  for data_set in TABLE.values():
    download = "downloaded automatically" if data_set.record else "to be downloaded by hand"
    lines += [
      f"{data_set.name}: {data_set.title}", f"    {data_set.sensor}; {data_set.size}",
      f"    channels: {data_set.channels}; licence: {data_set.licence}",
      f"    {data_set.page}, {download}", f"    {data_set.command}", "",
    ]
  return "\n".join((
    *lines, "--mode=datasets --name=bijie shows one in detail: its layout, preparation and variants.",
    "For your own images see configs/image_folder.py and configs/scene.py.",
  ))


def _details(data_set: DataSet) -> str:
  lines = [data_set.title, ""]
  for name in ("sensor", "size", "channels", "split", "licence", "page"):
    lines.append(f"  {name:9}{getattr(data_set, name)}")
  lines += ["", *textwrap.wrap(f"Preparation: {data_set.preparation}", 100), ""]
  lines += [layout(data_set.name), "", "Train:", f"    {data_set.command}"]
  for flags, description in data_set.variants:
    lines += ["", f"Variant: {description}:", f"    {flags}"]
  return "\n".join(lines)
