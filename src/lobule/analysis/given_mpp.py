"""A slide opened with what the user says of its micrometers per pixel: one number for all, or a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lobule.analysis.results import name_of
from lobule.geometry import Mpp
from lobule.slides import Slide, open_slide

__all__ = ["open_with_mpp", "rows_of_no_slide"]


def open_with_mpp(path: Path, mpp: Mpp | Mapping[str, Mpp] | None) -> Slide:
    """Opens a slide. ``mpp``: for every slide, by file name (with or without its ending), or as the file says.

    A slide that states no mpp and is not in the table says so in its ``mpp_problem``. Raises as `open_slide` does.
    """
    if mpp is None or isinstance(mpp, Mpp):
        given = mpp
    else:
        given = next((mpp[name] for name in _names(path) if name in mpp), None)
    slide = open_slide(path, mpp=given, mpp_source="option" if isinstance(mpp, Mpp) else "csv")
    if mpp is not None and slide.properties.mpp is None:
        problem = slide.properties.mpp_problem or "no micrometers per pixel are known"
        missing = f"{problem}, and the table given with --mpp has no row for {path.name}"
        slide.properties = replace(slide.properties, mpp_problem=missing)
    return slide


def rows_of_no_slide(slides: Sequence[Path], mpp: Mpp | Mapping[str, Mpp] | None) -> str | None:
    """A line that names the table's rows that none of the slides has, for one may be misspelled; None without any."""
    if mpp is None or isinstance(mpp, Mpp):
        return None
    known = {name for slide in slides for name in _names(slide)}
    rows = [name for name in mpp if name not in known]
    if not rows:
        return None
    more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
    return f"no slide here is called as these rows of the table given with --mpp: {', '.join(rows[:3])}{more}"


def _names(path: Path) -> tuple[str, ...]:
    """What a table may call the slide: by its place, with its ending or without."""
    return str(path.resolve()), path.name, path.stem, name_of(path)
