"""What an evaluation's numbers mean in words: can its maps be trusted, and if not, what to try.

A finding is {"level": "error", "warning" or "note", "text", "remedy"}.
"""

import math

from lgag_jax.config import Config
from lgag_jax.evaluation.metrics import BLACK, WHITE
from lgag_jax.method.registry import method_of

FEW = 10  # Of fewer images a single one moves a rate by more than a tenth.
CHANCE_AUC = 0.6  # With a hundred images of a kind, guessing stays below this 99 times in 100.
WEAK_AUC = 0.8  # Below, one pair in five of a positive and a negative image is in the wrong order.
ALL = 0.95  # A classifier that gives at least this share of both kinds one answer has but one.
MOST_ERRORS = 1 / 3  # Of one kind of image: one in three is wrong.
CALIBRATION_ERROR = 0.15  # Probabilities off by this much on average say little about a gate.
HALF = 0.5  # Of the images: as many maps say nothing as say something.
LIT = 0.02  # Of the pixels of negative images.
ORACLE_SHARE = 0.8  # Of the oracle's IoU: with less, the threshold costs a fifth of the map.
_LONGER = "Train longer (train.epochs={0.epochs}, train.min_steps={0.min_steps})."


def findings(image: dict, values: dict, config: Config) -> list[dict]:
  """Returns what is to be said of one class, first of the classifier, by which maps are drawn.

  `image` is what `metrics.image_rates` returns; `values` is the evaluation's result for the map that
  the method is about. What needs masks is left out where they show nothing of the class.
  """
  found = [
    _few_images(image, config), _order(image, config), _one_answer(image, config),
    _one_sided(image, config), _calibration(image, config), _black(image, values, config),
    _white(values, config), _lit(image, values, config), _threshold(values, config),
    _whole_images(values),
  ]
  return [finding for finding in found if finding]


def _few_images(image: dict, config: Config) -> dict | None:
  few = [f"{image[f'{kind}s']} {kind}" for kind in ("positive", "negative") if image[f"{kind}s"] < FEW]
  text = f"Too few validation images to judge by: {' and '.join(few)}, where {FEW} are the least."
  share = f"or raise data.validation_fraction ({config.data.validation_fraction:g})"
  remedy = f"Label more, {share} if the data names no validation split of its own."
  return _finding("warning", text, remedy) if few else None


def _order(image: dict, config: Config) -> dict | None:
  auc = image["auc"]
  if auc is None or auc >= WEAK_AUC:
    return None
  remedies = (
    "Run --mode=doctor: wrong labels, values out of range? Add images of both kinds, negatives from",
    "the same terrain.", _LONGER.format(config.train), _smaller(config),
  )
  if auc >= CHANCE_AUC:
    text = f"The image classifier is weak (AUC {auc:.2f}): expect maps that miss and mark wrongly."
    return _finding("warning", text, *remedies)
  swapped = auc < 1 - CHANCE_AUC
  verdict = f"{'worse' if swapped else 'no better'} than chance (AUC {auc:.2f}; guessing has 0.5)"
  text = f"The image classifier is {verdict}: maps of this network mean nothing."
  return _finding("error", text, "Are the labels swapped?" if swapped else "", *remedies)


def _one_answer(image: dict, config: Config) -> dict | None:
  if not (answer := _only_answer(image)):
    return None
  remedy = _move_gate("raise" if answer == "positive" else "lower", config)
  if image["auc"] < WEAK_AUC:
    remedy = "Its AUC comes first: no gate mends a classifier that cannot tell images apart."
  if not config.data.balance:
    remedy += " Set data.balance=True: training then draws both kinds equally often."
  text = (
    f"The image classifier calls almost every image {answer}: {_percent(1 - image['missed_rate'])} of "
    f"the positive ones are called positive, and {_percent(image['false_alarm_rate'])} of the negative."
  )
  return _finding("error", text, remedy)


