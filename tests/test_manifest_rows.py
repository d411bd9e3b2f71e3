"""Manifests are read as a whole or refused: labels against folders, parts, repeated and shared rows."""

import logging
import re

import numpy as np
import pytest
from PIL import Image

from lgag_jax.config import Config, DataConfig
from lgag_jax.doctor import file_checks, image_checks, survey
from lgag_jax.inputs import shared_ground, sources, unused_files
from lgag_jax.training import examples_record, loop

YES, NO = "landslide", "non-landslide"
REGION = "row_start,row_stop,col_start,col_stop"


@pytest.fixture
def root(tmp_path):
  for name in (f"{YES}/a.png", f"{NO}/b.png", "images/p.png", "images/q.png"):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(tmp_path / name)
  (tmp_path / "masks").mkdir()
  for name in ("p", "q"):
    Image.fromarray(np.eye(16, dtype=np.uint8)).save(tmp_path / "masks" / f"{name}.png")
  return tmp_path


def read(root, text, kind="folder", split="train"):
  (root / "manifest.csv").write_text(text)
  config = DataConfig(source=kind, directory=str(root), tile_size=8 if kind == "patches" else 0)
  return sources.make_source(config, split)


@pytest.mark.parametrize(("rows", "label"), [
  ("a.png,0\nb.png,0", "a.png as 0"), (f"a.png,1\n{NO}/b.png,TRUE", f"{NO}/b.png as TRUE"),
  (f"{YES}/a.png,no\nb.png,no", f"{YES}/a.png as no"), (f"a.png,{NO}\nb.png,{NO}", f"a.png as {NO}"),
  ("a.png,yes\nb.png,Landslide", "b.png as Landslide"),
  ("a.png,Non-Landslide\nb.png,", "a.png as Non-Landslide"),
  (f"{NO}/b.png,LANDSLIDE\na.png,1", f"{NO}/b.png as LANDSLIDE"),
])
def test_labels_that_contradict_the_folders_are_refused(root, rows, label):
  rows = rows.replace("\n", ",train\n")
  with pytest.raises(ValueError, match=rf"row [23] labels {label}, but the file lies in .*move the"):
    read(root, f"image,label,split\n{rows},train\n")


@pytest.mark.parametrize("rows", [
  "a.png,1\nb.png,0", f"{YES}/a.png,yes\n{NO}/b.png,False", f"a.png,{YES}\nb.png,", "a.png,3\nb.png,x",
  f"a.png,Landslide\n{NO}/b.png,NON-LANDSLIDE", f"{YES}/b.png,{YES}\na.png,yes",  # Moved since.
])
def test_labels_that_agree_or_are_of_another_kind_are_taken(root, rows):
  rows = rows.replace("\n", ",train\n")
  assert read(root, f"image,label,split\n{rows},train\n").ids == [f"{NO}/b.png", f"{YES}/a.png"]


@pytest.mark.parametrize(("name", "label", "agrees"), [
  ("l.png", "river", False), ("l.png", "Landslide+River", False), ("b.png", "RIVER", True),
  ("b.png", "river+landslide", True), ("b.png", "none", False), ("b.png", "No", False),
])
def test_labels_of_several_classes_are_compared_with_the_folders(tmp_path, name, label, agrees):
  for folder, file in (("landslide", "l"), ("river", "r"), ("none", "n"), ("landslide+river", "b")):
    (tmp_path / folder).mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / folder / f"{file}.png")
  rows = "".join(f"{file}.png,,train\n" for file in "lrnb" if f"{file}.png" != name)
  (tmp_path / "manifest.csv").write_text(f"image,label,split\n{name},{label},train\n{rows}")
  config = DataConfig(directory=str(tmp_path), classes=("landslide", "river"), background="none")
  if agrees:
    assert len(sources.make_source(config, "train").ids) == 4
  else:
    with pytest.raises(ValueError, match=r"row 2 labels .\.png as .*The folder is the label"):
      sources.make_source(config, "train")


def told(root, caplog, kind="folder"):
  """Returns what training and the doctor say of unused files, which is the same."""
  config = DataConfig(source=kind, directory=str(root))
  with caplog.at_level(logging.WARNING):
    unused_files.log(config)
  warnings = " ".join(found.what for found in file_checks.check(Config(data=config)))
  return caplog.text, warnings


@pytest.mark.parametrize(("labels", "words"), [
  (("positive", "no"), "1 label of the manifest, which names no class: positive. The folders"),
  (("3", "x"), "2 labels of the manifest, which name no class: 3, x. The folders"),
  (("Landslide", ""), ""), (("1", "False"), ""),
])
def test_labels_that_name_no_class_are_told_once(root, caplog, labels, words):
  (root / "manifest.csv").write_text(
    f"image,label,split\na.png,{labels[0]},train\nb.png,{labels[1]},train\n"
  )
  for text in told(root, caplog):
    assert text.count("of the manifest, which") == bool(words) and words in text


@pytest.mark.parametrize(("header", "rows", "words"), [
  ("file,split,label", "p.png,train,0\nq.png,validation,1", "does not read 1 column .*: label"),
  ("image,mask,label", "images/p.png,masks/p.png,1", "does not read 1 column .*: label"),
  ("file,split,label", "p.png,train,\nq.png,validation,", ""), ("file,split", "p.png,train", ""),
])
def test_a_column_of_labels_beside_masks_is_told(root, caplog, header, rows, words):
  (root / "manifest.csv").write_text(f"{header}\n{rows}\n")
  for text in told(root, caplog, "patches"):
    assert re.search(words, text) and text.count("does not read") == bool(words)


