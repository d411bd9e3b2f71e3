"""Maps scenes of any size: writes rasters, polygons and a page, and compares maps with references.

May import: config, evaluation, geo, imagery, inference, method, options, pages, runtime, state, tiling,
training, trunks.
"""
