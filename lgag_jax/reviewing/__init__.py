"""Reviews maps in a browser: accepts, rejects and corrects their polygons, and draws what is missing.

May import: geo, imagery, labelling, mapping, options, runtime, tiling.
"""
