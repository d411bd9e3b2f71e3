"""The layout holds: imports go to a lower level only, files and functions stay readable."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "lgag_jax"
LEVELS = {
  0: ("config", "state", "cluster", "preemption", "progress", "files", "integrity", "lock",
      "archives", "classes", "download", "tables", "scene_tables", "figures", "flag_fields",
      "data_sets", "methods", "shipped"),
  1: ("jpeg2000", "rasters", "images", "scaling", "splits", "partition", "memory_bank", "losses",
      "metrics", "optimizer", "augment", "blocks", "patches", "models", "refine", "geo", "fold"),
  2: ("pseudo_source", "originals", "tfds_source", "sources", "normalisation", "input_pipeline",
      "localize", "calibrate", "checkpoints", "log", "feature_cache", "features", "train_step"),
  3: ("model_card", "model_directory", "session", "panels", "diagnose", "evaluate", "map_settings",
      "look", "mapping", "products", "share", "pseudo_masks", "report", "scene_page", "predict",
      "agreement", "judge_scenes", "doctor", "tile_settings", "tile_labels", "tile_output", "tile",
      "loaders", "export_settings", "onnx_form", "export", "api"),
  4: ("train", "stages"),
  5: ("modes", "command_line", "completion", "main"),
}
# Within a level a module may use those named before it.
ORDER = [name for names in LEVELS.values() for name in names]
MODULES = sorted(PACKAGE.rglob("*.py"))
TENSORFLOW = {"augment", "input_pipeline", "main"}


def unit(path):
  relative = path.relative_to(PACKAGE)
  return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports(path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom):
      yield from ((node.module, alias.name) for alias in node.names)
    elif isinstance(node, ast.Import):
      yield from ((alias.name, "") for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path):
  if path.stem == "__init__":
    return
  assert unit(path) in ORDER, f"{unit(path)} has no level: give it one"
  for module, name in imports(path):
    if not (module or "").startswith("lgag_jax") or name == "__version__":
      continue
    parts = module.split(".")
    used = parts[1] if len(parts) > 1 else name
    if used != unit(path):
      assert ORDER.index(used) < ORDER.index(unit(path)), f"{unit(path)} imports {used}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_stay_short(path):
  text = path.read_text()
  limit = 470 if path.stem == "config" else 250  # Every setting in one place is worth the length.
  assert len(text.splitlines()) <= limit
  for node in ast.walk(ast.parse(text)):
    if isinstance(node, ast.FunctionDef):
      assert node.end_lineno - node.lineno < 60, f"{node.name} is long"


def test_tensorflow_stays_at_the_edge():
  users = {unit(path) for path in MODULES for module, _ in imports(path) if module == "tensorflow"}
  assert users <= TENSORFLOW


def test_only_partition_names_a_mesh_axis():
  for path in MODULES:
    if path.stem != "partition":
      assert "PartitionSpec" not in path.read_text(), path
