"""TIFFs whose colours are not red, green and blue: refused by name, or converted as viewers do."""

import numpy as np
import pytest
from PIL import Image

from lgag_jax.geo.scene import open_scene
from lgag_jax.imagery import reading
from lgag_jax.imagery.reading import ImageError
from tests.test_reading import pixels, write_tiff


@pytest.mark.parametrize(("options", "dtype", "space"), [
  ({"photometric": "CIELAB"}, np.uint8, "CIELAB"), ({"photometric": "CIELAB"}, np.uint16, "CIELAB"),
  ({"photometric": "CIELAB", "ENDIANNESS": "BIG"}, np.float32, "CIELAB"),
  ({"photometric": "ICCLAB", "BIGTIFF": "YES"}, np.uint16, r"ICC L\*a\*b\*"),
  ({"photometric": "ITULAB"}, np.uint8, r"ITU L\*a\*b\*"), ({"photometric": "CMYK"}, np.uint16, "CMYK"),
])
def test_colours_that_are_not_converted_are_refused_by_name(tmp_path, options, dtype, space):
  channels = 3 + (space == "CMYK")
  path = write_tiff(tmp_path / "a.tif", np.full((8, 8, channels), 100, dtype), **options)
  for read in (lambda: reading.read_image(path, channels), lambda: open_scene(path, channels)):
    with pytest.raises(ImageError, match=rf"a\.tif holds colours as {space},.*save it as RGB"):
      read()


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "RGB"])
def test_colours_that_are_converted_are_read(tmp_path, mode):
  image = Image.fromarray(pixels(8, 8)).convert(mode)
  image.save(tmp_path / "a.tif")
  expected = np.asarray(image.convert("RGB"), int)
  np.testing.assert_allclose(reading.read_image(tmp_path / "a.tif", 3), expected, atol=2)
