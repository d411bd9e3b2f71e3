"""Checks the data before training and reports problems in words.

May import: config, evaluation, imagery, inference, inputs, method, methods, runtime, training.
"""
