"""Looks at the data before training and says in words what is wrong.

May import: config, imagery, inference, inputs, method, methods, pages, runtime, training.
"""
