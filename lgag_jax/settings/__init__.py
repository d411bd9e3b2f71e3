"""The groups of the config as frozen dataclasses, checked when they are built.

May import: nothing of the package.
"""
