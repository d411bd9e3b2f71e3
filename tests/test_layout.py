"""The layout holds: folders import what their first lines allow, files and functions stay readable."""

import ast
import functools
import graphlib
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "lgag_jax"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
ROOMS = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))
NAMES = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in MODULES}
TOP = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
ENTRANCES = {"main", "api"}  # They may import everything.
TENSORFLOW = {
  "runtime.host_tensorflow": {"tensorflow"},  # Keeps the accelerator from it.
  "inputs.originals": {"tensorflow_datasets"}, "inputs.splits": {"tensorflow_datasets"},
  "inputs.tfds_source": {"tensorflow_datasets"},
}


def module_name(path):
  return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def room(name):
  """Returns the folder that a module lies in, or the module itself at the top."""
  return name.split(".")[0]


@functools.cache
def imports(path):
  """Returns all modules that a file imports, wherever in it, with their full names."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path}: relative imports hide where they lead"
      for alias in node.names:
        full = f"{node.module}.{alias.name}"
        found.add(full if full in NAMES else node.module)
    elif isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
  return found


def own_imports(path):
  names = {name.removeprefix("lgag_jax.") for name in imports(path) if name.startswith("lgag_jax.")}
  return {name for name in names if name.split(".")[0] not in ("configs", "data")}


def allowed(folder):
  """Returns what a folder's __init__ says that it may import."""
  (text,) = re.findall(r"^May import: (.*?)\.$", (folder / "__init__.py").read_text(), re.DOTALL | re.M)
  return set() if text == "nothing of the package" else set(text.replace("\n", " ").split(", "))


def test_every_folder_is_a_room():
  assert {path.parent for path in MODULES} - {PACKAGE} == set(ROOMS)
  assert len(list(PACKAGE.glob("*.py"))) <= 8


@pytest.mark.parametrize("folder", ROOMS, ids=lambda path: path.name)
def test_a_folder_imports_what_it_says(folder):
  used = {room(name) for path in MODULES if path.parent == folder for name in own_imports(path)}
  assert used - {folder.name} == allowed(folder)


def test_folders_import_downwards_only():
  graph = {folder.name: allowed(folder) for folder in ROOMS}
  for name in TOP - ENTRANCES:
    graph[name] = {room(used) for used in own_imports(PACKAGE / f"{name}.py")}
  assert not set().union(*graph.values()) & ENTRANCES
  list(graphlib.TopologicalSorter(graph).static_order())  # Raises CycleError.


def test_modules_import_downwards_only():
  graph = {module_name(path): own_imports(path) for path in MODULES}
  assert set().union(*graph.values()) <= set(graph), "an import of what is no module"
  list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_files_and_functions_stay_short(path):
  text = path.read_text()
  assert len(text.splitlines()) <= 250
  for node in ast.walk(ast.parse(text)):
    if isinstance(node, ast.FunctionDef):
      assert node.end_lineno - node.lineno < 60, f"{node.name} is long"


def test_tensorflow_stays_at_the_edge():
  found = {}
  for path in MODULES:
    libraries = {name.split(".")[0] for name in imports(path)} & {"tensorflow", "tensorflow_datasets"}
    if libraries:
      found[module_name(path)] = libraries
  assert found == TENSORFLOW


@pytest.mark.parametrize("name", [
  "mapping.predict", "blocks.area_job", "blocks.network_maker", "export.export", "api", "tiling.tile",
  "labelling.label", "reviewing.review",
])
def test_mapping_does_not_wait_for_tensorflow(name):
  graph = {module_name(path): own_imports(path) for path in MODULES}
  found, ahead = set(), {name}
  while ahead:
    found |= ahead
    ahead = set().union(*(graph[module] for module in ahead)) - found
  assert len(found) > 10 and "runtime.host_tensorflow" not in found


def test_one_file_names_a_mesh_axis():
  users = {module_name(path) for path in MODULES if "PartitionSpec" in path.read_text()}
  assert users == {"runtime.sharding"}
