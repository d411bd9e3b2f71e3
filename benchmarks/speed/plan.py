"""What benchmarks.speed measures: the cases of each section, whole and quick.

A case has labels, the first cells of its row, and settings, what benchmarks.speed.cases reads.
"""

import pathlib

_TRAINED = {"model.first_trainable_stage": 1, "data.augment": "image"}
# Small enough for a test: what is measured then means nothing.
_QUICK = {
  "data.image_size": 64, "train.batch_size": 2, "model.head_width": 16, "bank.slots": 40,
  "localize.batch_size": 8,
}


def cases(section: str, *, quick: bool, output: pathlib.Path) -> list[dict]:
  """Returns a section's cases."""
  if section == "start":
    return _start(quick, output)
  plans = {
    "steps": _steps, "added": _added, "input": _input, "scaling": _scaling, "growth": _growth,
    "torch": _torch,
  }
  return plans[section](quick)


def _case(labels: dict, **settings) -> dict:
  return {"labels": labels, "settings": settings}


def _repeats(quick: bool) -> dict:
  return {"repeats": 2} if quick else {"repeats": 5, "at_least_s": 3.0}


def _step(
  quick: bool, method: str, *, trunk: str = "", trained: bool = False, taps: bool = False,
  batch: int = 8, precision: str = "float32",
) -> dict:
  """A row of `steps`; without a trunk's name it is the published setting."""
  file = "image_folder" if trunk else "lgagnet_resnet50"
  changes = {"train.batch_size": batch, "model.precision": precision}
  if trunk:
    changes |= {"model.trunk": trunk, **(_TRAINED if trained else {})}
  if quick:
    changes |= _QUICK
  learns = "trained" if trained or not trunk else "frozen, from its kept outputs" if taps else "frozen"
  labels = {
    "trunk": trunk or "resnet50", "it is": learns, "method": method,
    "batch": changes["train.batch_size"], "precision": precision,
  }
  return _case(
    labels, kind="step", file=file, method=method, changes=changes, taps=taps, **_repeats(quick)
  )


def _steps(quick: bool) -> list[dict]:
  lite, resnet = "efficientnet_lite0", "resnet50"
  if quick:
    return [_step(True, "lgag", trunk=lite, taps=True)]
  ladder = ("class_activation", "sol", "lgag")
  published = ("lgagnet_class_activation", "lgagnet_sol", "lgagnet")
  return [
    *(_step(False, method, trunk=lite, taps=True, batch=32) for method in ladder),
    _step(False, "lgag", trunk=lite, taps=True, batch=32, precision="bfloat16"),
    _step(False, "lgag", trunk=lite, batch=32),
    *(_step(False, method, trunk=lite, trained=True) for method in ladder),
    _step(False, "lgag", trunk=lite, trained=True, precision="bfloat16"),
    _step(False, "lgag", trunk=resnet, trained=True),
    *(_step(False, method) for method in published),
    _step(False, "lgagnet", precision="bfloat16"),
  ]


def _added(quick: bool) -> list[dict]:
  methods = ["lgagnet_class_activation", "lgagnet"]
  # The shares are the same at 32, the published batch, where a step takes many seconds on a CPU.
  batch, changes = 8, {"train.batch_size": 8}
  if quick:
    # The published form on the small trunk, frozen: a ResNet-50 takes long to compile.
    changes = {**_QUICK, "model.trunk": "efficientnet_lite0", "model.first_trainable_stage": 5}
    batch = changes["train.batch_size"]
  return [
    _case(
      {"setting": "published" if not quick else "published, small", "batch": batch}, kind="added",
      file="lgagnet_resnet50", methods=methods, changes=changes, repeats=2 if quick else 7,
    )
  ]


def _input(quick: bool) -> list[dict]:
  size = 64 if quick else 256
  common = {
    "kind": "input", "size": size, "images": 8 if quick else 320, "passes": 2 if quick else 3,
    "steps": 2 if quick else 8, "repeats": 2 if quick else 5,
  }
  small = _QUICK if quick else {}
  kept = _case(
    {"setting": "image_folder, trunk outputs kept", "batch": 2 if quick else 32}, **common,
    file="image_folder", method="lgag", changes=small, taps=True,
  )
  if quick:
    return [kept]
  return [
    kept,
    _case(
      {"setting": "image_folder, trunk outputs not kept", "batch": 32}, **common,
      file="image_folder", method="lgag", changes={"data.feature_cache_gib": 0.0},
    ),
    _case(
      {"setting": "published (images turned)", "batch": 8}, **common,
      file="lgagnet_resnet50", method="lgagnet", changes={"train.batch_size": 8},
    ),
  ]


_STRONG_BATCH, _WEAK_BATCH = 16, 2  # Over all devices; a device.


def _scaling(quick: bool) -> list[dict]:
  counts = (1, 2, 4, 8)
  strong = [(count, _STRONG_BATCH) for count in counts]
  weak = [(count, _WEAK_BATCH * count) for count in counts]
  pairs = [(1, 2), (2, 2)] if quick else dict.fromkeys(strong + weak)
  # Only the last stage is trained: gradients to sum over devices, and less to compile.
  common = {"data.image_size": 128, **_TRAINED, "model.first_trainable_stage": 4}
  common = _QUICK if quick else common
  return [
    _case(
      {"devices": count, "batch": batch}, kind="step", file="image_folder", method="lgag",
      changes={**common, "train.batch_size": batch}, devices=count, taps=quick, warm=False,
      **_repeats(quick),
    )
    for count, batch in pairs
  ]


def _growth(quick: bool) -> list[dict]:
  base = {"data.image_size": 256, "bank.slots": 500, "train.batch_size": 8}
  classes = lambda count: [f"kind{i}" for i in range(count)]
  changes = [
    ("nothing: 256 pixels, 500 slots, 1 class", {}),
    *((f"image side {side}", {"data.image_size": side}) for side in (128, 512)),
    *((f"bank slots {slots:,}", {"bank.slots": slots}) for slots in (5000, 50000)),
    *((f"classes {count}", {"data.classes": classes(count)}) for count in (3, 7)),
  ]
  if quick:
    base, changes = _QUICK, [("bank slots 80", {"bank.slots": 80})]
  return [
    _case(
      {"changed": name}, kind="step", file="image_folder", method="lgag",
      changes={**base, **change}, taps=True, warm=False, **_repeats(quick),
    )
    for name, change in changes
  ]


def _torch(quick: bool) -> list[dict]:
  common = {"batch": 2, "repeats": 2} if quick else {"batch": 8, "repeats": 3}
  sides = {"resnet50": 256, "efficientnet_lite0": 256, "dinov2_vits14": 224}
  if quick:
    sides = {"efficientnet_lite0": 64, "dinov2_vits14": 56}
  return [
    _case(
      {"trunk": trunk, "batch": common["batch"], "size": side}, kind="torch", trunk=trunk, size=side,
      pairs=1 if quick else 5, **common,
    )
    for trunk, side in sides.items()
  ]


def _start(quick: bool, output: pathlib.Path) -> list[dict]:
  changes = {**_QUICK, "data.builder": "data/synthetic_landslides:tiny"} if quick else {}
  return [
    _case(
      {"setting": "synthetic_landslides" + (", tiny" if quick else "")}, kind="start",
      changes=changes, data=str(output / "tfds"), limit_s=300,
      kinds=["cold", "features_kept"] if quick else ["cold", "programs_kept", "features_kept"],
    )
  ]
