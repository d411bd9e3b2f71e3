"""Scenes of any size to rasters, polygons and pages.

May import: config, evaluation, geo, imagery, inference, method, options, pages, runtime, state,
training, trunks.
"""
