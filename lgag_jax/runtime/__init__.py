"""Processes, devices, files, locks, signals, archives and downloads.

May import: state.
"""
