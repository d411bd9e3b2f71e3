"""Window as this project uses it, in whole pixels.

rasterio declares its fields in a form of attrs that pyright does not read.
"""

class Window:
  col_off: int
  row_off: int
  width: int
  height: int

  def __init__(self, col_off: int, row_off: int, width: int, height: int) -> None: ...
