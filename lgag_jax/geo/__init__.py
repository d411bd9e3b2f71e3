"""Georeferenced scenes: grids, windows, reference vectors and rasters.

May import: config, imagery, runtime.
"""
