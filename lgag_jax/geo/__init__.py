"""Scenes: georeferenced rasters read by windows, maps of them written for a GIS."""
