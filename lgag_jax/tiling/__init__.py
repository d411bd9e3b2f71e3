"""Scenes and an inventory to labelled tiles.

May import: config, geo, imagery, inputs, methods, options, runtime.
"""
