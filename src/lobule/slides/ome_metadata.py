"""What the OME-XML in a TIFF's first description says of the first image."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lobule.slides.resolution import magnification, parse_number

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

__all__ = ["OmeImage", "read_ome_image"]

UNIT_UM = {
    "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "dm": 1e5, "m": 1e6,
    "km": 1e9, "pm": 1e-6, "Å": 1e-4, "in": 25_400.0, "ft": 304_800.0, "pt": 25_400.0 / 72,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class OmeImage:
    """Pixels of the first image. ``size_um``: per pixel along x and y as stated (may be nonsense) or None."""

    size_um: tuple[float | None, float | None]
    unit_problem: str | None
    planes_c: int
    planes_z: int
    planes_t: int
    objective_power: float | None
    images: int
    """How many images the file holds."""


def read_ome_image(description: str) -> OmeImage | None:
    """Parses OME-XML; None if the text is none or is damaged."""
    if "<OME" not in description or "<!DOCTYPE" in description or "<!ENTITY" in description:
        return None
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(description.strip().encode("utf-8"))
    except (ElementTree.ParseError, ValueError):
        return None
    for element in root.iter():
        element.tag = re.sub(r"^\{.*\}", "", str(element.tag))
    image = root.find("./Image[Pixels]")
    pixels = None if image is None else image.find("Pixels")
    if image is None or pixels is None:
        return None
    sizes: list[float | None] = []
    problem = None
    for axis in ("X", "Y"):
        size = parse_number(pixels.get(f"PhysicalSize{axis}"))
        unit = pixels.get(f"PhysicalSize{axis}Unit", "µm")
        if size is not None and unit not in UNIT_UM:
            problem = f"the file's pixel size is {size:g} {unit!r}, which is no length"
            size = None
        sizes.append(None if size is None else size * UNIT_UM[unit])
    channels = [
        parse_number(channel.get("SamplesPerPixel", "1")) or 1 for channel in pixels.findall("Channel")
    ]
    size_c = _count(pixels.get("SizeC"))
    planes_c = len(channels) if channels and sum(channels) == size_c else max(1, size_c // _first(channels))
    return OmeImage(
        size_um=(sizes[0], sizes[1]),
        unit_problem=problem,
        planes_c=planes_c,
        planes_z=_count(pixels.get("SizeZ")),
        planes_t=_count(pixels.get("SizeT")),
        objective_power=magnification(_magnification(root, image)),
        images=len(root.findall("./Image[Pixels]")),
    )


def _magnification(root: Element, image: Element) -> str | None:
    """What the file states of the objective that took the image; None where it does not say which did."""
    objectives = root.findall("./Instrument/Objective")
    settings = image.find("ObjectiveSettings")
    if settings is not None:
        # the others are on the turret, but not in the light
        objectives = [one for one in objectives if one.get("ID") == settings.get("ID")]
    return objectives[0].get("NominalMagnification") if len(objectives) == 1 else None


def _count(text: str | None) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 9 else 1


def _first(channels: list[float]) -> int:
    return max(1, int(channels[0])) if channels else 1
