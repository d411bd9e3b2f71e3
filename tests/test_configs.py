"""The config files: each builds, and has the size that the table says."""

import itertools
import pathlib

import pytest

from benchmarks import cost
from lgag_jax import config as configs
from lgag_jax import methods

# Parameters, trunk included. A config without a row fails.
PARAMETERS = {
  "image_folder": 3_295_346,
  "landslide4sense_rgb": 3_295_346,
  "lgagnet_resnet50": 27_938_369,
  "scene": 3_295_346,
  "synthetic_landslides": 3_295_346,
  "image_folder_stage2": 3_221_953,
  "landslide4sense_rgb_stage2": 3_221_953,
  "synthetic_landslides_stage2": 3_221_953,
  "bijie": 3_295_346,
  "gvlm": 3_295_346,
  "landslide4sense": 3_298_514,
  "cas_landslide": 3_295_346,
  "hr_gldd": 3_295_634,
  "synthetic_classes": 3_295_958,
  "synthetic_pairs": 3_731_426,
  "image_folder:lgag": 3_295_346,
  "image_folder:sol": 3_170_561,
  "image_folder:class_activation": 3_170_561,
  "image_folder:segmentation": 3_221_953,
  "image_folder:lgagnet": 6_621_505,
  "image_folder:lgagnet_sol": 3_077_952,
  "image_folder:lgagnet_class_activation": 2_959_168,
}


@pytest.fixture(scope="module")
def named():
  return cost.named_configs()


def test_every_config_has_a_row(named):
  files = {path.stem for path in pathlib.Path(cost.__file__).parent.parent.glob("configs/*.py")}
  assert files - {"methods"} == set(cost.DATA_SETS)
  assert set(named) == set(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count(named, name):
  assert cost.parameters(named[name]) == PARAMETERS[name]


def test_unknown_method_is_refused():
  with pytest.raises(ValueError, match="There are lgag"):
    methods.apply(configs.config_dict(), "lgak")


def test_published_setting():
  config = cost.published("lgagnet")
  assert (config.model.trunk, config.data.image_size, config.train.batch_size) == ("resnet50", 256, 32)
  assert (config.optim.name, config.train.epochs) == ("sgd", 15)
  assert (config.optim.learning_rate, config.optim.new_multiplier) == (0.1, 10.0)


def test_sol_memory_grows_with_the_pixels():
  sizes = [cost.sol_temp_bytes(side) for side in (16, 32, 64)]
  assert all(larger <= 4.4 * smaller for smaller, larger in itertools.pairwise(sizes))
