"""Folders of classes, splits, and data that a source refuses."""

import numpy as np
import pytest
from PIL import Image

from lgag_jax.config import DataConfig
from lgag_jax.imagery.reading import UNKNOWN, ImageError
from lgag_jax.inputs import sources, splits

YES, NO = "landslide", "non-landslide"


def write(path, *, value=0, size=(6, 8)):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)


def write_mask(path, array):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.asarray(array, np.uint8)).save(path)


def fill(root, counts, *, size=(6, 8)):
  """Writes images into one folder per class; each image has its own value."""
  for folder, count in counts.items():
    for i in range(count):
      write(root / folder / f"{folder[0]}{i:02d}.png", value=10 * i + len(folder), size=size)


def open_(root, split="train", **fields):
  return sources.open_source(DataConfig(directory=str(root), **fields), split)


def test_labels_come_from_the_folders(tmp_path):
  fill(tmp_path, {YES: 5, NO: 10})
  train, held_out = open_(tmp_path), open_(tmp_path, "validation")
  for source, yes, no in ((train, 4, 8), (held_out, 1, 2)):
    assert len(source.ids) == yes + no
    assert source.labels.shape == (yes + no, 1)
    for name, label in zip(source.ids, source.labels[:, 0], strict=True):
      assert label == (name.split("/")[0] == YES)
    assert source.labels.sum() == yes
  assert not set(train.ids) & set(held_out.ids)
  # The last images of each class by name are held out.
  assert set(held_out.ids) == {f"{YES}/l04.png", f"{NO}/n08.png", f"{NO}/n09.png"}


def test_reading_returns_the_image_that_the_id_names(tmp_path):
  fill(tmp_path, {YES: 5, NO: 10})
  source = open_(tmp_path)
  for i, name in enumerate(source.ids):
    folder, file = name.split("/")
    image, mask = source.read(i)
    assert image.shape == (6, 8, 3)
    assert np.all(image == 10 * int(file[1:3]) + len(folder))
    # All pixels of a negative are known, and none of a positive.
    assert np.all(mask == (UNKNOWN if folder == YES else 0))


def test_masks_are_taken_where_there_are_some(tmp_path):
  fill(tmp_path, {YES: 5, NO: 5})
  mask = np.zeros((6, 8))
  mask[2:4, 3:5] = 255
  write_mask(tmp_path / "masks" / "l00.png", mask)
  source = open_(tmp_path)
  _, read = source.read(source.ids.index(f"{YES}/l00.png"))
  np.testing.assert_array_equal(read, mask / 255)
  assert np.all(source.read(source.ids.index(f"{YES}/l01.png"))[1] == UNKNOWN)


def test_a_mask_of_another_size_is_an_error_that_names_it(tmp_path):
  fill(tmp_path, {YES: 5, NO: 5})
  write_mask(tmp_path / "masks" / "l00.png", np.zeros((6, 7)))
  source = open_(tmp_path)
  with pytest.raises(ImageError, match=r"l00\.png is \(6, 7\), its image \(6, 8\)"):
    source.read(source.ids.index(f"{YES}/l00.png"))


def test_folders_named_like_the_splits_are_the_splits(tmp_path):
  fill(tmp_path / "train", {YES: 3, NO: 2})
  fill(tmp_path / "validation", {YES: 1, NO: 4})
  assert len(open_(tmp_path).ids) == 5
  assert len(open_(tmp_path, "validation").ids) == 5
  assert len(open_(tmp_path, train_split="train[:50%]").ids) == 2 + 1


def test_several_classes_and_custom_names(tmp_path):
  fill(tmp_path, {"scar": 5, "debris": 5, "nothing": 5})
  source = open_(tmp_path, classes=("scar", "debris"), background="nothing")
  for name, label in zip(source.ids, source.labels, strict=True):
    expected = {"scar": [1, 0], "debris": [0, 1], "nothing": [0, 0]}[name.split("/")[0]]
    np.testing.assert_array_equal(label, expected)


def test_a_missing_directory_names_the_flag_or_the_folder(tmp_path):
  with pytest.raises(ValueError, match=r"data\.directory is not set.*--config\.data\.directory"):
    open_("")
  with pytest.raises(FileNotFoundError, match=r"nowhere.*no such folder"):
    open_(tmp_path / "nowhere")


@pytest.mark.parametrize("missing", [YES, NO])
def test_a_missing_class_folder_names_it_and_the_remedy(tmp_path, missing):
  fill(tmp_path, {YES: 5, NO: 5})
  (tmp_path / missing).rename(tmp_path / "other")
  with pytest.raises(FileNotFoundError, match=rf"no folder {missing}/.*data\.classes"):
    open_(tmp_path)


