"""The training loop and what it keeps: checkpoints, logs, model directories.

May import: config, evaluation, geo, imagery, inference, inputs, method, methods, pages, runtime,
state, trunks.
"""
