"""The doctor names the files of every problem; for a clean data set it writes notes only."""

import io
import json
import os
import pathlib
import re
import tracemalloc

import numpy as np
import pytest
import rasterio
from PIL import Image
from scipy import ndimage

from lgag_jax.config import config_dict, from_mapping
from lgag_jax.doctor import duplicates, estimate, examine, findings, survey
from tests.commands import call

SIDE = 48
YES, NO = "landslide", "non-landslide"
COUNT = 30  # Images per class: enough after the split too.


def scene(seed, side=SIDE):
  """Returns a random texture u8[side, side, 3], with the falling spectrum of natural scenes."""
  noise = np.random.default_rng(seed).normal(size=(side, side, 3))
  smooth = sum(s * ndimage.gaussian_filter(noise, (s, s, 0), mode="wrap") for s in (0.5, 1, 2, 4, 8))
  return np.clip(128 + 45 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def save(path, array, **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(array).save(path, **options)
  return path


def folder(root, count=COUNT):
  """Writes two folders of different textures; the last fifth of each by name is held out."""
  for k, kind in enumerate((YES, NO)):
    for i in range(count):
      save(root / kind / f"{kind[0]}{i:02d}.png", scene(1000 * k + i))
  return root


def patches(root, count=2 * COUNT):
  """Writes images with masks, every other one with a landslide."""
  for i in range(count):
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[10:20, 10:20] = 255 * (i % 2)
    save(root / "images" / f"p{i:02d}.png", scene(i))
    save(root / "masks" / f"p{i:02d}.png", mask)
  return root


def visit(root, tmp_path, settings=(), **fields):
  """Runs the doctor; returns the exit code and report.json."""
  config = config_dict()
  config.update_from_flattened_dict(dict(settings))
  config.data.directory, config.data.image_size = str(root), SIDE
  config.data.update(fields)
  code = examine.examine(from_mapping(config), tmp_path / "work")
  return code, json.loads((tmp_path / "work" / "doctor" / "report.json").read_text())


def named(report, words):
  """Returns the only finding that contains `words`."""
  matching = [f for f in report["findings"] if words in f["what"]]
  assert len(matching) == 1, (words, [f["what"] for f in report["findings"]])
  return matching[0]


def worse(report):
  return [f["what"] for f in report["findings"] if f["severity"] != "note"]


@pytest.fixture(autouse=True, scope="module")
def one_plan():
  """Computes the network's shapes once per number of channels: it takes longer than the tests here."""
  with pytest.MonkeyPatch.context() as patch:
    known, make = {}, estimate.plan
    plan = lambda c: known.get(c.data.channels) or known.setdefault(c.data.channels, make(c))
    patch.setattr(estimate, "plan", plan)
    yield


def test_a_clean_folder_and_clean_patches_have_notes_only(tmp_path):
  for source, make in (("folder", folder), ("patches", patches)):
    code, report = visit(make(tmp_path / source), tmp_path, source=source)
    assert (code, worse(report)) == (0, [])
    assert report["images"] == 2 * COUNT
  estimate = report["estimate"]
  assert estimate["steps_per_epoch"] == 300 // 15  # Epochs repeat the few images.
  assert estimate["steps"] == 15 * estimate["steps_per_epoch"]
  assert estimate["cached"] and estimate["cache_bytes"] > 0 and estimate["read_rate"] > 0


@pytest.mark.parametrize("kind", ["page", "record", "both", "folder"])
def test_a_report_of_another_origin_is_named_and_kept(tmp_path, kind):
  root, folder = patches(tmp_path / "data"), tmp_path / "work" / "doctor"
  kept = tmp_path / "kept"
  kept.mkdir()
  files = [kept / name for name in ("report.html", "report.json") if kind in ("both", "folder")]
  files += {"page": [kept / "report.html"], "record": [kept / "report.json"]}.get(kind, [])
  for file in files:
    file.write_text('{"precious": 1}')
  folder.parent.mkdir()
  folder.symlink_to(kept) if kind == "folder" else kept.rename(folder)
  with pytest.raises(ValueError, match=r"doctor(/report\.\w+)? would be replaced.*Move it, or use"):
    visit(root, tmp_path)
  here = kept if kind == "folder" else folder
  assert {file.read_text() for file in here.iterdir()} == {'{"precious": 1}'}


def test_unreadable_files_are_named_and_the_others_read(tmp_path):
  root = folder(tmp_path / "data")
  data = (root / YES / "l03.png").read_bytes()
  (root / YES / "l03.png").write_bytes(data[: len(data) // 2])
  (root / NO / "n04.png").write_bytes(b"no image")
  save(root / NO / "n05.png", scene(5)[..., 0])
  code, report = visit(root, tmp_path)
  assert code == 1 and report["images"] == 2 * COUNT - 3
  damaged = named(report, "2 images cannot be used")
  assert [name.split(":")[0] for name in damaged["files"]] == [f"{NO}/n04.png", f"{YES}/l03.png"]
  assert named(report, "1 image with 1 channel, not 3")["files"] == [f"{NO}/n05.png"]
  code, report = visit(root, tmp_path, on_bad_image="skip")
  assert code == 2 and damaged["severity"] == "error"


def test_patches_that_stop_a_source_from_opening_are_named(tmp_path):
  root = patches(tmp_path / "data")
  (root / "masks" / "p01.png").unlink()
  (root / "masks" / "p02.png").write_bytes(b"no mask")
  save(root / "masks" / "p59.png", np.zeros((SIDE, SIDE + 1), np.uint8))
  code, report = visit(root, tmp_path, source="patches")
  files = named(report, "3 images cannot be used")["files"]
  assert code == 1 and report["images"] == 2 * COUNT - 3
  assert [name.split(":")[0] for name in files] == [f"images/p{i}.png" for i in ("01", "02", "59")]
  assert "has no mask named p01" in files[0] and "in the same size" in files[2]


def test_a_split_that_cannot_be_opened_leaves_the_other_to_be_read(tmp_path):
  folder(tmp_path / "data" / "train")
  code, report = visit(tmp_path / "data", tmp_path)
  assert code == 1 and report["images"] == 2 * COUNT
  assert "no validation/" in named(report, "The validation split cannot be opened")["what"]


def test_nothing_to_read_is_a_finding(tmp_path):
  code, report = visit(tmp_path / "none", tmp_path)
  assert code == 1 and report["images"] == 0
  named(report, "The train and the validation split cannot be opened")
  for name in (YES, NO):
    (tmp_path / "empty" / name).mkdir(parents=True)
    (tmp_path / "empty" / name / "a.png").write_bytes(b"")
  code, report = visit(tmp_path / "empty", tmp_path)
  assert code == 1 and named(report, "2 images cannot be used")


def test_sizes_and_types(tmp_path):
  root = folder(tmp_path / "data")
  save(root / YES / "l00.png", scene(1, 10))
  save(root / YES / "l01.png", np.tile(scene(2), (1, 2, 1)))
  wide = scene(3)[..., 0].astype(np.uint16)
  for i in (2, 3):
    save(root / YES / f"l{i:02d}.png", scene(50 + i)[..., 0])
  for path in root.glob("*/*.png"):
    if path.name not in ("l02.png", "l03.png"):
      save(path, np.asarray(Image.open(path))[..., 0])
  save(root / YES / "l02.png", wide * 257)
  code, report = visit(root, tmp_path, channels=1)
  assert code == 2
  assert named(report, "enlarged")["files"] == [f"{YES}/l00.png"]
  assert named(report, "3 sizes")["files"] == [f"{YES}/l00.png"]
  assert named(report, "distorts")["files"] == [f"{YES}/l01.png"]
  assert named(report, "Data types are mixed")["files"] == [f"{YES}/l02.png: uint16"]


def test_balance(tmp_path):
  root = folder(tmp_path / "data", 5)
  code, report = visit(root, tmp_path)
  assert code == 2 and named(report, "train split has only 4 positive")["count"] == 4
  for i in range(500):
    save(root / NO / f"m{i:03d}.png", scene(5000 + i, 16))
  for i in range(20):
    save(root / YES / f"m{i:03d}.png", scene(7000 + i, 16))
  code, report = visit(root, tmp_path, image_size=16)
  assert code == 2 and "4.7%" in named(report, "of the training images are positive")["what"]
  empty = patches(tmp_path / "empty")
  for path in (empty / "masks").iterdir():
    save(path, np.zeros((SIDE, SIDE), np.uint8))
  code, report = visit(empty, tmp_path, source="patches")
  assert code == 1 and named(report, "The train split has no positive")["severity"] == "error"
  assert named(report, "The validation split has no positive")["severity"] == "warning"


def test_constant_and_nearly_constant_images(tmp_path):
  root = folder(tmp_path / "data")
  flat = np.full((SIDE, SIDE, 3), 90, np.uint8)
  for i in (1, 2):
    save(root / NO / f"n0{i}.png", flat)
  flat[0, 0] += 1
  save(root / YES / "l07.png", flat)
  code, report = visit(root, tmp_path)
  assert code == 2 and len(worse(report)) == 2  # Constant images do not count as duplicates.
  assert named(report, "of one value")["files"] == [f"{NO}/n01.png", f"{NO}/n02.png"]
  assert named(report, "nearly constant")["files"] == [f"{YES}/l07.png"]


def reencoded(array, quality=80):
  buffer = io.BytesIO()
  Image.fromarray(array).save(buffer, "jpeg", quality=quality)
  return np.asarray(Image.open(buffer))


def test_duplicates_leaks_and_labels_that_disagree(tmp_path):
  root = folder(tmp_path / "data")
  read = lambda name: np.asarray(Image.open(root / name))
  save(root / YES / "l01.png", read(f"{YES}/l00.png"))  # A copy in the training split.
  save(root / NO / "n29.tif", read(f"{NO}/n02.png"))  # Held out, the last by name.
  save(root / NO / "n03.png", read(f"{YES}/l03.png"))  # Both yes and no.
  save(root / YES / "l29.png", reencoded(read(f"{YES}/l04.png")))
  save(root / NO / "n05.png", reencoded(read(f"{YES}/l05.png")))
  save(root / NO / "n07.png", reencoded(read(f"{NO}/n06.png")))
  code, report = visit(root, tmp_path)
  same, near = "pixel for pixel the same", "nearly the same image"
  expected = {
    f"1 validation image is also in the training split, {same}": (f"{NO}/n02.png", f"{NO}/n29.tif"),
    f"1 validation image is also in the training split, {near}": (f"{YES}/l04.png", f"{YES}/l29.png"),
    f"1 pair of images is {same}": (f"{NO}/n03.png", f"{YES}/l03.png"),
    f"1 pair of images is {near}": (f"{NO}/n05.png", f"{YES}/l05.png"),
    f"1 image repeats another of the same split and label, {same}":
      (f"{YES}/l00.png", f"{YES}/l01.png"),
    f"1 image repeats another of the same split and label, {near}":
      (f"{NO}/n06.png", f"{NO}/n07.png"),
  }
  assert code == 1 and len(worse(report)) == 5
  for words, names in expected.items():
    assert named(report, words)["files"] == [" and ".join(names)]
  assert (tmp_path / "work" / "doctor" / "report.html").read_text().count("data:image/png") == 12


def test_masks_that_contradict_labels(tmp_path):
  root = folder(tmp_path / "data")
  mask = np.zeros((SIDE, SIDE), np.uint8)
  save(root / "masks" / "l02.png", mask)
  mask[5:9, 5:9] = 1
  for i in (1, 3, 4):
    save(root / "masks" / f"l{i:02d}.png", mask)
  save(root / "masks" / "n05.png", mask)
  mask[20:22] = 7
  save(root / "masks" / "l06.png", mask)
  save(root / "masks" / "l07.png", np.minimum(scene(3)[..., 0], 250))
  save(root / "masks" / "l08.png", np.stack([mask] * 3, -1))
  (root / "masks" / "n06.png").write_bytes(b"no mask")
  code, report = visit(root, tmp_path)
  assert code == 2
  assert named(report, "without a pixel of the class")["files"] == [f"{YES}/l02.png"]
  assert named(report, "in the folder of negatives")["files"] == [f"{NO}/n05.png and masks/n05.png"]
  assert named(report, "with several values")["files"] == ["masks/l06.png: 0, 1, 7"]
  assert named(report, "more than 16")["files"][0].startswith("masks/l07.png")
  assert named(report, "several bands")["files"][0].startswith("masks/l08.png")
  assert named(report, "cannot be read")["files"][0].startswith("masks/n06.png")
  assert named(report, "positive images of the train split have no mask")["count"] == 17


def test_drawn_masks_need_not_show_a_whole_landslide(tmp_path):
  root = folder(tmp_path / "data")
  mask = np.full((SIDE, SIDE), 255, np.uint8)
  mask[:4] = 0
  save(root / "masks" / "l02.png", mask)
  words = "without a pixel of the class", "positive images of the train split have no mask"
  findings = lambda **settings: [
    f["what"] for f in visit(root, tmp_path, settings, mask_ignore=255)[1]["findings"]
    if any(word in f["what"] for word in words)
  ]
  assert len(findings()) == 2
  assert not findings(**{"loss.drawn_pixel_weight": 1.0})


@pytest.mark.parametrize(("rows", "fraction", "words"), [
  (3, 0.3, "6.25 % of the median positive training image, but localize.agreement_fraction=0.3"),
  (3, 0.0, None), (18, 0.3, None), (18, 0.0, None),
])
def test_the_size_of_landslides_is_compared_with_the_settings(tmp_path, rows, fraction, words):
  root = folder(tmp_path / "data", count=5)
  for i in range(5):
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:rows] = 1
    save(root / "masks" / f"l{i:02d}.png", mask)
  _, report = visit(root, tmp_path, {"localize.agreement_fraction": fraction})
  if words:
    finding = named(report, words)
    assert finding["severity"] == "warning"
    assert "localize.agreement_fraction=0, which lets the labels choose" in finding["remedy"]
  else:
    assert not [f for f in report["findings"] if "median positive training image" in f["what"]]


class Shards:
  """A source without files, whose second example breaks its decoder."""

  def __init__(self, masks):
    self.ids = [f"{i:03d}" for i in range(len(masks))]
    self.labels = np.float32([[i % 2] for i in range(len(masks))])
    self._masks = masks

  def read(self, index):
    if index == 1:
      raise RuntimeError("record is cut off")
    return scene(index + 100 * len(self.ids)), self._masks[index]

  def files(self, index):
    return None, None


def test_a_source_without_files(tmp_path, monkeypatch):
  masks = np.zeros((2 * COUNT, SIDE, SIDE), np.uint8)
  masks[1::2, 3:6] = 1
  masks[2, 3:6] = 1  # On a negative.
  masks[3] = 0  # On a positive.
  masks[4, 0, 0] = 9
  sources = {"train": Shards(masks), "validation": Shards(masks[: COUNT])}
  sources["validation"].read = lambda i: (scene(9000 + i), np.full((SIDE, SIDE), 255, np.uint8))
  make = lambda config, split, skipped: sources[split]
  monkeypatch.setattr("lgag_jax.inputs.sources.make_source", make)
  code, report = visit("", tmp_path, source="tfds", builder="shards")
  assert code == 1 and report["images"] == 3 * COUNT - 1
  fault = named(report, "1 image cannot be used")
  assert fault["files"] == ["train: 001: RuntimeError: record is cut off"]
  assert named(report, "labelled negative has a mask")["files"] == ["train: 002"]
  assert named(report, "without a pixel of the class")["files"] == ["train: 003"]
  assert named(report, "mask values that are not a class")["files"] == ["train: 004: 9"]


def test_twelve_bits_in_sixteen(tmp_path):
  root = tmp_path / "data"
  for k, kind in enumerate((YES, NO)):
    for i in range(COUNT):
      save(root / kind / f"{i:02d}.png", scene(99 * k + i)[..., 0].astype(np.uint16) * 16)
  code, report = visit(root, tmp_path, channels=1)
  assert code == 2 and "max_value=4095" in named(report, "look black")["remedy"]
  assert visit(root, tmp_path, channels=1, max_value=4095.0)[0] == 0
  code, report = visit(root, tmp_path, channels=1, max_value=255.0)
  assert code == 1 and "training refuses them" in worse(report)[0]
  assert "beyond full scale" in worse(report)[1]
  assert visit(root, tmp_path, channels=1, normalise="train")[0] == 0


def test_bytes_in_wide_integers(tmp_path):
  root = tmp_path / "data"
  for k, kind in enumerate((YES, NO)):
    (root / kind).mkdir(parents=True)
    for i in range(COUNT):
      save_wide(root / kind / f"{i:02d}.tif", scene(99 * k + i)[..., 0])
  code, report = visit(root, tmp_path, channels=1)
  assert code == 1 and "more than 16 bits" in worse(report)[0]
  assert "max_value=255" in named(report, "more than 16 bits")["remedy"]
  assert visit(root, tmp_path, channels=1, max_value=255.0)[0] == 0


@pytest.mark.parametrize(("dtype", "low", "high"), [
  ("float32", 0.0, 1.99999), ("float32", 0.0, 70123.0), ("uint16", 0, 900), ("int32", 0, 3000),
  ("uint8", 0, 50), ("float32", 0.0, 0.1),
])
def test_a_proposed_full_scale_works(tmp_path, dtype, low, high):
  for k, kind in enumerate((YES, NO)):
    (tmp_path / "data" / kind).mkdir(parents=True)
    for i in range(COUNT):
      array = low + scene(99 * k + i)[..., 0] / 255.0 * (high - low)
      save_wide(tmp_path / "data" / kind / f"{i:02d}.tif", array, dtype)
  code, report = visit(tmp_path / "data", tmp_path, channels=1)
  remedies = " ".join(f["remedy"] for f in report["findings"])
  value = float(re.search(r"data\.max_value=([\d.e+-]*\d)", remedies)[1])
  assert code > 0 and high * 0.9 <= value <= 4 * high
  assert visit(tmp_path / "data", tmp_path, channels=1, max_value=value)[0] == 0


def test_no_full_scale_is_proposed_where_none_fits(tmp_path):
  for k, kind in enumerate((YES, NO)):
    (tmp_path / "data" / kind).mkdir(parents=True)
    for i in range(COUNT):
      array = scene(99 * k + i)[..., 0] / 255.0
      save_wide(tmp_path / "data" / kind / f"{i:02d}.tif", array * (9000 if i == 3 else 1), "float32")
  _, report = visit(tmp_path / "data", tmp_path, channels=1)
  remedy = named(report, "beyond full scale")["remedy"]
  assert "max_value=" not in remedy and "data.normalise='train'" in remedy


def save_wide(path, array, dtype="int32"):
  with rasterio.open(
    path, "w", driver="GTiff", height=array.shape[0], width=array.shape[1], count=1, dtype=dtype
  ) as file:
    file.write(array.astype(dtype), 1)


def test_a_file_name_that_is_not_utf8_is_shown(tmp_path, capsys):
  root = folder(tmp_path / "set")
  (root / YES / "l00.png").rename(root / YES / os.fsdecode(b"l\xff.png"))
  save(root / YES / "l01.png", np.zeros((SIDE, SIDE, 3), np.uint8))
  (root / YES / os.fsdecode(b"l\xff.png")).write_bytes(b"nothing")
  code, report = visit(root, tmp_path)
  assert code == 1
  assert r"l\udcff.png" in str(report)
  page = (tmp_path / "work" / "doctor" / "report.html").read_text()
  assert r"l\udcff.png" in page
  assert r"l\udcff.png" in capsys.readouterr().out


def test_a_huge_mask_is_read_in_pieces(tmp_path):
  path = tmp_path / "mask.tif"
  size = {"height": 1024, "width": 600_000, "count": 1, "dtype": "uint8"}
  with rasterio.open(path, "w", driver="GTiff", tiled=True, compress="deflate", sparse_ok=True, **size):
    pass
  tracemalloc.start()
  assert survey._mask_values(path).values == (0.0,)
  assert tracemalloc.get_traced_memory()[1] < 1 << 26
  tracemalloc.stop()


def test_names_are_escaped(tmp_path):
  root = folder(tmp_path / "<b>data")
  name = "<script>alert('x')&.png"
  save(root / YES / name, np.asarray(Image.open(root / YES / "l00.png")))
  (root / NO / "<i>.png").write_bytes(b"no image")
  visit(root, tmp_path)
  text = (tmp_path / "work" / "doctor" / "report.html").read_text()
  assert "&lt;script&gt;alert(&#39;x&#39;)&amp;.png" in text
  assert not any(tag in text for tag in ("<script", "<i>", "<b>data"))


@pytest.mark.parametrize("side", [48, 128])
def test_a_view_saved_again_is_recognised(side):
  base = [scene(i, side) for i in range(60)]
  changes = {
    "jpeg": reencoded,
    "brighter": lambda a: np.clip(a * 1.05, 0, 255).astype(np.uint8),
    "darker": lambda a: (a * 0.95).astype(np.uint8),
    "smaller": lambda a: np.asarray(Image.fromarray(a).resize((side * 3 // 4,) * 2)),
    "sixteen bits": lambda a: a.astype(np.uint16) * 257,
  }
  for name, change in changes.items():
    views = [*base, *(change(a) for a in base)]
    pairs = duplicates.near_pairs(np.stack([duplicates.signature(a) for a in views]))
    actual = {tuple(pair) for pair in pairs.tolist()}
    expected = {(i, i + len(base)) for i in range(len(base))}
    assert actual <= expected, name
    assert len(actual) >= 0.98 * len(expected), name


def test_other_views_are_not_taken_for_the_same():
  """No false alarm among some two million pairs of textures, smooth ones and flips included."""
  views = [scene(i, 32) for i in range(1000)]
  blurred = [ndimage.gaussian_filter(scene(i, 32), (3, 3, 0)) for i in range(2000, 2500)]
  flipped = [a[:, ::-1] for a in views[:500]]
  signatures = np.stack([duplicates.signature(a) for a in (*views, *blurred, *flipped)])
  assert len(duplicates.near_pairs(signatures)) == 0


def test_pairs_of_a_large_set_are_those_that_comparing_all_finds():
  random = np.random.default_rng(0)
  signatures = random.normal(size=(20000, duplicates.LENGTH))
  signatures[1::100] = signatures[::100] + 0.02 * random.normal(size=(200, duplicates.LENGTH))
  signatures[2] = signatures[0]
  signatures /= np.linalg.norm(signatures, axis=1, keepdims=True)
  pairs = {tuple(p) for p in duplicates.near_pairs(signatures.astype(np.float16)).tolist()}
  assert pairs >= {(i, i + 1) for i in range(0, 20000, 100)} | {(0, 2)}
  assert len(pairs) <= 202


def test_exit_codes():
  one_each = [findings.finding(s, "It is so.", "") for s in ("note", "warning", "error")]
  assert [findings.exit_code(one_each[:n]) for n in range(4)] == [0, 0, 2, 1]


def test_from_the_command_line(tmp_path):
  root = folder(tmp_path / "data")
  arguments = (
    "--mode=doctor", "--config=configs/image_folder.py", f"--config.data.directory={root}",
    "--config.data.image_size=64", f"--workdir={tmp_path}/run",
  )
  clean = call(*arguments)
  assert clean.returncode == 0, clean.stderr
  assert "0 errors; 0 warnings" in clean.stdout and "doctor reads" in clean.stderr
  save(root / NO / "n29.png", np.asarray(Image.open(root / YES / "l00.png")))
  faulty = call(*arguments)
  assert faulty.returncode == 1 and "ERROR: 1 validation image is also in" in faulty.stdout
  assert f"{NO}/n29.png" in faulty.stdout and "Traceback" not in faulty.stderr
  assert sorted(p.name for p in pathlib.Path(f"{tmp_path}/run/doctor").iterdir()) == [
    "lock", "report.html", "report.json"
  ]
