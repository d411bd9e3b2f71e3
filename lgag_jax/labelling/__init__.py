"""Gives labels to tiles by eye, in a browser or on contact sheets.

May import: geo, imagery, options, runtime, tiling.
"""
