"""Findings become files: GeoJSON, OME-TIFF, tables; each written whole or not at all."""
