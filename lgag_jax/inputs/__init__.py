"""Turns data on disk into batches: sources, splits, normalisation, pipelines.

May import: config, geo, imagery, options, runtime.
"""
