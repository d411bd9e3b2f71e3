"""The folder for compiled programs."""

import pathlib

from lgag_jax.runtime import compiled_programs


def test_each_type_of_processor_has_its_own_folder(monkeypatch, tmp_path):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  folder = compiled_programs._cache_folder()
  assert folder.parent == tmp_path / "lgag_jax" / "compiled"
  assert folder == compiled_programs._cache_folder()
  other = tmp_path / "cpuinfo"
  other.write_text("model name: x\nflags: fpu other\n")
  assert compiled_programs._cache_folder(other) != folder


def test_a_user_without_a_home_directory_has_no_folder(monkeypatch):
  def raise_error():
    raise RuntimeError("Could not determine home directory.")

  monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
  monkeypatch.setattr(pathlib.Path, "home", raise_error)
  assert compiled_programs._cache_folder() is None
