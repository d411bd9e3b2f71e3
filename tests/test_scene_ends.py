"""Scenes end: small ones at the same time, large ones one by one, and errors are raised."""

import threading
import types

import pytest

from lgag_jax.mapping import scene_ends
from lgag_jax.mapping.scene_ends import SceneEnds


def job(side, on_finish, reduction=1):
  axis = types.SimpleNamespace(length=side // reduction)
  windows = types.SimpleNamespace(reduction=reduction)
  return types.SimpleNamespace(rows=axis, cols=axis, windows=windows, on_finish=on_finish)


def test_small_scenes_end_at_the_same_time_and_all_of_them(monkeypatch):
  monkeypatch.setattr(scene_ends.os, "cpu_count", lambda: 2)
  both, ended = threading.Barrier(2, timeout=20), []

  def on_finish(job):
    both.wait()  # Nobody passes alone.
    ended.append(job)

  with SceneEnds() as ends:
    for _ in range(6):
      ends.end(job(64, on_finish))
    ends.wait()
    assert len(ended) == 6


@pytest.mark.parametrize("reduction", [1, 4])
def test_a_large_scene_ends_in_the_caller_s_thread(reduction):
  threads = []
  with SceneEnds() as ends:
    ends.end(job(1028, lambda _: threads.append(threading.current_thread()), reduction))
    assert threads == [threading.current_thread()]


@pytest.mark.parametrize("later", [0, 30])
def test_what_an_end_raises_is_raised(later):
  def fail(job):
    raise OSError("The disk is full.")

  def end_all():
    with SceneEnds() as ends:
      for on_finish in (fail, *(lambda _: None,) * later):
        ends.end(job(64, on_finish))
      ends.wait()

  with pytest.raises(OSError, match="disk is full"):
    end_all()
