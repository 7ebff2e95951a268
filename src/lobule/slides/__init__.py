"""Slides in, pixels out: readers, resolution, regions. Importing this loads no reader."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lobule.slides.array_slide import ArraySlide
    from lobule.slides.opening import open_slide
    from lobule.slides.region import choose_level, read_mirrored, read_overview, read_region, working_frame
    from lobule.slides.resolution import read_mpp_csv, require_mpp
    from lobule.slides.slide import Level, RgbImage, Slide, SlideProperties

_HOME = {
    "ArraySlide": "array_slide",
    "Level": "slide",
    "RgbImage": "slide",
    "Slide": "slide",
    "SlideProperties": "slide",
    "choose_level": "region",
    "open_slide": "opening",
    "read_mpp_csv": "resolution",
    "read_overview": "region",
    "read_mirrored": "region",
    "read_region": "region",
    "require_mpp": "resolution",
    "working_frame": "region",
}

__all__ = [
    "ArraySlide",
    "Level",
    "RgbImage",
    "Slide",
    "SlideProperties",
    "choose_level",
    "open_slide",
    "read_mirrored",
    "read_mpp_csv",
    "read_overview",
    "read_region",
    "require_mpp",
    "working_frame",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lobule.slides' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"lobule.slides.{_HOME[name]}"), name)
