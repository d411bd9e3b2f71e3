"""Checks the data before training and reports problems in words.

May import: config, imagery, inputs, method, pages, runtime, training.
"""
