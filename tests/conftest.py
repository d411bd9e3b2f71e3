"""Settings of all tests, made before JAX starts: four devices, little optimisation; small data."""

import os
import shutil
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Compiled programs are shared by tests, their workers and the processes that they start.
os.environ.setdefault(
  "JAX_COMPILATION_CACHE_DIR", f"{tempfile.gettempdir()}/lgag_jax_programs_{os.getpid()}"
)
# Tests and the processes that they start keep secrets there, not in the user's home.
os.environ["XDG_STATE_HOME"] = f"{tempfile.gettempdir()}/lgag_jax_state_{os.getpid()}"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

import jax
import jaxtyping
import numpy as np
import pyogrio  # noqa: F401  Before TensorFlow, whose SQLite has no R-trees for GeoPackages.
import pytest
from PIL import Image

jax.config.update("jax_num_cpu_devices", 4)
# Compiling takes longer than running here. Tests of compiled memory turn this off again.
jax.config.update("jax_disable_most_optimizations", True)

# Calls of functions in these modules are checked against their annotations, types and shapes. Modules
# that define dataclasses of flax.struct are not listed: the import hook breaks them. jaxtyping's option
# of pytest is not used: it does not reach the workers of pytest-xdist.
CHECKED_MODULES = (
  "lgag_jax.evaluation.metrics", "lgag_jax.inference.refine", "lgag_jax.method.classifiers",
  "lgag_jax.method.gaa", "lgag_jax.method.head", "lgag_jax.method.losses",
  "lgag_jax.method.memory_bank", "lgag_jax.method.network", "lgag_jax.method.sol",
  "lgag_jax.trunks.attention", "lgag_jax.trunks.depthwise", "lgag_jax.trunks.efficientnet_lite",
  "lgag_jax.trunks.layers", "lgag_jax.trunks.resnet", "lgag_jax.trunks.vit",
  "lgag_jax.trunks.vit_positions",
)
jaxtyping.install_import_hook(CHECKED_MODULES, "beartype.beartype")

SIDE = 64


def pytest_unconfigure():
  shutil.rmtree(f"{tempfile.gettempdir()}/lgag_jax_state_{os.getpid()}", ignore_errors=True)
  programs = os.environ["JAX_COMPILATION_CACHE_DIR"]
  if programs.endswith(f"lgag_jax_programs_{os.getpid()}"):  # Not a worker's, nor the user's.
    shutil.rmtree(programs, ignore_errors=True)


def pytest_configure(config):
  # The package ignores these too, but pytest sets its own filters.
  config.addinivalue_line("filterwarnings", "ignore::rasterio.errors.NotGeoreferencedWarning")


# The modules that take longest come first: begun last, one would keep a core alone.
LONG = (
  "test_topology", "test_docs", "test_train_step", "test_train", "test_catalogue", "test_lowering",
  "test_foreign_workdirs", "test_bad_data", "test_stages", "test_localize", "test_main",
  "test_head", "test_fuzz", "test_synthetic_landslides", "test_packaging", "test_normalisation",
  "test_features", "test_speed", "test_doctor",
)


def pytest_collection_modifyitems(items):
  items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(params=[0, 1, 2])
def rng(request):
  """Random numbers; a test that takes them runs on three seeds."""
  return np.random.default_rng(request.param)


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory):
  """A folder of 20 images with a bright square, their masks, and 12 without."""
  root = tmp_path_factory.mktemp("images")
  random = np.random.default_rng(7)
  for name in ("landslide", "non-landslide", "masks"):
    (root / name).mkdir()
  for i in range(32):
    image = random.integers(40, 90, (SIDE, SIDE, 3), dtype=np.uint8)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    if i < 20:
      top, left = random.integers(0, SIDE - 24, 2)
      image[top : top + 24, left : left + 24] += np.uint8([150, 90, 20])
      mask[top : top + 24, left : left + 24] = 255
      Image.fromarray(mask).save(root / "masks" / f"slide_{i:02d}.png")
    folder, stem = ("landslide", "slide") if i < 20 else ("non-landslide", "quiet")
    Image.fromarray(image).save(root / folder / f"{stem}_{i:02d}.png")
  return root


@pytest.fixture
def small_config(image_folder):
  return make_small_config(image_folder)


def make_small_config(directory):
  """Returns the default config, made small enough to train in seconds."""
  from lgag_jax.config import config_dict

  config = config_dict()
  config.data.directory = str(directory)
  config.data.image_size = SIDE
  config.model.side_widths = (8, 8, 8, 8)
  config.model.head_width = 16
  config.refine.colour_evidence = False  # tests/test_colour_evidence.py has it on.
  config.bank.slots = 24
  config.bank.centres = 3
  config.bank.min_confidence = 0.1
  config.train.batch_size = 8
  config.train.epochs = 2
  config.train.min_steps = 0
  config.train.log_every = 2
  config.train.checkpoint_every = 3
  config.localize.batch_size = 8
  return config
