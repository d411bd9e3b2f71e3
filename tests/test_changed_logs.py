"""Decisions stay if another program changes their log while the server runs."""

import json

import pytest

from lgag_jax.options.reviewing import Settings
from lgag_jax.reviewing.session import Session
from tests.test_reviewing import NEW, box, decide, decision, keys_of, write_maps


@pytest.mark.parametrize("change", [None, b"", b"no line"])
def test_a_log_that_is_changed_meanwhile_loses_no_decision(tmp_path, change):
  maps = write_maps(tmp_path)
  session = Session(Settings(input=str(maps)))
  keys, log = keys_of(session), maps / "review/scene_tif.jsonl"
  drawn = decision("missed", box(50, 50, 60, 60))
  decide(session, (keys[1], decision("accepted")), (f"0/{NEW}", drawn))
  if change is None:
    log.unlink()
  else:
    log.write_bytes(change)
  decide(session, (keys[2], decision("rejected", comment="a road")))
  decide(session, (keys[3], decision("accepted")))
  expected = session.state()["decisions"]
  assert {name: item["decision"] for name, item in expected.items()} == {
    keys[1]: "accepted", f"0/{NEW}": "missed", keys[2]: "rejected", keys[3]: "accepted"}
  lines = [json.loads(line) for line in log.read_text().splitlines()]
  assert [("original" in line) for line in lines] == [True, False, True, True]
  session.close()
  assert Session(Settings(input=str(maps))).state()["decisions"] == expected
  kept = maps / "review/edited/scene_tif.original.jsonl"
  assert (kept.read_bytes() if kept.exists() else None) == change
