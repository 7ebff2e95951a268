"""TIFF slides that OpenSlide does not read, or not rightly: OME-TIFF, strips, sub-directories, odd pixels."""

from __future__ import annotations

from pathlib import Path

from lobule.errors import SlideReadError, UnsupportedSlideError
from lobule.slides.levels import build_levels, read_clipped
from lobule.slides.ome_metadata import OmeImage, read_ome_image
from lobule.slides.orientation import TURNS, Turn
from lobule.slides.resolution import Resolution, judge_mpp, mpp_from_resolution_tag
from lobule.slides.slide import RgbImage, Slide, SlideProperties
from lobule.slides.tiff_levels import SegmentCache, StoredLevel
from lobule.slides.tiff_pixels import COMPRESSIONS, PixelPlan, UnsuitablePixels, plan_pixels
from lobule.slides.tiff_structure import (
    ByteFile,
    Directory,
    TiffStructure,
    is_tiff,
    read_tiff_structure,
)

NAME = "tiff"
READS_VENDORS = False


def detect(path: Path, head: bytes) -> str | None:
    """None for a TIFF or BigTIFF, else why it declines. Never raises."""
    return None if is_tiff(head) else "not a TIFF"


def open(path: Path, head: bytes) -> Slide:
    """Reads the directories and one pixel. Raises UnsupportedSlideError, SlideReadError."""
    return TiffSlide(path)


class TiffSlide(Slide):
    """A TIFF read with our own structure parser and imagecodecs."""

    thread_safe = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = ByteFile(path)
        self._cache = SegmentCache()
        self._closed = False
        try:
            structure = read_tiff_structure(self._file)
            self._describe(structure)
            width, height = self.size
            for corner in {(0, 0), (width - 1, height - 1)}:
                self.read_level(0, corner, (1, 1))
        except (SlideReadError, UnsupportedSlideError):
            self.close()
            raise

    def _describe(self, structure: TiffStructure) -> None:
        first = structure.chain[0]
        if first.lost & {256, 257, 258, 262, 273, 279, 324, 325, 347}:
            raise SlideReadError(
                self.path, "the file is cut short or damaged: a tag it needs lies beyond its end"
            )
        try:
            plan = plan_pixels(first, structure.byte_order)
        except UnsuitablePixels as error:
            raise UnsupportedSlideError(self.path, f"the TIFF cannot be used as a slide: {error}") from error
        ome = read_ome_image(first.description)
        notes = list(plan.notes)
        self._refuse_channels(structure, plan, ome, notes)
        self._refuse_larger(structure, plan)
        orientation = first.integer(274, 1)
        self._turn = TURNS.get(orientation, TURNS[1])
        if self._turn != TURNS[1]:
            notes.append(f"the picture was turned upright (orientation tag {orientation})")
        candidates = [(first, plan), *_reduced(structure, plan, alone=ome is None or ome.images == 1)]
        sizes = [self._turn.size(directory.size) for directory, _ in candidates]
        tiles = [
            # strips that were turned upright stand: not rows of them but columns are decoded once
            self._turn.size((each.segment_width, each.segment_height))
            if each.tiled or self._turn.swap
            else None
            for _, each in candidates
        ]
        self.levels, kept = build_levels(sizes, tiles)
        self._stored = [StoredLevel(self._file, *candidates[index]) for index in kept]
        resolution = _resolution(first, ome, self._turn, sizes[0])
        self.properties = SlideProperties(
            format="ome-tiff" if ome is not None else "tiff",
            reader=NAME,
            mpp=resolution.mpp,
            mpp_source=resolution.source,
            mpp_problem=resolution.problem,
            objective_power=None if ome is None else ome.objective_power,
            icc_profile=first.data(34675),
            warnings=(*notes, *resolution.warnings),
            raw={
                "tiff.ImageDescription": first.description[:10_000],
                "tiff.Compression": COMPRESSIONS[plan.compression],
                "tiff.Software": first.text(305)[:1000],
            },
        )

    def _refuse_channels(
        self, structure: TiffStructure, plan: PixelPlan, ome: OmeImage | None, notes: list[str]
    ) -> None:
        alike = sum(directory.size == (plan.width, plan.height) for directory in structure.chain)
        channels = ome.planes_c if ome is not None else alike
        if plan.samples == 1 and channels > 1:
            raise UnsupportedSlideError(
                self.path,
                f"the TIFF holds {channels} gray channels (fluorescence?), not an H&E picture in RGB",
            )
        if ome is not None and max(ome.planes_z, ome.planes_t) > 1:
            notes.append(f"only the first of {ome.planes_z} depths and {ome.planes_t} times is used")
        elif alike > 1:
            notes.append(f"only the first of {alike} pictures of one size in the file is used")

    def _refuse_larger(self, structure: TiffStructure, plan: PixelPlan) -> None:
        """A larger picture behind the first: the first is a label, a macro photograph or a reduced copy."""
        for directory in structure.chain[1:]:
            width, height = directory.size
            if width * height <= plan.width * plan.height:
                continue
            try:
                plan_pixels(directory, structure.byte_order)
            except UnsuitablePixels:
                continue
            raise UnsupportedSlideError(
                self.path,
                f"the TIFF's first picture, {plan.width} x {plan.height} px, is smaller than a later one, "
                f"{width} x {height} px: which is the slide is not said; save the slide's picture first or alone",
            )

    @property
    def seconds_in_file(self) -> float:
        """See Slide."""
        return self._file.seconds

    def read_level(self, level: int, origin: tuple[int, int], size: tuple[int, int]) -> RgbImage:
        if self._closed:
            raise SlideReadError(self.path, "the slide is closed")
        stored, upright = self._stored[level], self.levels[level].size
        background = self.properties.background

        def read(corner: tuple[int, int], extent: tuple[int, int]) -> RgbImage:
            pixels = stored.read(*self._turn.place(upright, corner, extent), self._cache, background)
            return self._turn.apply(pixels).copy() if self._turn != TURNS[1] else pixels

        return read_clipped(upright, origin, size, background, read)

    def read_means(
        self, level: int, first: tuple[int, int], size: tuple[int, int], factor: tuple[int, int]
    ) -> RgbImage | None:
        if self._closed:
            raise SlideReadError(self.path, "the slide is closed")
        if self._turn != TURNS[1]:
            return None
        return self._stored[level].read_means(first, size, factor, self._cache, self.properties.background)

    def close(self) -> None:
        self._closed = True
        self._cache.clear()
        self._file.close()


