"""Pretrained feature extractors and the readers of their weight files.

May import: runtime.
"""
