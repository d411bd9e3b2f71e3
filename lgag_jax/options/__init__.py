"""The flags of each mode as frozen dataclasses, checked when they are built.

May import: nothing of the package.
"""
