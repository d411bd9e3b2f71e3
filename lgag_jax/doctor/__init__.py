"""Looks at the data before training and says in words what is wrong.

May import: config, evaluation, imagery, inference, inputs, method, methods, runtime, training.
"""
