"""Gives labels to tiles by eye, in a browser or on contact sheets.

May import: config, evaluation, geo, imagery, method, options, runtime, tiling, trunks.
"""