@pytest.mark.parametrize(("rows", "count"), [
  ("t.png,validation\nv.png,train\n", "2 images lie"),
  ("t.png,test\nv.png,validation\n", "1 image lies"),
  ("t.png,Train\nv.png,\n", ""), ("v.png,validation\ngone.png,train\n", ""),
])
def test_splits_that_folders_override_are_told(tmp_path, caplog, rows, count):
  for split in ("train", "validation"):
    (tmp_path / split / YES).mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / split / YES / f"{split[0]}.png")
  (tmp_path / "manifest.csv").write_text(f"image,split\n{rows}")
  for text in told(tmp_path, caplog):
    assert text.count("another split than the manifest says") == bool(count) and count in text


@pytest.mark.parametrize("text", ["", "image,split\n", "file,split,note\n,,\n"])
@pytest.mark.parametrize("kind", ["folder", "patches"])
def test_a_manifest_without_rows_is_refused(root, text, kind):
  with pytest.raises(ValueError, match=r"manifest\.csv has no rows: add one per image, or remove"):
    read(root, text, kind)


@pytest.mark.parametrize("text", [
  f"file,{REGION}\np.png,,8,0,16\n", f"file,{REGION}\np.png,0,8,,\n",
  "file,row_stop,col_start,col_stop\np.png,8,0,16\n",
])
def test_parts_with_missing_numbers_are_refused(root, text):
  with pytest.raises(ValueError, match=r"row 2: row_start, .* must all be whole numbers"):
    read(root, text, "patches")


def test_an_image_has_one_name(root):
  with pytest.raises(ValueError, match=r"row 2 names an image by file, 'p\.png', and by image"):
    read(root, "file,image,mask\np.png,images/q.png,masks/q.png\n", "patches")


@pytest.mark.parametrize("rows", [
  "p.png,train,,,,\np.png,train,,,,", "p.png,train,0,8,0,16\nq.png,train,,,,\np.png,train,0,8,0,16",
  "p.png,validation,8,16,0,16\np.png,validation,8,16,0,16",
])
def test_repeated_rows_are_refused(root, rows):
  with pytest.raises(ValueError, match=r"manifest\.csv, row [34] repeats row 2: remove one"):
    read(root, f"file,split,{REGION}\n{rows}\n", "patches")


@pytest.mark.parametrize("rows", [
  "p.png,train,,,,\np.png,validation,,,,", "p.png,train,0,9,0,16\np.png,validation,8,16,0,16",
  "p.png,train,4,6,4,6\nq.png,validation,,,,\np.png,validation,,,,",
])
def test_parts_of_two_splits_that_overlap_are_refused(root, rows):
  with pytest.raises(ValueError, match=r"row [34] puts a part of p\.png into .* that row 2 puts into"):
    read(root, f"file,split,{REGION}\n{rows}\n", "patches")


def test_parts_that_touch_and_parts_of_one_split_are_read(root):
  rows = "p.png,train,0,8,0,16\np.png,validation,8,16,0,16\nq.png,train,0,8,0,8\nq.png,train,0,8,4,12\n"
  source = read(root, f"file,split,{REGION}\n{rows}", "patches")
  assert source.ids == ["p.png[0:0]", "p.png[0:8]", "q.png[0:0]", "q.png[0:4]"]
  assert read(root, f"file,split,{REGION}\n{rows}", "patches", "validation").ids == [
    "p.png[8:0]", "p.png[8:8]"
  ]


@pytest.fixture
def strips(tmp_path):
  """Returns a function from parts of rows, and settings, to both sources of an image of 64 rows."""
  for folder, array in (("images", np.full((64, 16, 3), 90)), ("masks", np.eye(64, 16) * 255)):
    (tmp_path / folder).mkdir()
    Image.fromarray(array.astype(np.uint8)).save(tmp_path / folder / "p.png")

  def opened(parts, **fields):
    rows = "".join(f"p.png,{top},{bottom},0,16\n" for top, bottom in parts)
    (tmp_path / "manifest.csv").write_text(f"file,{REGION}\n{rows}")
    data = DataConfig(source="patches", directory=str(tmp_path), validation_fraction=0.25, **fields)
    return {split: sources.make_source(data, split) for split in ("train", "validation")}

  return opened


@pytest.mark.parametrize(("parts", "fields"), [
  ([(0, 16), (16, 32), (32, 48), (40, 56)], {}),
  ([(top, top + 16) for top in range(0, 49, 4)], {}),
  ([(0, 32), (16, 48)], {"train_split": "train[:50%]", "validation_split": "train[50%:]"}),
  ([(0, 64), (0, 32)], {"train_split": "train[:50%]", "validation_split": "train[50%:]"}),
])
def test_parts_that_overlap_between_splits_are_refused(strips, tmp_path, caplog, parts, fields):
  both = strips(parts, **fields)
  with pytest.raises(ValueError, match=r"the part \[.*\] of .*p\.png, a training .*column split"):
    loop._claim(Config(), both, tmp_path / "wd", started=False)
  assert not (tmp_path / "wd").exists()
  (found,) = image_checks._check_shared_ground(survey.Survey(sources=both))
  assert found.severity == "error" and "p.png" in found.what
  examples_record.warn_of_overlap(both)  # Of a workdir of an earlier release, which goes on.
  assert "Figures on validation images are too good: the part" in caplog.text


@pytest.mark.parametrize(("parts", "fields"), [
  ([(0, 16), (16, 32), (32, 48), (48, 64)], {}), ([(0, 20), (16, 32), (8, 31), (48, 64)], {}),
  ([(top, top + 16) for top in range(0, 49, 4)], {"block_size": 16, "tile_size": 16}),
])
def test_parts_that_only_overlap_in_one_split_are_accepted(strips, parts, fields):
  assert shared_ground.between(*strips(parts, **fields).values()) == ""
