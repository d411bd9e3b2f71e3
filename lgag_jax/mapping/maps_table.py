"""Writes predictions.csv, the table of all maps in an output."""

import csv
import pathlib
from collections.abc import Sequence

from lgag_jax.imagery import tables
from lgag_jax.runtime import files


def rounded(area: float, decimals: int) -> float:
  """Rounds an area in square metres; an area of its own never becomes zero."""
  return round(area, decimals) or float(f"{area:.3g}")


def write(output: pathlib.Path, scenes: Sequence[dict]) -> dict[str, dict]:
  """Writes the table of what `output_folder.read_figures` returns; returns its rows by stem."""
  rows = {}
  for scene in scenes:
    row = {"file": scene["file"]}
    for name, values in scene["classes"].items():
      row |= {f"{name}_{key}": values[key] for key in ("probability", "share", "landslides")}
      areas = values["areas_m2"]
      row[f"{name}_area_m2"] = None if areas is None else rounded(sum(areas), 1)
      row[f"{name}_flat"] = values.get("flat")  # Earlier releases dropped none.
      row[f"{name}_threshold"] = values.get("threshold")
    row["no_data_share"] = round(scene["no_data_share"], 6)
    clouds = scene.get("clouds")  # Earlier releases hid none.
    row["cloud_share"] = round(clouds["clouded"], 6) if clouds else None
    rows[scene["stem"]] = row | {"path": scene.get("path", "")}  # Earlier releases recorded no path.
  if rows:
    path = output / "predictions.csv"
    with (
      files.atomic_path(path) as partial,
      partial.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
      writer = csv.writer(file)
      for row in (next(iter(rows.values())), *(row.values() for row in rows.values())):
        writer.writerow(map(tables.cell, row))
  return rows
