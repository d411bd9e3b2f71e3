"""Merges that were interrupted, and tables that others have changed, lose no answer."""

import pytest

from lgag_jax.labelling.answer_table import HEADER
from lgag_jax.labelling.answers import Answers
from tests.test_labelling import NO, SIDE, UNSURE, YES, latest, settings

PLACES = [("a.tif", 0, col) for col in range(4)]
OTHER_PLACE = ("a.tif", 1, 0)


@pytest.fixture
def people(tmp_path):
  """The answers of two people who disagree on the first tile."""
  cut = settings(tmp_path).tiling(SIDE)
  own, other = (Answers(tmp_path / name, cut) for name in ("own", "other"))
  own.give([(place, YES) for place in PLACES], SIDE)
  other.give([(PLACES[0], NO), (PLACES[1], YES), (OTHER_PLACE, NO)], SIDE)
  return own, other


def again(answers, folder):
  return Answers(answers.path.parent, settings(folder).tiling(SIDE))


def test_an_interrupted_merge_loses_no_disagreement(people, tmp_path, monkeypatch):
  own, other = people

  def full(*_, **__):
    raise OSError(28, "No space left on device")

  with monkeypatch.context() as patch:
    patch.setattr(Answers, "give", full)
    with pytest.raises(OSError, match="No space left"):
      own.merge(other.path, UNSURE)
  own = again(own, tmp_path)
  assert latest(own) == dict.fromkeys(PLACES, YES)
  merged = own.merge(other.path, UNSURE)
  assert merged.disputed == ((PLACES[0], YES, NO),)
  assert latest(own) == {**dict.fromkeys(PLACES, YES), PLACES[0]: UNSURE, OTHER_PLACE: NO}
  assert own.disputed(UNSURE) == {PLACES[0]}
  own.give([(PLACES[0], YES)], SIDE)  # Settled, also if it is what was answered first.
  assert again(own, tmp_path).merge(other.path, UNSURE).disputed == ()


def test_disagreements_can_be_edited_and_are_kept(people, tmp_path):
  own, other = people
  own.merge(other.path, UNSURE)
  table = own.path.with_name("disagreements.csv")
  earlier = [line.rpartition(",")[0] for line in table.read_text().splitlines()]
  earlier[0] = earlier[0].removesuffix(",time")
  # As an earlier release and a spreadsheet leave it: without times, and the last line without an end.
  table.write_bytes("\r\n".join(earlier).encode("utf-8-sig"))
  other.give([(PLACES[2], NO)], SIDE)
  merged = own.merge(other.path, UNSURE)
  assert merged.disputed == ((PLACES[2], YES, NO),)
  assert again(own, tmp_path).disputed(UNSURE) == {PLACES[0], PLACES[2]}
  table.write_text(table.read_text().replace("a.tif,0,2", "a.tif,two,2"))
  with pytest.raises(ValueError, match=r"disagreements\.csv, row 3 needs whole numbers in row and col"):
    own.merge(other.path, UNSURE)


@pytest.mark.parametrize("change", [b"", b"sorted\n", b"no end", None])
@pytest.mark.parametrize("ends", [False, True])
def test_a_table_that_is_changed_meanwhile_loses_no_answer(people, tmp_path, change, ends):
  own, _ = people
  if change is None:
    own.path.unlink()
  else:
    own.path.write_bytes(change)
  if ends:
    own.close()
  else:
    own.give([(OTHER_PLACE, NO)], SIDE)
  expected = dict.fromkeys(PLACES, YES) | ({} if ends else {OTHER_PLACE: NO})
  assert latest(again(own, tmp_path)) == expected
  kept = own.path.with_name("labels.original.csv")
  assert (kept.read_bytes() if kept.exists() else None) == change
  own.give([(OTHER_PLACE, YES)], SIDE)  # Appended again.
  assert latest(again(own, tmp_path)) == expected | {OTHER_PLACE: YES}
  own.close()
  assert sorted(p.name for p in own.path.parent.glob("*.csv")) == sorted(
    [*(["labels.original.csv"] if change is not None else []), "labels.csv"])


@pytest.mark.parametrize("cells", ["0,0,landslide,0", "0,0,landslide,-16", "-1,0,landslide,16"])
def test_no_tile_has_such_a_place_or_size(tmp_path, cells):
  (tmp_path / "labels.csv").write_text(f"{HEADER}\na.tif,{cells},,\n")
  with pytest.raises(ValueError, match=r"labels\.csv, row 2 needs whole numbers .* tile_size from 1"):
    Answers(tmp_path, settings(tmp_path).tiling(SIDE))
