"""Where compiled programs are kept."""

import pathlib

from lgag_jax.runtime import compiled_programs


def test_programs_are_kept_by_processor(monkeypatch, tmp_path):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  here = compiled_programs._program_folder()
  assert here.parent == tmp_path / "lgag_jax" / "compiled"
  assert here == compiled_programs._program_folder()
  monkeypatch.setattr(pathlib.Path, "read_text", lambda _: "model name: x\nflags: fpu other\n")
  assert compiled_programs._program_folder() != here


def test_a_user_without_a_home_keeps_no_programs(monkeypatch):
  def homeless():
    raise RuntimeError("Could not determine home directory.")

  monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
  monkeypatch.setattr(pathlib.Path, "home", homeless)
  assert compiled_programs._program_folder() is None
