"""Files that no example uses are counted and named, in folders, patches and beside scenes."""

import contextlib
import logging
import re

import numpy as np
import pytest
from PIL import Image

from lgag_jax.bands import add
from lgag_jax.catalogues import search
from lgag_jax.config import DataConfig, config_dict, from_mapping
from lgag_jax.doctor import file_checks
from lgag_jax.doctor.findings import NOTE, WARNING
from lgag_jax.imagery import listing
from lgag_jax.imagery.opening import ImageError
from lgag_jax.inputs import unused_files
from lgag_jax.inputs.sources import open_source
from lgag_jax.inputs.unused_files import UnusedFiles
from lgag_jax.mapping import cloud_masks, reference_files
from lgag_jax.options import bands, clouds, tiling
from lgag_jax.options.area import Imagery
from lgag_jax.tiling import tile
from lgag_jax.training import loop
from tests.test_tile import write_scene

YES, NO = "landslide", "non-landslide"


def save(path, value=0):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(path)
  return path


def save_mask(path):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.eye(8, dtype=np.uint8)).save(path)


def folder(root, count=5):
  for name in (YES, NO):
    for i in range(count):
      save(root / name / f"{name[0]}{i}.png", i)
  return root


def config(root, **fields):
  values = config_dict()
  values.data.directory = str(root)
  values.data.update(fields)
  return from_mapping(values)


def unused(root, **fields):
  return unused_files.find(config(root, **fields).data)


def test_a_complete_folder_has_no_unused_files(tmp_path):
  root = folder(tmp_path)
  for i in range(5):
    save_mask(root / "masks" / f"l{i}.png")
  (root / YES / "l0.png.aux.xml").write_text("<PAMDataset/>")
  (root / YES / "l0.pgw").write_text("1 0 0 -1 0 0")
  (root / "README.txt").write_text("x")
  (root / "manifest.csv").write_text("image,split\n" + "".join(
    f"{name}/{name[0]}{i}.png,{'validation' if i > 2 else 'train'}\n"
    for name in (YES, NO) for i in range(5)))
  assert unused(root) == UnusedFiles()
  assert file_checks.check(config(root)) == []


@pytest.mark.parametrize("parts", [("",), ("train", "validation")])
def test_unused_files_of_folders_are_sorted_by_reason(tmp_path, parts):
  for part in parts:
    folder(tmp_path / part)
    save_mask(tmp_path / part / "masks" / "l0.png")
  part = tmp_path / parts[-1]
  below = f"{parts[-1]}/" if parts[-1] else ""
  for name in ("l1_mask.png", "absent.tif", "L2.png"):
    save_mask(part / "masks" / name)
  for name in (f"{YES}/a.bmp", f"{YES}/b.webp", "masks/l3.gif"):
    save(part / name)
  for name in (f"{YES}/site/a.png", f"{NO}/x/y/b.jpg", "masks/old/l4.png"):
    save(part / name)
  for name in ("Landslide2/a.png", "photos/b.tif"):
    save(part / name)
  for name in (f"{YES}/._l0.png", f"{YES}/Thumbs.db", f"{NO}/labels.json"):
    (part / name).write_text("x")
  result = unused(tmp_path)
  named = lambda *names: sorted(below + name for name in names)
  assert sorted(result.masks) == named("masks/L2.png", "masks/absent.tif", "masks/l1_mask.png")
  assert sorted(result.formats) == named(f"{YES}/a.bmp", f"{YES}/b.webp", "masks/l3.gif")
  assert sorted(result.nested) == named(f"{YES}/site/a.png", f"{NO}/x/y/b.jpg", "masks/old/l4.png")
  assert sorted(result.elsewhere) == named("Landslide2/a.png", "photos/b.tif")
  assert sorted(result.others) == named(f"{YES}/._l0.png", f"{YES}/Thumbs.db", f"{NO}/labels.json")
  found = file_checks.check(config(tmp_path))
  assert [(f.severity, f.count) for f in found] == [
    (WARNING, 3), (WARNING, 3), (WARNING, 3), (NOTE, 2), (NOTE, 3)]
  assert found[0].what == "3 masks have the name of no image, so nothing uses them."
  assert found[0].files[0].startswith(f"{below}masks/")


