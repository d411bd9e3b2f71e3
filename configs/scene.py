"""One or a few large scenes with masks, cut into tiles and split by blocks with a distance between.

data.directory contains images/ and masks/ with files of the same names. Choose, in source pixels:

- data.tile_size, so that a tile shows a landslide and its surroundings;
- data.block_buffer, at least as long as a large landslide, so that terrain no longer looks alike;
- data.block_size, a multiple of the tile size, so that there are at least twenty blocks.

The buffer removes every training tile that it touches, a ring around each validation block. These sizes
leave 57 % of a large scene's tiles for training; blocks of 512 leave 23 %, blocks of 2048 leave 70 %.
"""


from typing import Any

from lgag_jax import methods
from lgag_jax.config import config_dict


def get_config(method: str = "lgag") -> Any:
  config = config_dict()
  config.data.source = "patches"
  config.data.tile_size = 256
  config.data.block_size = 1024
  config.data.block_buffer = 128
  return methods.apply(config, method)
