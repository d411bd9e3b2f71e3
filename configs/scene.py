"""One or a few large scenes with masks, cut into tiles and split by blocks with a distance between.

data.directory holds images/ and masks/ of the same names. In source pixels: choose data.tile_size so
that a tile shows a landslide and what is around it; data.block_buffer at least as far as terrain looks
the same, a large landslide's length; data.block_size a multiple of the tile's, such that there are
twenty blocks or more. A buffer costs every training tile that it touches, a ring around each validation
block: these sizes leave 57% of a large scene's tiles for training, blocks of 512 only 23%, of 2048 70%.

For tiles that landslides fill by a third or so. Where they are small, maps come out far too large: then
--config.model.top_fraction=0.08 --config.localize.threshold_rule=argmax.
"""

import ml_collections

from lgag_jax import methods
from lgag_jax.config import config_dict


def get_config(method: str = "lgag") -> ml_collections.ConfigDict:
  config = config_dict()
  config.data.source = "patches"
  config.data.tile_size = 256
  config.data.block_size = 1024
  config.data.block_buffer = 128
  config.update_from_flattened_dict(methods.CLOSE_UP)
  return methods.apply(config, method)
