"""Micrometers per pixel: what a file says, whether to believe it, and what the user says instead.

A wrong mpp makes every area and every length wrong without anything looking wrong, so a statement is believed
only where it is possible for a tissue scan; otherwise ``mpp`` is None and ``mpp_problem`` says why. The
magnification is never turned into mpp; it only serves to catch a statement that contradicts it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lobule.errors import ConfigurationError, MissingResolutionError
from lobule.geometry import Mpp
from lobule.slides.slide import MppSource, Slide, SlideProperties
from lobule.spreadsheet import read_sheet

__all__ = [
    "MPP_RANGE",
    "GivenMpp",
    "Resolution",
    "judge_mpp",
    "magnification",
    "mpp_from_option",
    "mpp_from_resolution_tag",
    "parse_number",
    "read_mpp_csv",
    "require_mpp",
    "with_given_mpp",
]

MPP_RANGE = (0.05, 10.0)
"""Believable µm/px of a tissue scan: no objective resolves finer, no slide scanner works coarser."""

GIVEN_RANGE = (0.01, 100.0)
"""What a user may state; outside it is a slip of the keyboard."""

LARGEST_GLASS_UM = 250_000.0
"""No glass slide is longer than 25 cm."""

_GIVE_IT = "if areas look wrong give the right one with --mpp"

TIMES_MPP = 10.0
"""Scanners show about 10 µm/px divided by the objective power: 20x 0.5, 40x 0.25."""


GivenMpp = Mpp | float | tuple[float, float] | list[float]
"""µm/px as a user may state them: along x and y, or one number for both."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """What is believed of a slide's resolution."""

    mpp: Mpp | None
    source: MppSource | None
    problem: str | None
    warnings: tuple[str, ...] = ()


def parse_number(text: object) -> float | None:
    """A number as vendors write it (``0.25``, ``0,25``), None where it is none. May be nan or inf."""
    if text is None:
        return None
    if isinstance(text, (int, float)):
        return float(text)
    cleaned = str(text).strip().strip("\0")
    if "," in cleaned and "." not in cleaned:
        cleaned = cleaned.replace(",", ".", 1)
    if "_" in cleaned:  # Python's float() takes 1_0; no scanner writes that
        return None
    try:
        return float(cleaned)
    except ValueError:
        return None


def _show(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.6g}"


def magnification(value: object) -> float | None:
    """An objective's power as a file states it; None where that is no power."""
    power = parse_number(value)
    return power if power is not None and math.isfinite(power) and power > 0 else None


def judge_mpp(
    x: object,
    y: object,
    source: MppSource,
    *,
    size: tuple[int, int] | None = None,
    objective_power: float | None = None,
) -> Resolution:
    """Whether the file's µm/px along x and y are believable.

    ``size``: level-0 (width, height), which must fit on glass. ``objective_power`` must not contradict them
    by three-fold or more (a slipped decimal point is ten-fold).
    """
    mx, my = parse_number(x), parse_number(y)
    if mx is None and my is None:
        if x is None and y is None:
            return Resolution(None, None, "the file states no micrometers per pixel")
        return Resolution(None, None, f"the file's mpp is not a number: {x!r} x {y!r}")
    stated = f"the file states {_show(mx)} x {_show(my)} µm/px"
    if source == "resolution-tag":
        stated = f"the file's print resolution amounts to {_show(mx)} x {_show(my)} µm/px"
    if mx is None or my is None:
        return Resolution(None, None, f"{stated}: one axis is missing")
    low, high = MPP_RANGE
    for value in (mx, my):
        if not math.isfinite(value) or value <= 0:
            return Resolution(None, None, f"{stated}, which is not a size")
        if not low <= value <= high:
            return Resolution(
                None, None, f"{stated}, which no tissue scan has (believable: {low:g} to {high:g})"
            )
    if max(mx, my) / min(mx, my) > 4.0:
        return Resolution(None, None, f"{stated}: the axes differ more than four-fold")
    if size is not None and max(size[0] * mx, size[1] * my) > LARGEST_GLASS_UM:
        longest_cm = max(size[0] * mx, size[1] * my) / 10_000
        return Resolution(None, None, f"{stated}: the slide would be {longest_cm:.0f} cm long")
    warnings: tuple[str, ...] = ()
    mpp = Mpp(mx, my)
    if (power := magnification(objective_power)) is not None:
        off = mpp.mean * power / TIMES_MPP
        if not 1 / 3 < off < 3:
            return Resolution(None, None, f"{stated} but an objective of {power:g}x; one of the two is wrong")
        if not 0.45 < off < 1.8:
            warnings = (f"{stated}, unusual for an objective of {power:g}x; {_GIVE_IT}",)
    return Resolution(mpp, source, None, warnings)


UNIT_UM: Mapping[str, float] = {"inch": 25_400.0, "centimeter": 10_000.0, "micrometer": 1.0}
"""µm in the unit of a resolution tag."""


