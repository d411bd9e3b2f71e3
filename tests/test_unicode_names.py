"""Names that look the same are the same, however a system writes letters such as é."""

import unicodedata

import numpy as np
import pytest
from affine import Affine
from PIL import Image

from lgag_jax.config import DataConfig
from lgag_jax.geo import companions
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.scene_ground import SceneGround
from lgag_jax.imagery import listing
from lgag_jax.inputs import file_splits, sources, unused_files
from lgag_jax.labelling.answers import Answers
from lgag_jax.mapping import reference_files
from lgag_jax.options.mapping import Options
from lgag_jax.tiling import review_files, tile
from tests.test_tile import SIDE, options, write_scene

NAMES = ("Süd_é", "한국", "Åre")
FORMS = [("NFC", "NFD"), ("NFD", "NFC")]


def write(path, value=0):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.full((8, 8, 3), 90 + value, np.uint8)).save(path)
  return path


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("of_image", "of_other"), FORMS)
def test_masks_belong_to_images_of_the_same_look(tmp_path, name, of_image, of_other):
  image, other = (unicodedata.normalize(form, name) for form in (of_image, of_other))
  assert image != other
  write(tmp_path / "landslide" / f"{image}.png")
  write(tmp_path / "non-landslide/plain.png")
  (tmp_path / "masks").mkdir()
  Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / "masks" / f"{other}.png")
  config = DataConfig(directory=str(tmp_path), validation_fraction=0.0)
  source = sources.open_source(config, "train")
  masks = [source.read(i)[1] for i in range(2)]
  assert [int((mask == 1).sum()) for mask in masks] == [8 * int(x[0]) for x in source.labels]
  assert not unused_files.find(config).masks


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("of_image", "of_other"), FORMS)
def test_images_before_and_scenes_of_tables_are_found(tmp_path, name, of_image, of_other):
  image, other = (unicodedata.normalize(form, name) for form in (of_image, of_other))
  scene = write(tmp_path / "in" / f"{image}.png")
  before = write(tmp_path / "before" / f"{other}.png", 9)
  (found,) = companions.find([scene], Options(before=str(tmp_path / "before")))
  assert found.before == before
  write_scene(tmp_path / f"{image}.tif")
  table = tmp_path / "labels.csv"
  table.write_text(f"scene,row,col,label\n{other}.tif,0,0,landslide\n{other},0,1,non-landslide\n")
  rows, _ = tile.cut(options(tmp_path, input=str(tmp_path / f"{image}.tif"), labels=str(table)))
  labels = {(row.row, row.col): row.label for row in rows}
  assert (labels[0, 0], labels[0, 1]) == ("landslide", "non-landslide")


@pytest.mark.parametrize("split", ["", "train"])
@pytest.mark.parametrize(("of_config", "of_folder"), FORMS)
def test_class_folders_of_the_same_look_are_those_of_the_config(tmp_path, split, of_config, of_folder):
  named = lambda form: [unicodedata.normalize(form, name) for name in NAMES]
  no, *classes = named(of_config)
  folders = named(of_folder)
  for number, name in enumerate((*folders, "+".join(folders[:0:-1]))):
    write(tmp_path / split / name / "a.png", number)
  config = DataConfig(
    directory=str(tmp_path), classes=tuple(classes), background=no, validation_fraction=0.0)
  source = sources.open_source(config, "train")
  assert source.labels.tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]
  assert not unused_files.find(config).elsewhere
  (tmp_path / "manifest.csv").write_text(
    f"image,split,label\n{classes[0]}/a.png,train,{classes[0]}\n")
  if not split:
    assert set(file_splits.read(config, tmp_path).values()) == {"train"}


def write_mask(path, positive):
  path.parent.mkdir(exist_ok=True)
  Image.fromarray(np.eye(8, dtype=np.uint8) * positive).save(path)


