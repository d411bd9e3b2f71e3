"""The paper on one shelf: SOL, GAA, memory bank, losses, head and network.

May import: config, imagery, methods, settings, state, trunks.
"""
