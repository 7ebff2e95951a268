"""A slide opened with what the user says of its micrometers per pixel: one number for all, or a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lobule.geometry import Mpp
from lobule.slides import Slide, open_slide

__all__ = ["open_with_mpp"]


def open_with_mpp(path: Path, mpp: Mpp | Mapping[str, Mpp] | None) -> Slide:
    """Opens a slide. ``mpp``: for every slide, by file name (with or without its ending), or as the file says.

    A slide that states no mpp and is not in the table says so in its ``mpp_problem``. Raises as `open_slide` does.
    """
    given = mpp if mpp is None or isinstance(mpp, Mpp) else mpp.get(path.name) or mpp.get(path.stem)
    slide = open_slide(path, mpp=given, mpp_source="option" if isinstance(mpp, Mpp) else "csv")
    if mpp is not None and slide.properties.mpp is None:
        problem = slide.properties.mpp_problem or "no micrometers per pixel are known"
        missing = f"{problem}, and the table given with --mpp has no row for {path.name}"
        slide.properties = replace(slide.properties, mpp_problem=missing)
    return slide
