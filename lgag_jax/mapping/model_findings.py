"""What the evaluation of a network found out about its maps, for the reader of a map."""

import logging

from lgag_jax.mapping.loaded_model import LoadedModel
from lgag_jax.runtime import files

_LOG = logging.getLogger(__name__)

_SHOWN = ("error", "warning")

Finding = tuple[str, str, str]  # Level, text and remedy.


def read(model: LoadedModel) -> tuple[Finding, ...]:
  """Returns the errors and warnings of a workdir's evaluation at this step; () without one.

  The network may be older or newer than the evaluation, or come without it, as a model directory does.
  """
  path = model.workdir / "eval" / "validation.json"
  if not path.exists():
    return ()
  try:
    content = files.read_json(path)
    if content["step"] != int(model.state.step):
      return ()
    classes = content["classes"]
    found = [
      (str(one["level"]), _text(name, len(classes), str(one["text"])), str(one["remedy"]))
      for name, values in classes.items() for one in values.get("diagnosis", ())
      if one["level"] in _SHOWN
    ]
  except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
    _LOG.warning("%s cannot be read, so the page repeats none of its findings: %s.", path, error)
    return ()
  if found and model.choice:
    found = [("note", (
      f"{model.choice} set another threshold or gate than that of the training report, whose findings "
      "follow."), ""), *found]
  return tuple(found)


def _text(name: str, classes: int, text: str) -> str:
  return f"{name}: {text}" if classes > 1 else text