def test_an_empty_class_folder_is_named(tmp_path):
  fill(tmp_path, {YES: 5})
  (tmp_path / NO).mkdir()
  with pytest.raises(ValueError, match=rf"{NO}/ has no images.*\.png"):
    open_(tmp_path)


def test_a_missing_folder_of_a_split_is_named(tmp_path):
  fill(tmp_path / "train", {YES: 3, NO: 2})
  with pytest.raises((ValueError, FileNotFoundError), match=r"validation"):
    open_(tmp_path, "validation")


def test_tiles_of_images_without_masks_are_refused(tmp_path):
  fill(tmp_path, {YES: 5, NO: 5})
  with pytest.raises(ValueError, match=r"data\.tile_size needs masks.*data\.source='patches'"):
    open_(tmp_path, tile_size=4)


@pytest.mark.parametrize(("value", "missing"), [(0, "positive"), (1, "negative")])
def test_training_needs_images_with_and_without(tmp_path, value, missing):
  for i in range(5):
    write(tmp_path / "images" / f"{i}.png")
    write_mask(tmp_path / "masks" / f"{i}.png", np.full((6, 8), value))
  with pytest.raises(ValueError, match=rf"no {missing} examples.*need both"):
    open_(tmp_path, source="patches")
  # Evaluation needs only one of them.
  assert len(open_(tmp_path, "validation", source="patches").ids) == 1


def test_a_split_without_examples_is_an_error(tmp_path):
  fill(tmp_path, {YES: 5, NO: 5})
  with pytest.raises(ValueError, match=r"the train split has no examples"):
    open_(tmp_path, train_split="train[:0]")


def test_an_unknown_split_lists_those_there_are(tmp_path):
  fill(tmp_path, {YES: 5, NO: 5})
  with pytest.raises(ValueError, match=r"Split 'test'.*train, validation"):
    open_(tmp_path, train_split="test")


@pytest.mark.parametrize(
  ("spec", "expected"),
  [
    ("train", [0, 2, 4, 6, 8]), ("test", [1, 3, 5, 7, 9]), ("train[:40%]", [0, 2]),
    ("train[-1:]", [8]), ("train[1:3]", [2, 4]), ("train[80%:]+test[:1]", [8, 1]),
    ("train[:40%]+train[60%:]", [0, 2, 6, 8]),
  ],
)
def test_split_expressions_are_those_of_tfds(spec, expected):
  assert splits.select(spec, ["train", "test"] * 5, DataConfig()) == expected


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.25, 0.5])
@pytest.mark.parametrize("count", [4, 7, 40])
def test_train_and_validation_share_out_all_examples(fraction, count):
  config = DataConfig(validation_fraction=fraction)
  train = splits.select("train", [""] * count, config)
  held_out = []
  if round(count * fraction):
    held_out = splits.select("validation", [""] * count, config)
  assert train + held_out == list(range(count))
  assert len(held_out) == pytest.approx(count * fraction, abs=0.5)


@pytest.mark.parametrize("spec", ["train[", "train[a:b]", "nope", ""])
def test_a_bad_expression_is_quoted(spec):
  with pytest.raises(ValueError, match="Split " + repr(spec).replace("[", r"\[")):
    splits.select(spec, ["train"] * 4, DataConfig())


def write_manifest(root, header, separator, label=""):
  rows = [header] + [
    separator.join([f"{k}/{k[0]}{i:02d}.png", "validation" if i < 2 else "train", *label.split()])
    for k in (YES, NO) for i in range(5)
  ]
  (root / "manifest.csv").write_text("\n".join(rows))


@pytest.mark.parametrize(("header", "separator"), [
  ("image,split", ","), ("image;split", ";"), ("Image\tSplit", "\t"), ("filename,split", ","),
  ("File;SPLIT", ";"),
])
def test_a_manifest_of_a_spreadsheet_splits_a_folder(tmp_path, header, separator):
  fill(tmp_path, {YES: 5, NO: 5})
  write_manifest(tmp_path, header, separator)
  expected = {f"{k}/{k[0]}0{i}.png" for k in (YES, NO) for i in range(2)}
  assert set(open_(tmp_path, "validation").ids) == expected


@pytest.mark.parametrize("header", ["picture,split", "image,subset"])
def test_a_manifest_without_its_columns_names_those_it_has(tmp_path, header):
  fill(tmp_path, {YES: 5, NO: 5})
  write_manifest(tmp_path, header, ",")
  with pytest.raises(ValueError, match=rf"needs the columns image and split.*{header.split(',')[0]}"):
    open_(tmp_path)


