"""Gives labels to tiles by eye, in a browser or on contact sheets.

May import: config, evaluation, geo, imagery, mapping, method, options, runtime, tiling, trunks.
"""
