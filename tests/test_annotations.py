"""The tests check the annotations of the modules that conftest.py names: a wrong shape raises."""

import jax
import jax.numpy as jnp
import jaxtyping
import pytest

from lgag_jax.config import BankConfig, ModelConfig
from lgag_jax.evaluation import metrics
from lgag_jax.inference import refine
from lgag_jax.method import classifiers, gaa, head, losses, memory_bank, network, sol
from lgag_jax.trunks import attention, depthwise, efficientnet_lite, layers, resnet, vit, vit_positions
from tests.conftest import CHECKED_MODULES

ROW, BOX = jnp.zeros(3), jnp.zeros((2, 3, 3, 2))
ATTENTION = gaa.GlobalAnchorAggregation(1, residual=True)
WRONG_CALLS = {
  metrics: lambda: metrics.histogram_of(ROW),  # Not NumPy's.
  refine: lambda: refine.guided_filter(ROW, BOX, radius=1, epsilon=0.1),
  classifiers: lambda: classifiers.pool(ROW, ModelConfig()),
  gaa: lambda: ATTENTION.init(jax.random.key(0), BOX, ROW[None], jnp.array(True)),
  head: lambda: head._with_background(ROW),
  losses: lambda: losses.segmentation(BOX, BOX[..., 0], BOX[..., 0] > 0),  # Masks are integers.
  memory_bank: lambda: memory_bank.push(
    memory_bank.empty(BankConfig(), classes=2, dimension=3), BOX, jnp.ones((2, 2), bool)),
  network: lambda: network.depthwise_form(3, "cpu"),
  sol: lambda: sol.cosine_maps(jnp.zeros((2, 5, 4)), jnp.zeros((2, 3, 6))),  # Two widths D.
  attention: lambda: attention.attend(BOX, BOX, BOX[:1]),
  depthwise: lambda: depthwise.conv(ROW, BOX, stride=1, dilation=1),
  efficientnet_lite: lambda: efficientnet_lite.Stem(jnp.float32).init(jax.random.key(0), ROW),
  layers: lambda: layers.resize(ROW, (2, 2), antialias=True),
  resnet: lambda: resnet.Stem(jnp.float32).init(jax.random.key(0), ROW),
  vit: lambda: vit._pack(ROW, ROW),
  vit_positions: lambda: vit_positions.resize_positions(ROW, (2, 2), antialias=True),
}


@pytest.mark.parametrize("module", WRONG_CALLS, ids=lambda module: module.__name__)
def test_a_wrong_argument_raises(module):
  with pytest.raises(jaxtyping.TypeCheckError, match="Type-check error whilst checking the parameters"):
    WRONG_CALLS[module]()


def test_every_checked_module_has_a_wrong_call():
  assert {module.__name__ for module in WRONG_CALLS} == set(CHECKED_MODULES)