def test_a_label_of_the_manifest_that_contradicts_the_folder_is_refused(tmp_path):
  fill(tmp_path, {YES: 5, NO: 5})
  write_manifest(tmp_path, "image,split,label", ",", label=YES)
  with pytest.raises(ValueError, match=rf"row 7 labels {NO}/n00\.png as {YES}.*move the file"):
    open_(tmp_path)


def test_a_missing_relative_directory_names_the_current_one(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(FileNotFoundError, match=rf"in the current directory, {tmp_path}.*absolute path"):
    open_("nowhere")


@pytest.mark.parametrize(("name", "count", "fraction", "split"), [
  (YES, 2, 0.2, "validation"), (NO, 1, 0.2, "validation"), (YES, 1, 0.9, "train"),
])
def test_too_few_images_name_class_count_and_setting(tmp_path, name, count, fraction, split):
  fill(tmp_path, {YES: 10, NO: 10} | {name: count})
  words = rf"validation_fraction={fraction} of the images in {name}/, {count} in all.*none for {split}"
  with pytest.raises(ValueError, match=words):
    open_(tmp_path, split, validation_fraction=fraction)


@pytest.mark.parametrize(("shown", "absent"), [
  ((1, 1, 0, 0), ["river"]), ((2, 0, 2, 0), ["landslide"]), ((1, 2, 0, 0), []), ((3, 0, 0, 0), []),
])
def test_a_class_that_no_example_shows_is_named(tmp_path, caplog, shown, absent):
  for i, value in enumerate((*shown, 1, 2)):
    write(tmp_path / "images" / f"{i}.png")
    halves = np.repeat([[value & 1], [value & 2]], 24, axis=1)
    write_mask(tmp_path / "masks" / f"{i}.png", halves.reshape(6, 8))
  fields = {"source": "patches", "classes": ("landslide", "river"), "validation_fraction": 0.34}
  for split, names in (("train", absent), ("validation", [])):
    caplog.clear()
    open_(tmp_path, split, **fields)
    told = [text for text in caplog.messages if " shows the class " in text]
    assert [text.split(" shows the class ")[1].split(",")[0] for text in told] == names


@pytest.mark.parametrize(("second", "validation", "refused"), [
  (f"{YES}/x.jpg", ["x.jpg", "n1.png"], True), (f"{YES}/x.jpg", ["n1.png"], True),
  ("river/x.png", ["y.png", "n1.png"], True),
  (f"{NO}/x.jpg", ["x.jpg", "y.png"], False),  # Negatives have no mask.
  (f"{YES}/z.jpg", ["z.jpg", "n1.png"], False),
])
def test_two_images_of_any_splits_never_share_a_mask(tmp_path, second, validation, refused):
  names = [f"{YES}/x.png", f"{YES}/y.png", f"{NO}/n0.png", f"{NO}/n1.png", "river/r.png", second]
  for name in names:
    write(tmp_path / name)
  for name in ("x", "y"):
    write_mask(tmp_path / f"masks/{name}.png", np.eye(6, 8))
  split_of = lambda name: "validation" if name.rpartition("/")[2] in validation else "train"
  (tmp_path / "manifest.csv").write_text(
    "image,split\n" + "".join(f"{name},{split_of(name)}\n" for name in dict.fromkeys(names))
  )
  config = DataConfig(directory=str(tmp_path), classes=(YES, "river"))
  for split in ("train", "validation"):
    if refused:
      with pytest.raises(ValueError, match=r"x\.[jp].*x\.[jp].* would both have the mask .*/x\.png"):
        sources.make_source(config, split)
    else:
      source = sources.make_source(config, split)
      for image, mask in map(source.files, range(len(source.ids))):
        drawn = image is not None and image.parent.name == YES and image.stem in "xy"
        assert mask == (tmp_path / f"masks/{image.stem}.png" if drawn and image else None)


def test_the_folders_of_splits_have_masks_of_their_own(tmp_path):
  for split, suffix in (("train", "png"), ("validation", "jpg")):
    for name in (f"{YES}/x.{suffix}", f"{NO}/n.png"):
      write(tmp_path / split / name)
    write_mask(tmp_path / split / "masks/x.png", np.eye(6, 8))
  for split in ("train", "validation"):
    source = sources.make_source(DataConfig(directory=str(tmp_path)), split)
    assert tmp_path / split / "masks/x.png" in [source.files(i)[1] for i in range(2)]
