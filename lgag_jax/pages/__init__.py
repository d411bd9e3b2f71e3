"""HTML pages, QGIS styles and Markdown texts, filled from templates.

May import: runtime.
"""
