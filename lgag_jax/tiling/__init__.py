"""Cuts scenes into tiles labelled by an inventory of landslides.

May import: config, geo, imagery, inputs, options, runtime.
"""
