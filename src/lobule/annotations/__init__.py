"""Polygons and masks in and out: GeoJSON, ASAP, ImageScope, Halo, PNG and TIFF masks.

shapely, scipy, Pillow and tifffile are imported on use.
"""

from lobule.annotations.masks import read_mask
from lobule.annotations.outlines import polygons_from_mask
from lobule.annotations.raster import rasterize
from lobule.annotations.regions import Region, read_regions
from lobule.annotations.tissue_file import tissue_from_file

__all__ = ["Region", "polygons_from_mask", "rasterize", "read_mask", "read_regions", "tissue_from_file"]
