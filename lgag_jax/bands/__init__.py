"""Adds bands to scenes: terrain from a DEM, and spectral indices.

May import: config, geo, imagery, options, runtime.
"""
