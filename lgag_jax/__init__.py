"""Landslide maps learned from image-level labels.

Axis letters used throughout: B images; H, W pixels; h, w cells of the feature grid, N = h * w; C
foreground classes, K = C + 1 with background at 0; D anchor dimension; L slots of the memory bank
a class; M global anchors a class.
"""

__version__ = "0.1.0"
