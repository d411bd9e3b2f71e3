"""Opens, reads, scales and lists image files.

May import: config.
"""
