"""Findings become a page: one self-contained HTML file with pictures, tables and what to be wary of."""

from lobule.report.evidence import Areas, Evidence, GalleryNucleus, GalleryRow, NucleiSample
from lobule.report.page import Drawn, draw, page_template, write_report

__all__ = [
    "Areas",
    "Drawn",
    "Evidence",
    "GalleryNucleus",
    "GalleryRow",
    "NucleiSample",
    "draw",
    "page_template",
    "write_report",
]