def _one_sided(image: dict, config: Config) -> dict | None:
  missed, alarms = image["missed_rate"], image["false_alarm_rate"]
  if _only_answer(image) or max(missed, alarms) <= MOST_ERRORS:
    return None
  rates = (
    f"{image['missed']} of {image['positives']} positive images are missed, "
    f"{image['false_alarms']} of {image['negatives']} negative ones are false alarms."
  )
  if min(missed, alarms) > MOST_ERRORS:
    text = f"The image classifier errs on both sides: {rates}"
    return _finding(_level(config), text, "Its AUC comes first: a gate trades one kind for the other.")
  direction, kind = ("lower", "missed positives") if missed > alarms else ("raise", "false alarms")
  more = f"Add images like the {kind} to training."
  text = f"The image classifier is one-sided: {rates}"
  return _finding(_level(config), text, _move_gate(direction, config), more)


def _calibration(image: dict, config: Config) -> dict | None:
  rows, error = image["reliability"], image["expected_calibration_error"]
  total = max(sum(row["images"] for row in rows), 1)
  spread = [math.sqrt(r["probability"] * (1 - r["probability"]) * r["images"]) for r in rows]
  # What bins of this few images show on average even if every probability is right.
  by_chance = math.sqrt(2 / math.pi) * sum(spread) / total
  if error <= max(CALIBRATION_ERROR, 2 * by_chance):
    return None
  mean, true = (sum(r[k] * r["images"] for r in rows) / total for k in ("probability", "positive"))
  remedy = "Trust the probabilities' order, not their values: 0.5 need not be the best localize.gate."
  if config.data.balance and mean > true:
    remedy += " Training draws both kinds equally often: if positives are rare, try data.balance=False."
  text = (
    f"Image probabilities are badly calibrated, off by {error:.2f} on average: their mean is "
    f"{_percent(mean)}, and {_percent(true)} of the images are positive."
  )
  return _finding(_level(config), text, remedy)


def _black(image: dict, values: dict, config: Config) -> dict | None:
  black, count = values["coverage"]["black"], values["coverage"]["positive_images"]
  if not count or black < HALF * count:
    return None
  denied = values["coverage"]["black_denied"] if method_of(config).gated else 0
  threshold = values["label_free"]["threshold"]
  remedies = [] if (image["auc"] or 0.0) >= WEAK_AUC else ["Look at the AUC first."]
  if denied >= HALF * black:
    remedies.append(_move_gate("lower", config))
  else:
    remedies += [_move_rule("lower", config), _other_rules(config)]
  if method_of(config).gated:
    negatives = "Add negatives like the landslides' surroundings, so that these score low, others high."
    off = ", with loss.background_pixel_weight=0" if config.loss.background_pixel_weight else ""
    fuller = f"Where landslides fill much of positives, raise model.top_fraction{off}."
    fuller = fuller if config.model.pooling == "top" else ""
    remedies += [negatives, fuller, _LONGER.format(config.train)]
  text = (
    f"Maps are black: on {black} of {count} images labelled positive under {_percent(BLACK)} of the "
    f"pixels reach the threshold, {threshold:.3f}"
    + (f"; on {denied} of them because the image classifier finds nothing." if denied else ".")
  )
  return _finding("error", text, *remedies, _smaller(config))


def _white(values: dict, config: Config) -> dict | None:
  white, count = values["coverage"]["white"], values["coverage"]["found_images"]
  if not count or white < HALF * count:
    return None
  loss, remedies = config.loss, [_other_rules(config), _move_rule("raise", config)]
  if not method_of(config).gated:
    remedies.append("Look at the masks that it learned from.")
  else:
    remedies.insert(0, "Add negatives from the same terrain: they teach what is background.")
    share = f"loss.background_pixel_fraction ({loss.background_pixel_fraction:g})"
    verb = "Raise" if loss.background_pixel_weight else "Set loss.background_pixel_weight=0.5, with"
    remedies.append(f"{verb} {share}, but not above the share of background in any positive image.")
    average = "Set model.pooling=top: an average wants a positive image to score all over."
    remedies.append(average if config.model.pooling == "average" else "")
  text = (
    f"Maps are white: on {white} of {count} images found positive over {_percent(WHITE)} of the pixels "
    f"reach the threshold, {values['label_free']['threshold']:.3f}."
  )
  return _finding("error", text, *remedies, _smaller(config))


