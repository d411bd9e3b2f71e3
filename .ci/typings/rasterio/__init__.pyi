"""The rest of rasterio is compiled and has no types."""

from typing import Any

def __getattr__(name: str) -> Any: ...
