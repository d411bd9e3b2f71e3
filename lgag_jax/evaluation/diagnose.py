"""Explains an evaluation in words: whether its maps can be trusted and, if not, what to try.

A finding is {"level": "error", "warning" or "note", "text", "remedy"}.
"""

import math

from lgag_jax.config import Config
from lgag_jax.evaluation import map_sizes, remedies
from lgag_jax.evaluation.findings import finding, percent
from lgag_jax.evaluation.map_sizes import WEAK_AUC
from lgag_jax.method.registry import method_of

MIN_IMAGES = 10  # With fewer, a single image changes a rate by more than a tenth.
CHANCE_AUC = 0.6  # With 100 images of each kind, guessing stays below this 99 times in 100.
ONE_ANSWER_RATE = 0.95  # A classifier that gives both kinds the same answer at this rate has only one.
MAX_ERROR_RATE = 1 / 3  # Of the images of one kind.
MAX_CALIBRATION_ERROR = 0.15  # Above, a gate on the probabilities means little.
MIN_ORACLE_RATIO = 0.8  # Below, the threshold costs a fifth of the oracle's IoU.


def findings(
  image: dict, values: dict, config: Config, index: dict | None = None, training: dict | None = None
) -> list[dict]:
  """Returns the findings of one class. Those of the classifier, which the maps rest on, come first.

  `image` is what `metrics.image_rates` returns, `values` the evaluation's result for the method's main
  map, `index` what `colour_index.evaluate` returns for the class. `training` holds "image" and
  "coverage" of training images: their maps are looked at where those of validation show no problem.
  Checks that need masks are skipped if the masks do not show the class.
  """
  results = [
    _few_images(image, config), _order(image, config), _one_answer(image, config),
    _one_sided(image, config), _calibration(image, config),
    *map_sizes.findings(image, values, config, training), _threshold(values, config),
    _whole_images(values), _colour_index(values, index),
  ]
  return [found for found in results if found]


def _few_images(image: dict, config: Config) -> dict | None:
  counts = {kind: image[f"{kind}s"] for kind in ("positive", "negative")}
  few = [f"{count} {kind}" for kind, count in counts.items() if count < MIN_IMAGES]
  text = f"Too few validation images: {' and '.join(few)}; at least {MIN_IMAGES} of each are needed."
  fraction = f"data.validation_fraction ({config.data.validation_fraction:g})"
  remedy = f"Label more images, or raise {fraction} if the data has no validation split of its own."
  return finding("warning", text, remedy) if few else None


def _order(image: dict, config: Config) -> dict | None:
  auc = image["auc"]
  if auc is None or auc >= WEAK_AUC:
    return None
  advice = (
    "Run --mode=doctor to find wrong labels and values out of range.",
    "Add images of both kinds, with negatives from the same terrain.",
    remedies.train_longer(config), remedies.smaller_images(config),
  )
  if auc >= CHANCE_AUC:
    text = f"The image classifier is weak (AUC {auc:.2f}). Maps will have misses and false alarms."
    return finding("warning", text, *advice)
  swapped = auc < 1 - CHANCE_AUC
  verdict = f"{'worse' if swapped else 'no better'} than chance (AUC {auc:.2f}; guessing has 0.5)"
  text = f"The image classifier is {verdict}. Its maps mean nothing."
  return finding("error", text, "Check whether the labels are swapped." * swapped, *advice)


def _one_answer(image: dict, config: Config) -> dict | None:
  if not (answer := _only_answer(image)):
    return None
  remedy = remedies.move_gate("raise" if answer == "positive" else "lower", config)
  if image["auc"] < WEAK_AUC:
    remedy = "Improve the AUC first: no gate helps a classifier that cannot tell images apart."
  if not config.data.balance:
    remedy += " Set data.balance=True: training then draws both kinds equally often."
  text = (
    f"The image classifier calls almost every image {answer}: {percent(1 - image['missed_rate'])} of "
    f"the positive images and {percent(image['false_alarm_rate'])} of the negative images are called "
    "positive."
  )
  return finding("error", text, remedy)