@pytest.mark.parametrize("manifest", ["", "file", "image,mask"])
@pytest.mark.parametrize(("of_image", "of_other"), FORMS)
def test_masks_in_another_form_are_the_labels(tmp_path, manifest, of_image, of_other):
  rows = [manifest]
  for number, name in enumerate(NAMES):
    image, other = (unicodedata.normalize(form, f"{name}.png") for form in (of_image, of_other))
    write(tmp_path / "images" / image, number)
    write_mask(tmp_path / "masks" / (image if manifest == "file" else other), number % 2)
    rows.append(f"images/{other},masks/{image}" if "," in manifest else other)
  if manifest:
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
  config = DataConfig(source="patches", directory=str(tmp_path), validation_fraction=0.0)
  source = sources.make_source(config, "train")
  values = [int(source.read(index)[0][0, 0, 0]) - 90 for index in range(3)]
  assert sorted(values) == [0, 1, 2]
  assert source.labels[:, 0].tolist() == [float(value % 2) for value in values]
  assert not unused_files.find(config).unlisted


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("of_image", "of_other"), FORMS)
def test_a_manifest_in_another_form_names_images_of_folders(tmp_path, name, of_image, of_other):
  image, other = (unicodedata.normalize(form, f"{name}.png") for form in (of_image, of_other))
  write(tmp_path / "landslide" / image)
  write(tmp_path / "landslide/held_out.png")
  before = write(tmp_path / "earlier" / image, 9)
  for plain in ("plain.png", "other.png"):
    write(tmp_path / "non-landslide" / plain)
  text = (
    f"image,split,label,before\n{other},train,landslide,earlier/{other}\n"
    f"held_out.png,validation,landslide,earlier/{image}\nplain.png,train,,earlier/{image}\n"
    f"other.png,validation,,earlier/{image}\n"
  )
  (tmp_path / "manifest.csv").write_text(text)
  config = DataConfig(directory=str(tmp_path), before="manifest", max_shift=0.0)
  source = sources.make_source(config, "train")
  assert source.ids == ["non-landslide/plain.png", f"landslide/{image}"]
  assert source.before(1) == before
  unused = unused_files.find(config)
  assert not (unused.rows or unused.elsewhere or unused.unlisted)
  (tmp_path / "manifest.csv").write_text(text.replace("train,landslide", "train,non-landslide"))
  with pytest.raises(ValueError, match=r"row 2 labels .* as non-landslide, but the file lies in"):
    sources.make_source(config, "train")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("of_image", "of_other"), FORMS)
def test_answers_and_reviews_belong_to_the_scene_of_the_same_look(tmp_path, name, of_image, of_other):
  image, other = (unicodedata.normalize(form, f"{name}.tif") for form in (of_image, of_other))
  path, grid = tmp_path / image, Grid(32, 32, None, Affine.identity())
  cut = options(tmp_path, input=str(path), labels=str(tmp_path / "labels.csv"))
  (tmp_path / "labels.csv").write_text(f"scene,row,col,label,tile_size\n{other},0,1,1,{SIDE}\n")
  grounds = {image: SceneGround(path, grid)}
  answers = Answers(tmp_path, cut, grounds)
  assert set(answers.latest) == {(image, 0, 1)}
  answers.give([((image, 0, 1), "non-landslide")], SIDE)
  assert [a.label for a in Answers(tmp_path, cut, grounds).latest.values()] == ["non-landslide"]
  review = review_files.ReviewFile(tmp_path / "r.gpkg", other, "", (32, 32), 0, "", "", "")
  assert review_files.of_scene([review], path, grid) == review
  assert review_files.may_be_of(unicodedata.normalize(of_other, f"{name}_tif"), path)


@pytest.mark.parametrize("name", NAMES)
def test_two_scenes_that_look_the_same_are_refused(tmp_path, name):
  for form in ("NFC", "NFD"):
    write_scene(tmp_path / f"{unicodedata.normalize(form, name)}.tif")
  (tmp_path / "labels.csv").write_text("scene,row,col,label\nx,0,0,1\n")
  with pytest.raises(ValueError, match="would give tiles of the same names"):
    tile.cut(options(tmp_path, input=f"{tmp_path}/*.tif", labels=str(tmp_path / "labels.csv")))


def test_two_files_that_look_the_same_are_refused(tmp_path):
  for form in ("NFC", "NFD"):
    write(tmp_path / f"{unicodedata.normalize(form, NAMES[0])}.png")
  with pytest.raises(ValueError, match="differ only in their suffix"):
    listing.files_by_stem(tmp_path)


@pytest.mark.parametrize("folder", ["a[1]", "a?b", "a*"])
def test_a_glob_in_a_folder_that_is_there_means_this_folder(tmp_path, folder):
  """Brackets and marks in its name match nothing else, such as a1 beside a[1]."""
  for name in (folder, "a1", "acb"):
    write_scene(write(tmp_path / name / "s.png"))
    write(tmp_path / name / "masks" / "s.png")
  for pattern, names in (
    ("*.png", {"s.png"}), ("[!r]*.png", {"s.png"}), ("**/*.png", {"s.png", "masks/s.png"}),
    ("m*/*", {"masks/s.png"}), ("*/", {"masks"}), ("nothing*", set()),
  ):
    found = listing.matches(f"{tmp_path}/{folder}/{pattern}")
    assert {path.relative_to(tmp_path / folder).as_posix() for path in found} == names
  assert listing.scene_files(f"{tmp_path}/{folder}/s*") == [tmp_path / folder / "s.png"]
  scenes = [tmp_path / folder / "s.png"]
  found = reference_files.find(scenes, str(tmp_path / folder / "masks" / "*.png"))
  assert found == {scenes[0]: tmp_path / folder / "masks" / "s.png"}
