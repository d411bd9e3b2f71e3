"""Checks that no file of the data set is left unused without the user's knowledge."""

from lgag_jax.config import Config
from lgag_jax.doctor.findings import NOTE, WARNING, Finding, finding, plural
from lgag_jax.imagery import opening
from lgag_jax.inputs import unused_files


def check(config: Config) -> list[Finding]:
  """Returns the findings about files and columns of the manifest that nothing reads."""
  if config.data.source == "tfds":
    return []
  try:
    unused = unused_files.find(config.data)
  except (ValueError, OSError):  # Opening the splits reports it.
    return []
  formats = ", ".join(opening.SUFFIXES)
  texts = (
    (WARNING, unused.masks, "mask", "{has} the name of no image, so nothing uses {them}.",
     "Give each mask the name of its image, such as masks/a1.png for the image a1.jpg."),
    (WARNING, unused.formats, "image", "{has} a format that lgag does not read.",
     f"Convert them to one of: {formats}."),
    (WARNING, unused.nested, "image", "{lies} in folders inside the folders of images or masks, which "
     "lgag does not read.", "Move them up, under names that no other image has."),
    (NOTE, unused.elsewhere, "image", "{lies} in folders that lgag does not read.",
     "If they belong to the data, move them into the folders of images or masks. Or set data.classes "
     "and data.background to the names of your folders."),
    (NOTE, unused.unlisted, "image or mask", "{has} no row in the manifest, so nothing uses {them}.",
     "Add rows for them if they belong to the data."),
    (NOTE, unused.rows, "row", "of the manifest {names} no image.",
     "Correct the names if the images belong to the data."),
    (NOTE, unused.others, "file", "among the images or masks {is} hidden or no image. lgag ignores "
     "{them}.", ""),
  )
  findings = [
    finding(severity, f"{plural(len(names), noun)} {_agree(text, len(names))}", remedy, names)
    for severity, names, noun, text, remedy in texts if names
  ]
  if unused.columns:
    findings.append(finding(
      NOTE, f"lgag does not read {plural(len(unused.columns), 'column')} of the manifest: "
      f"{', '.join(unused.columns)}.",
      "If one of them holds the split, call it split. Labels come from folders, or from masks.",
    ))
  return findings


def _agree(text: str, count: int) -> str:
  one = {"has": "has", "lies": "lies", "names": "names", "is": "is", "them": "it"}
  many = {"has": "have", "lies": "lie", "names": "name", "is": "are", "them": "them"}
  return text.format(**(one if count == 1 else many))