def _one_sided(image: dict, config: Config) -> dict | None:
  missed, alarms = image["missed_rate"], image["false_alarm_rate"]
  if _only_answer(image) or max(missed, alarms) <= MAX_ERROR_RATE:
    return None
  rates = (
    f"it misses {image['missed']} of {image['positives']} positive images and gives false alarms on "
    f"{image['false_alarms']} of {image['negatives']} negative images."
  )
  if min(missed, alarms) > MAX_ERROR_RATE:
    text = f"The image classifier errs on both sides: {rates}"
    remedy = "Improve the AUC first: the gate only trades one kind of error for the other."
    return finding(_level(config), text, remedy)
  direction, kind = ("lower", "missed positives") if missed > alarms else ("raise", "false alarms")
  text = f"The image classifier is one-sided: {rates}"
  more = f"Add images like the {kind} to training."
  return finding(_level(config), text, remedies.move_gate(direction, config), more)


def _calibration(image: dict, config: Config) -> dict | None:
  rows, error = image["reliability"], image["expected_calibration_error"]
  total = max(sum(row["images"] for row in rows), 1)
  spread = [math.sqrt(r["probability"] * (1 - r["probability"]) * r["images"]) for r in rows]
  # The mean error of so few images per bin if every probability is right.
  by_chance = math.sqrt(2 / math.pi) * sum(spread) / total
  if error <= max(MAX_CALIBRATION_ERROR, 2 * by_chance):
    return None
  mean, true = (sum(r[k] * r["images"] for r in rows) / total for k in ("probability", "positive"))
  remedy = "Use the order of the probabilities, not their values. Test other values of localize.gate."
  if config.data.balance and mean > true:
    remedy += " Training draws both kinds equally often. If positives are rare, try data.balance=False."
  text = (
    f"Image probabilities are badly calibrated: they are off by {error:.2f} on average. Their mean is "
    f"{percent(mean)}, but {percent(true)} of the images are positive."
  )
  return finding(_level(config), text, remedy)


def _threshold(values: dict, config: Config) -> dict | None:
  chosen, best = values["label_free"], values["oracle"]
  if not chosen["landslide_pixels"] or chosen["iou"] >= MIN_ORACLE_RATIO * best["iou"]:
    return None
  rule, iou = max(((rule, rates["iou"]) for rule, rates in values["rules"].items()), key=lambda x: x[1])
  better = iou > chosen["iou"]
  other = f'The rule "{rule}" reaches {iou:.3f} here.' if better else "No other rule is better here."
  text = (
    f"The threshold costs much: IoU is {chosen['iou']:.3f} at {chosen['threshold']:.3f}, and "
    f"{best['iou']:.3f} at the oracle's threshold {best['threshold']:.3f}. {other}"
  )
  return finding(
    "warning", text, "Do not choose a rule by these masks: the metrics would then be too optimistic. "
    "Compare values of localize.threshold_rule on other images, by eye or on masks reserved for it.",
  )


def _whole_images(values: dict) -> dict | None:
  iou, whole = values["label_free"]["iou"], values["coverage"]["whole_image_iou"]
  if whole is None or iou >= whole:
    return None
  text = (
    f"Maps are worse than no maps: IoU is {iou:.3f}, and {whole:.3f} if every positive image is mapped "
    "as a whole."
  )
  remedy = "Fix the other findings first. Until then use the image scores, not the maps."
  return finding("error", text, remedy, "If there are none, compare masks and maps in the report.")


def _colour_index(values: dict, index: dict | None) -> dict | None:
  if index is None or not values["label_free"]["landslide_pixels"]:
    return None
  iou, other = values["label_free"]["iou"], index["label_free"]["iou"]
  if iou > other:
    return None
  text = (
    f"The maps do not beat a colour index: IoU is {iou:.3f}, and {other:.3f} for {index['rule']}, a "
    "rule chosen by the labels of the training images."
  )
  return finding("warning", text, "Map with that rule, or improve the training first.")


def _only_answer(image: dict) -> str:
  """Returns "positive" or "negative" if almost all images are called that, otherwise ""."""
  if image["auc"] is None:
    return ""
  called = 1 - image["missed_rate"], image["false_alarm_rate"]
  if min(called) >= ONE_ANSWER_RATE:
    return "positive"
  return "negative" if max(called) <= 1 - ONE_ANSWER_RATE else ""


def _level(config: Config) -> str:
  return "warning" if method_of(config).gated else "note"
