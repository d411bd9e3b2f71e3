"""From data on disk to batches: sources, splits, normalisation, pipelines.

May import: config, imagery, options, runtime.
"""