def test_folders_that_are_links_are_searched(tmp_path):
  folder(tmp_path / "elsewhere")
  (tmp_path / "data").mkdir()
  for name in (YES, NO):
    (tmp_path / "data" / name).symlink_to(tmp_path / "elsewhere" / name)
  save(tmp_path / "elsewhere" / YES / "a.bmp")
  assert unused(tmp_path / "data") == UnusedFiles(formats=[f"{YES}/a.bmp"])


def test_unused_files_of_patches(tmp_path):
  for i in range(3):
    save(tmp_path / "images" / f"p{i}.png")
    save_mask(tmp_path / "masks" / f"p{i}.png")
  save_mask(tmp_path / "masks" / "p9.png")
  save(tmp_path / "images" / "p9.bmp")
  result = unused(tmp_path, source="patches")
  assert result == UnusedFiles(masks=["masks/p9.png"], formats=["images/p9.bmp"])
  (tmp_path / "manifest.csv").write_text("file,split\np0.png,train\np1.png,validation\n")
  result = unused(tmp_path, source="patches")
  assert sorted(result.unlisted) == ["images/p2.png", "images/p9.bmp", "masks/p2.png", "masks/p9.png"]
  assert [f.severity for f in file_checks.check(config(tmp_path, source="patches"))] == [NOTE]


@pytest.mark.parametrize(("source", "header", "unread"), [
  ("folder", "image,split,fold", ["fold"]),
  ("folder", "filename;Split;Class;note", ["class", "note"]),
  ("patches", "image,mask,split,subset,row_start", ["subset"]),
  ("folder", "image,mask,split,label,scene,row,col", []),
])
def test_columns_that_are_not_read_are_named_once(tmp_path, source, header, unread):
  folder(tmp_path)
  mark = ";" if ";" in header else ","
  columns = header.split(mark)
  cells = {"image": f"{YES}/l0.png", "filename": f"{YES}/l0.png", "mask": "m.png", "split": "train"}
  row = mark.join(cells.get(name.lower(), "") for name in columns)
  (tmp_path / "manifest.csv").write_text(f"{header}\n{row}\n")
  assert unused(tmp_path, source=source).columns == unread
  found = [f.what for f in file_checks.check(config(tmp_path, source=source)) if "column" in f.what]
  assert len(found) == bool(unread) and all(name in found[0] for name in unread)


def test_rows_of_a_manifest_without_an_image_are_named(tmp_path):
  folder(tmp_path, 1)
  (tmp_path / "manifest.csv").write_text(
    f"image,split\n{YES}/l0.png,train\n{NO}/n0.png,train\n{YES}/gone.png,train\n")
  assert unused(tmp_path).rows == ["gone.png"]


@pytest.mark.parametrize(("names", "warned"), [
  (["l0_mask.png", "l1_mask.png"], True), (["a.png"], True), (["l4.png", "a.png"], False),
  (["n0.png"], False), ([], False),
])
def test_training_says_once_that_no_mask_fits(tmp_path, caplog, names, warned):
  folder(tmp_path)
  for name in names:
    save_mask(tmp_path / "masks" / name)
  data = DataConfig(directory=str(tmp_path))
  with caplog.at_level(logging.WARNING):
    for split in ("train", "validation"):
      open_source(data, split)
  lines = [text for text in caplog.messages if "has the name of an image" in text]
  assert len(lines) == warned
  assert not warned or f"none of its {len(names)} masks" in lines[0]


@pytest.mark.parametrize("names", [["b.tif"], ["b.gpkg", "c.png"], ["a_mask.tif"]])
def test_references_of_no_scene_are_named(tmp_path, caplog, names):
  scenes = [save(tmp_path / "in" / "a.tif")]
  for name in ("a.png", *names):
    (tmp_path / name).write_text("x")
  reference_files.find(scenes, str(tmp_path))
  assert f"{len(names)} files of --labels={tmp_path} have the name of no scene, such as {names[0]}" in (
    caplog.text)
  (tmp_path / "a.png").unlink()
  with pytest.raises(ValueError, match=f"no file with a scene's name.* It holds {names[0]}"):
    reference_files.find(scenes, str(tmp_path))


@pytest.mark.parametrize("name", ["a.bmp", "b.webp", "c.jxl"])
def test_images_of_a_folder_of_scenes_that_are_not_read_are_named(tmp_path, name):
  save(tmp_path / "s.tif")
  (tmp_path / ".hidden.bmp").write_text("x")
  (tmp_path / "m.vrt").write_text("x")
  assert listing.left_out(tmp_path) == []
  (tmp_path / name).write_text("x")
  (text,) = listing.left_out(tmp_path)
  assert f"1 images of {tmp_path}" in text and name in text
  assert listing.left_out(tmp_path / "s.tif") == []


