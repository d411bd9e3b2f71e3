"""HTML pages and Markdown texts, filled from templates.

May import: nothing of the package.
"""
