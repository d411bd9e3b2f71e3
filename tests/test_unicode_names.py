"""Names that look the same are the same, however a system writes letters such as é."""

import unicodedata

import numpy as np
import pytest
from PIL import Image

from lgag_jax.config import DataConfig
from lgag_jax.geo import companions
from lgag_jax.imagery import listing
from lgag_jax.inputs import sources, unused_files
from lgag_jax.options.mapping import Options
from lgag_jax.tiling import tile
from tests.test_tile import options, write_scene

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


def test_two_files_that_look_the_same_are_refused(tmp_path):
  for form in ("NFC", "NFD"):
    write(tmp_path / f"{unicodedata.normalize(form, NAMES[0])}.png")
  with pytest.raises(ValueError, match="differ only in their suffix"):
    listing.files_by_stem(tmp_path)
