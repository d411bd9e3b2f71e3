"""Metrics, label-free thresholds, diagnosis and the report.

May import: config, imagery, inference, inputs, method, pages, runtime, settings, state, trunks.
"""
