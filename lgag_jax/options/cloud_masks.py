"""The flags that name the cloud masks of scenes, which several modes share."""

from typing import Any

from lgag_jax.options.fields import require

AUTO = "auto"
KINDS = ("scl", "qa_pixel", "mask")
FILES = (
  "the cloud masks of the scenes: one file for all scenes, or a folder or glob of files with the "
  "scenes' names. Sentinel-2's SCL, Landsat's QA_PIXEL (Collection 2), or a mask in which 1 is cloud. "
  "Any grid and CRS. Clouds and their shadows count as nodata.")
KIND = (
  "with --clouds, what the files hold: scl, qa_pixel or mask. auto: their values decide, and lgag asks "
  "where they could mean two things.")


def check(options: Any) -> None:
  """Raises ValueError naming a flag of `options` that is invalid, or needs another one."""
  require(options.cloud_kind in (AUTO, *KINDS), options, "cloud_kind", f"{AUTO}, {', '.join(KINDS)}")
  if options.cloud_kind != AUTO and not options.clouds:
    raise ValueError(f"--cloud_kind={options.cloud_kind} needs --clouds, the files that it describes.")
