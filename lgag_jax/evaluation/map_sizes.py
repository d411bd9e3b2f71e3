"""Finds maps that are far too small or too large, from the labels of images alone."""

from lgag_jax.config import Config
from lgag_jax.evaluation import remedies
from lgag_jax.evaluation.findings import finding, percent
from lgag_jax.evaluation.metrics import BLACK_SHARE, WHITE_SHARE
from lgag_jax.method.registry import method_of

WEAK_AUC = 0.8  # Below, one pair in five of a positive and a negative image is in the wrong order.
MANY = 0.5  # The share of images whose maps are black or white that makes a finding.
SOME = 0.25  # The same for a warning, if it is so in MIN_PART images.
MIN_PART = 3
MAX_NEGATIVE_SHARE = 0.02  # Of the pixels of negative images.


def findings(
  image: dict, values: dict, config: Config, training: dict | None
) -> list[dict | None]:
  """Returns what is wrong with the sizes of maps; arguments as of `diagnose.findings`."""
  results = []
  for check in (_black, _white, _mapped_negatives):
    found = check(image, values, config)
    if found is None and training:
      found = check(training["image"], values | {"coverage": training["coverage"]}, config)
      if found:
        text = found["text"]
        found["text"] = f"On the training images: {text[0].lower()}{text[1:]}"
    results.append(found)
  return results


def _how_many(part: int, whole: int) -> tuple[str, str]:
  """Returns the level of a finding on `part` of `whole` images and how it begins; "" for none."""
  if not whole or part < SOME * whole:
    return "", ""
  if part >= MANY * whole:
    return "error", "Maps are"
  return ("warning", "Some maps are") if part >= MIN_PART else ("", "")


def _black(image: dict, values: dict, config: Config) -> dict | None:
  black, count = values["coverage"]["black"], values["coverage"]["positive_images"]
  level, begin = _how_many(black, count)
  if not level:
    return None
  denied = values["coverage"]["black_denied"] if method_of(config).gated else 0
  threshold = values["label_free"]["threshold"]
  advice = [] if (image["auc"] or 0.0) >= WEAK_AUC else ["Check the AUC first."]
  if denied >= MANY * black:
    advice.append(remedies.move_gate("lower", config))
  else:
    advice += [remedies.move_rule("lower", config), remedies.other_rules(config)]
  if method_of(config).gated:
    advice.append("Add negatives that look like the surroundings of landslides.")
    advice.append(remedies.train_longer(config))
  text = (
    f"{begin} black: in {black} of {count} positive images, less than {percent(BLACK_SHARE)} of the "
    f"pixels reach the threshold {threshold:.3f}."
  )
  text += f" In {denied} of them the image classifier does not find the class." if denied else ""
  return finding(level, text, *advice, remedies.smaller_images(config))


def _white(_: dict, values: dict, config: Config) -> dict | None:
  white, count = values["coverage"]["white"], values["coverage"]["found_images"]
  level, begin = _how_many(white, count)
  if not level:
    return None
  advice = [remedies.other_rules(config), remedies.move_rule("raise", config)]
  if not method_of(config).gated:
    advice.append("Check the masks that the network was trained on.")
  else:
    advice.insert(0, "Add negatives from the same terrain: they teach what is background.")
    if config.model.pooling == "average":
      advice.append("Set model.pooling=top: average pooling rewards high scores all over an image.")
  text = (
    f"{begin} white: in {white} of {count} images called positive, more than {percent(WHITE_SHARE)} "
    f"of the pixels reach the threshold {values['label_free']['threshold']:.3f}."
  )
  return finding(level, text, *advice, remedies.smaller_images(config))


def _mapped_negatives(image: dict, values: dict, config: Config) -> dict | None:
  share = values["coverage"]["negative_share"]
  if share is None or share <= MAX_NEGATIVE_SHARE:
    return None
  method = method_of(config)
  # Colour evidence moves the scores off the point that "argmax" reads.
  no_argmax = method.rule(config) == "argmax" or method.takes_colour_evidence(config)
  rule = "" if no_argmax else "Try localize.threshold_rule=argmax."
  gate = remedies.move_gate("raise", config) if method.gated else ""
  text = (
    f"Negative images are mapped: {percent(share)} of their pixels count as the class. The classifier "
    f"calls {image['false_alarms']} of these {image['negatives']} images positive."
  )
  more = "Add negatives like these to training."
  return finding("warning", text, more, remedies.move_rule("raise", config), rule, gate)
