"""Checks the data before training and reports problems in words.

May import: config, geo, imagery, inputs, method, pages, runtime, training.
"""
