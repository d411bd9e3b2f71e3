"""Opens image files, and reads, scales and lists them.

May import: config.
"""