def _reduced(structure: TiffStructure, plan: PixelPlan, *, alone: bool) -> list[tuple[Directory, PixelPlan]]:
    """The smaller copies of the first picture: its sub-directories, else later pages of the chain.

    A later page counts only if it is marked as a reduced copy or, where the file does not say that it holds other
    pictures than the first (``alone``), a whole number of times smaller: other pages are labels, macro photographs
    or pictures of their own.
    """
    below = structure.children[0]
    found: list[tuple[Directory, PixelPlan]] = []
    for directory in below or structure.chain[1:]:
        try:
            other = plan_pixels(directory, structure.byte_order)
        except UnsuitablePixels:
            continue
        if other.samples != plan.samples or other.dtype != plan.dtype or not min(directory.size):
            continue
        levels, _ = build_levels([(plan.width, plan.height), directory.size])
        if len(levels) < 2:
            continue
        whole = alone and levels[1].downsample[0] == int(levels[1].downsample[0])
        if below or whole or directory.integer(254, 0) & 1:
            found.append((directory, other))
    return found


def _resolution(first: Directory, ome: OmeImage | None, turn: Turn, size: tuple[int, int]) -> Resolution:
    """OME-XML first, then ImageJ's unit, then the resolution tags; axes as they stand upright."""
    if ome is not None:
        x, y = ome.size_um
        if ome.unit_problem:
            return Resolution(None, None, ome.unit_problem)
        if x is not None or y is not None:
            if turn.swap:
                x, y = y, x
            return judge_mpp(x, y, "file", size=size, objective_power=ome.objective_power)
    per_x, per_y = first.rational(282), first.rational(283)
    if turn.swap:
        per_x, per_y = per_y, per_x
    unit = {2: "inch", 3: "centimeter"}.get(first.integer(296, 2))
    if first.description.startswith("ImageJ="):
        lines = dict(line.split("=", 1) for line in first.description.splitlines() if "=" in line)
        if lines.get("unit", "").replace("\\u00B5", "µ") in ("micron", "µm", "um", "microns", "μm"):
            unit = "micrometer"
    return mpp_from_resolution_tag(per_x, per_y, unit, size=size)
