"""The network for use without this package: StableHLO, ONNX, a model directory.

May import: config, geo, inference, mapping, method, options, runtime, training.
"""
