"""Processes, devices, files, locks and signals.

May import: state.
"""
