"""Finds the images of an area in STAC catalogues, lists and folders, and reads them on a common grid.

May import: geo, imagery, options, runtime.
"""
