"""The published setting: ResNet-50, patches of 256, batches of 32, SGD, 15 epochs.

Download torchvision's weights of ResNet-50 and name the file with
--config.model.weights=resnet50.pth (or .safetensors, .npz).
"""


from typing import Any

from lgag_jax import methods
from lgag_jax.config import config_dict


def get_config(method: str = "lgagnet") -> Any:
  config = config_dict()
  config.data.source = "folder"
  config.data.image_size = 256
  config.data.augment = "image"
  config.model.trunk = "resnet50"
  config.model.first_trainable_stage = 1
  config.train.batch_size = 32
  config.train.epochs = 15
  config.train.min_steps = 0
  config.optim.name = "sgd"
  config.optim.learning_rate = 0.1
  config.optim.new_multiplier = 10.0
  config.optim.momentum = 0.0
  config.optim.weight_decay = 1e-4
  config.optim.clip_norm = 1.0
  config.optim.decay_power = 0.9
  return methods.apply(config, method)