def mpp_from_resolution_tag(
    x_per_unit: float | None,
    y_per_unit: float | None,
    unit: str | None,
    *,
    size: tuple[int, int] | None = None,
) -> Resolution:
    """Judges pixels per ``unit`` (inch, centimeter, micrometer; None: no unit) of a TIFF, PNG or JPEG."""
    if x_per_unit is None and y_per_unit is None:
        return judge_mpp(None, None, "resolution-tag")
    if unit is None:
        return Resolution(
            None, None, "the file states no micrometers per pixel (its resolution tag has no unit)"
        )
    um = UNIT_UM[unit]

    def per_pixel(value: float | None) -> float | None:
        if value is None:
            return None
        return um / value if value else math.inf

    return judge_mpp(per_pixel(x_per_unit), per_pixel(y_per_unit), "resolution-tag", size=size)


def mpp_from_option(value: GivenMpp, option: str = "--mpp") -> Mpp:
    """The user's mpp, a pair (x, y) or one number for both axes. Raises ConfigurationError."""
    low, high = GIVEN_RANGE
    if not isinstance(value, Mpp):
        try:
            x, y = map(float, value if isinstance(value, (tuple, list)) else (value, value))
            value = Mpp(x, y)
        except (TypeError, ValueError, OverflowError) as error:
            raise ConfigurationError(
                option,
                value,
                "micrometers per pixel are finite and positive: one number, such as 0.25, or a pair",
            ) from error
    if not (low <= value.x <= high and low <= value.y <= high):
        shown = value.x if value.x == value.y else (value.x, value.y)
        raise ConfigurationError(option, shown, f"micrometers per pixel lie between {low:g} and {high:g}")
    return value


def with_given_mpp(properties: SlideProperties, given: Mpp, source: MppSource) -> SlideProperties:
    """The properties with the user's mpp in place of the file's, and a warning if they differ by > 10 %."""
    warnings = tuple(line for line in properties.warnings if not line.endswith(_GIVE_IT))
    own = properties.mpp
    if own is not None:
        off = max(given.x / own.x, own.x / given.x, given.y / own.y, own.y / given.y)
        if off > 1.1:
            warnings = (
                *warnings,
                f"the given mpp {given.x:g} x {given.y:g} overrides the file's {own.x:g} x {own.y:g}",
            )
    return replace(properties, mpp=given, mpp_source=source, mpp_problem=None, warnings=warnings)


def require_mpp(slide: Slide) -> Mpp:
    """The slide's mpp. Raises MissingResolutionError that tells how to give it."""
    if slide.properties.mpp is None:
        problem = slide.properties.mpp_problem or "no micrometers per pixel are known"
        raise MissingResolutionError(
            slide.path, f"{problem}; give them with --mpp 0.25 or in a CSV with columns slide,mpp"
        )
    return slide.properties.mpp


def read_mpp_csv(path: Path, option: str = "--mpp-csv") -> dict[str, Mpp]:
    """Reads a table ``slide,mpp`` (or ``slide,mpp_x,mpp_y``): slide name → mpp.

    Comma, semicolon or tab separated, with or without BOM, decimal point or comma. A name is kept as it is
    written; one with folders becomes the whole path of the file that it leads to, from the table or from here.
    Raises ConfigurationError that names the line.
    """
    try:
        sheet = read_sheet(path)
    except ValueError as error:
        raise ConfigurationError(option, str(path), str(error)) from error
    held = sheet.columns
    if not held:
        raise ConfigurationError(option, str(path), "the file is empty; it needs columns slide,mpp")
    if "slide" not in held or not ("mpp" in held or {"mpp_x", "mpp_y"} <= set(held)):
        raise ConfigurationError(
            option,
            str(path),
            f"line 1 must name columns slide,mpp (or slide,mpp_x,mpp_y), not {', '.join(held)}",
        )
    columns = ("mpp", "mpp") if "mpp" in held else ("mpp_x", "mpp_y")
    table: dict[str, Mpp] = {}
    for line, row in sheet.rows:
        where = f"{path.name} line {line}"
        name = row["slide"]
        if not name:
            raise ConfigurationError(option, where, "the slide's name is empty")
        if Path(name).name != name:
            led_to = (folder / name for folder in (path.parent, Path()))
            name = next((str(file.resolve()) for file in led_to if file.exists()), name)
        x, y = (parse_number(row[column]) for column in columns)
        if x is None or y is None or not (math.isfinite(x) and math.isfinite(y) and x > 0 and y > 0):
            raise ConfigurationError(option, where, f"{list(row.values())} holds no positive mpp")
        mpp = mpp_from_option(Mpp(x, y), f"{option} {where}")
        if table.setdefault(name, mpp) != mpp:
            raise ConfigurationError(option, where, f"{name} is listed twice with different mpp")
    return table
