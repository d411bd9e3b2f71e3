"""From a trained network to score maps and masks.

May import: config, method, runtime, settings, state, trunks.
"""