def _lit(image: dict, values: dict, config: Config) -> dict | None:
  share = values["coverage"]["negative_share"]
  if share is None or share <= LIT:
    return None
  other = "Try localize.threshold_rule=argmax." * (method_of(config).rule(config) != "argmax")
  gate = _move_gate("raise", config) if method_of(config).gated else ""
  text = (
    f"Negatives light up: {_percent(share)} of the pixels of images labelled negative are mapped; "
    f"{image['false_alarms']} of these {image['negatives']} images are called positive."
  )
  more = "Add negatives like these to training."
  return _finding("warning", text, more, _move_rule("raise", config), other, gate)


def _threshold(values: dict, config: Config) -> dict | None:
  ours, best = values["label_free"], values["oracle"]
  if not ours["landslide_pixels"] or ours["iou"] >= ORACLE_SHARE * best["iou"]:
    return None
  rule, iou = max(((rule, rates["iou"]) for rule, rates in values["rules"].items()), key=lambda x: x[1])
  better = f'the rule "{rule}" reaches {iou:.3f}' if iou > ours["iou"] else "no other rule does better"
  text = (
    f"The threshold costs much: IoU {ours['iou']:.3f} at {ours['threshold']:.3f}, where the oracle's, "
    f"{best['threshold']:.3f}, has {best['iou']:.3f}. Here {better}."
  )
  return _finding(
    "warning", text, "Do not pick a rule by these masks: figures on them would then flatter. Compare "
    "localize.threshold_rule on other images, by eye or on masks set apart for it.",
  )


def _whole_images(values: dict) -> dict | None:
  iou, whole = values["label_free"]["iou"], values["coverage"]["whole_image_iou"]
  if whole is None or iou >= whole:
    return None
  crude = "marking the whole of every image labelled positive"
  return _finding(
    "error", f"Maps are worse than none: IoU {iou:.3f}, where {crude} has {whole:.3f}.",
    "Use the images' yes/no and not the maps until what else is found here is mended.",
    "If nothing else is, compare masks and maps in the report's examples.",
  )


def _only_answer(image: dict) -> str:
  """Returns "positive" or "negative" where nearly all images are called that, "" otherwise."""
  if image["auc"] is None:
    return ""
  called = 1 - image["missed_rate"], image["false_alarm_rate"]
  return "positive" if min(called) >= ALL else "negative" if max(called) <= 1 - ALL else ""


def _finding(level: str, text: str, *remedies: str) -> dict:
  return {"level": level, "text": text, "remedy": " ".join(filter(None, remedies))}


def _level(config: Config) -> str:
  return "warning" if method_of(config).gated else "note"  # Its gate blackens no map.


def _move_rule(direction: str, config: Config) -> str:
  """Returns how to move the threshold of the rule "agreement"; "" for rules without a setting."""
  localize, opposite = config.localize, {"lower": "Raise", "raise": "Lower"}[direction]
  if method_of(config).rule(config) != "agreement":
    return ""
  # A larger share maps more.
  return f"{opposite} localize.agreement_fraction ({localize.agreement_fraction:g})."


def _move_gate(direction: str, config: Config) -> str:
  kept = "" if method_of(config).gated else "; this changes no map"
  return f"{direction.capitalize()} localize.gate ({config.localize.gate:g}){kept}."


def _other_rules(config: Config) -> str:
  rules = [rule for rule in ("otsu", "agreement") if rule != method_of(config).rule(config)]
  return f"Try localize.threshold_rule={' or '.join(rules)}, read from positive images too."


def _smaller(config: Config) -> str:
  """Tiles need masks to be labelled; other images are cut by who labels them."""
  if config.data.source == "patches":
    return f"Cut smaller tiles (data.tile_size={config.data.tile_size})."
  return f"Cut images smaller, label the parts, or raise data.image_size ({config.data.image_size})."


def _percent(share: float) -> str:
  return f"{100 * share:.3g} %"