def test_each_mode_names_the_images_of_a_folder_that_it_leaves_out(tmp_path, caplog, monkeypatch):
  source, out = tmp_path / "in", tmp_path / "out"
  source.mkdir()
  write_scene(source / "s.tif")
  (source / "other.ecw").write_text("x")
  monkeypatch.setattr(cloud_masks, "finder", lambda _: lambda pixels: pixels[..., 0] > 9)
  flags = {"input": str(source), "output": str(out)}
  for use in (
    lambda: tile.find_scenes(tiling.Settings(**flags)),
    lambda: add.add(bands.Settings(**flags, add=("ndvi",), names=("red", "nir", "x"))),
    lambda: cloud_masks.write(
      clouds.Settings(**flags | {"output": f"{out}_2"}, bands=(1, 2, 3, 4))),
    lambda: search.find_images(str(source), None, 3, Imagery()),
  ):
    caplog.clear()
    with contextlib.suppress(ImageError):  # The scene has too few bands for clouds.
      use()
    assert caplog.text.count(f"1 images of {source} have a format that lgag does not read") == 1


def rows_of(names):
  """Returns a manifest of the folder's images, whose splits are `names` in each class."""
  rows = [f"{n[0]}{i}.png,{split}\n" for n in (YES, NO) for i, split in enumerate(names)]
  return "image,split\n" + "".join(rows)


@pytest.mark.parametrize(("names", "fields", "counts"), [
  (["train", "train", "validation", "val", "valid"], {}, {"val": 2, "valid": 2}),
  (["train", "train", "validation", "test", "test"], {}, {"test": 4}),
  (["Train", "train", "VALIDATION", "val", "val"], {"validation_split": "validation+val"}, {}),
  (["train", "train", "validation", "validation", "train"], {}, {}),
])
@pytest.mark.parametrize("source", ["folder", "patches"])
def test_splits_of_a_manifest_that_nothing_uses_are_named(
  tmp_path, caplog, source, names, fields, counts
):
  folder(tmp_path)
  (tmp_path / "manifest.csv").write_text(rows_of(names))
  if source == "patches":
    for i in range(len(names)):
      save(tmp_path / "images" / f"p{i}.png")
      save_mask(tmp_path / "masks" / f"p{i}.png")
    (tmp_path / "manifest.csv").write_text(
      "file,split\n" + "".join(f"p{i}.png,{split}\n" for i, split in enumerate(names)))
    counts = {name: count // 2 for name, count in counts.items()}
  data = config(tmp_path, source=source, **fields)
  assert unused(tmp_path, source=source, **fields).splits == counts
  with caplog.at_level(logging.WARNING):
    unused_files.log(data.data)
  text = ", ".join(f"{name} ({count})" for name, count in counts.items())
  told = [m for m in caplog.messages if f"rows of the manifest in these splits: {text}. Training" in m]
  assert len(told) == len(caplog.messages) == bool(counts)
  found = [f.severity for f in file_checks.check(data) if "these splits" in f.what]
  assert found == ([] if not counts else [NOTE] if set(counts) == {"test"} else [WARNING])


@pytest.mark.parametrize(("change", "words"), [
  (lambda root: (root / YES / "l0.png").rename(root / YES / "l0.webp"), "1 image has a format.*l0"),
  (lambda root: (root / NO / "n0.png").rename(root / NO / "n0.jpe"), "1 image has a format.*n0.jpe"),
  (lambda root: save(root / YES / "more" / "l9.png"), "1 image lies in folders inside.*more/l9.png"),
  (lambda root: (root / "manifest.csv").write_text(
    rows_of(["train"] * 4 + ["validation"]).replace("split", "split,row_begin,row_end")
    .replace("train\n", "train,0,8\n").replace("validation\n", "validation,0,8\n")),
   "does not read 2 columns of the manifest: row_begin, row_end"),
  (lambda root: None, ""),
])
def test_training_names_what_it_does_not_use(tmp_path, caplog, change, words):
  folder(tmp_path)
  change(tmp_path)
  values = config_dict()
  values.data.directory = str(tmp_path)
  with caplog.at_level(logging.WARNING):
    loop._open_sources(from_mapping(values))
  assert len(caplog.messages) == bool(words)
  assert re.search(words, caplog.text)
