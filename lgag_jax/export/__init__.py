"""Writes a trained network for use elsewhere: StableHLO, ONNX or a model directory.

May import: config, geo, inference, mapping, method, options, runtime, training.
"""
