"""One file of a training field: its picture, its mask, its label map or its outlines, checked.

Whatever is wrong with a file is an AnnotationError of one line: which file, what is in it, what to do. Nothing is
mended in silence: what was repaired or left out is told to ``tell``, one word group a case.
"""

from __future__ import annotations

import struct
import tokenize
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lobule.annotations import Region, rasterize, read_regions
from lobule.errors import AnnotationError
from lobule.geometry import Mpp, WorkingFrame

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["components", "read_binary_mask", "read_label_map", "read_outlines", "read_pixels"]

Tell = Callable[[str], None]

_MOST_PIXELS = 100_000_000
_ORIENTATION = 274
"""The tag of TIFF and EXIF that says how a picture is to be turned before it is shown."""
_PNG = b"\x89PNG\r\n\x1a\n"
# what Pillow and tifffile raise on damaged files, Pillow's own errors of oversized images besides
_BROKEN = (
    ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError, SyntaxError, TypeError,
    ValueError, struct.error, zlib.error,
)  # fmt: skip
_MOST_WHOLE = 2**53
"""Beyond it a float is not the whole number that it stands for."""
_MAPPED = "each nucleus needs a number of its own, the background 0, in one channel"
# how far an XML's vertex, a whole number, lies from its pixel's corner: half a pixel, and a trifle, so that a center
# on an outline belongs to the polygon on its left or above, as in the label maps that lie a pixel down and right
_VERTEX_OFFSET_PX = 0.501


def read_pixels(path: Path, tell: Tell) -> NDArray[np.uint8]:
    """The picture in a PNG, JPEG, TIFF or BMP, (H, W, 3) uint8 RGB. An alpha that is opaque everywhere is dropped.

    Raises AnnotationError for a file that cannot be read, gray or 16-bit pixels, CMYK, a picture that is partly
    transparent or stored turned, or more than 100 million pixels.
    """
    if path.suffix.lower() in (".tif", ".tiff"):
        raw = _read_tiff(path)
    else:
        raw = _read_picture(path)
    if raw.dtype != np.uint8:
        raise AnnotationError(
            path,
            f"the image has {raw.dtype.itemsize * 8} bits a channel; save it with 8, scaled as it is shown",
        )
    if raw.ndim != 3 or raw.shape[2] not in (3, 4):
        raise AnnotationError(path, "the image is gray; nuclei are learned from H&E in color (RGB)")
    if raw.shape[2] == 4:
        if (raw[..., 3] != 255).any():
            raise AnnotationError(
                path, "the image is partly transparent; flatten it on the background it belongs on"
            )
        tell("has an opaque alpha channel, dropped")
    pixels = np.ascontiguousarray(raw[..., :3])
    if (pixels[..., :1] == pixels[..., 1:]).all() and pixels.min() != pixels.max():
        raise AnnotationError(
            path, "the image is gray, stored as RGB; nuclei are learned from H&E in color (RGB)"
        )
    return pixels


def read_binary_mask(path: Path) -> NDArray[np.bool_]:
    """The nuclei in a binary mask, (H, W) bool: 0 and one other value. Raises AnnotationError for anything else."""
    if path.suffix.lower() in (".jpg", ".jpeg"):
        raise AnnotationError(path, "a mask stored as JPEG has blurred borders; save it as PNG or TIFF")
    plane = _one_plane(path, _read_array(path), "a binary mask has one channel")
    values = np.unique(plane)
    if values.size > 2:
        raise AnnotationError(
            path,
            f"a binary mask has two values, this has {values.size}; threshold it, or, where every nucleus has a "
            "number of its own, put it into labels/",
        )
    if values.size == 2 and values[0] != 0:
        raise AnnotationError(path, f"the mask's background must be 0, its values are {values.tolist()}")
    if values.size == 1 and values[0] != 0:
        raise AnnotationError(path, "the mask marks every pixel as nucleus; is it the right file?")
    mask: NDArray[np.bool_] = plane != 0
    return mask


def read_label_map(path: Path, tell: Tell) -> NDArray[np.int32]:
    """The instances in a PNG, TIFF or NPY, (H, W) int32, 0 outside of nuclei; numbers as in the file where they fit.

    Raises AnnotationError for color, fractions, negative numbers, one number everywhere, or a binary mask in a label
    map's place (one number in several pieces).
    """
    if path.suffix.lower() in (".jpg", ".jpeg"):
        raise AnnotationError(
            path, "a label map stored as JPEG has other numbers than were saved; save it as PNG"
        )
    plane = _one_plane(path, _read_array(path), _MAPPED)
    if plane.dtype.kind == "f":
        if not np.isfinite(plane).all() or (plane != np.rint(plane)).any():
            raise AnnotationError(path, f"the label map has fractions; {_MAPPED}")
        if np.abs(plane).max() > _MOST_WHOLE:
            raise AnnotationError(
                path, f"the label map holds numbers as large as {np.abs(plane).max():g}; {_MAPPED}"
            )
        plane = plane.astype(np.int64)
    if plane.dtype.kind not in "iub":
        raise AnnotationError(path, f"the label map holds {plane.dtype.name}; {_MAPPED}")
    values = np.unique(plane)
    if values[0] < 0:
        raise AnnotationError(path, f"the label map has negative numbers ({values[0]}); {_MAPPED}")
    if values.size == 1 and values[0] != 0:
        raise AnnotationError(path, f"the label map holds {values[0]} everywhere; {_MAPPED}")
    # numbers are looked up in lists as long as the largest
    if values[-1] > plane.size:
        labels = np.searchsorted(values, plane).astype(np.int32) + np.int32(values[0] != 0)
    else:
        labels = plane.astype(np.int32)
    if values[0] != 0:
        tell("has no background pixel")
    numbers = int((values > 0).sum())
    pieces = int(_pieces(labels))
    if numbers == 1 and pieces > 1:
        raise AnnotationError(
            path,
            f"one number ({values[-1]}) in {pieces} separate pieces: a binary mask? then put it into masks/",
        )
    if pieces > numbers:
        tell("has nuclei in several pieces")
    return labels


def components(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The 8-connected components of a mask, (H, W) int32, 0 outside."""
    from scipy import ndimage

    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    return np.asarray(labels, np.int32)


def read_outlines(path: Path, size: tuple[int, int], tell: Tell) -> NDArray[np.int32]:
    """The outlined nuclei of an ImageScope XML or a GeoJSON, drawn into (H, W) int32, in the file's order from 1.

    size: the image's (width, height). A pixel is a nucleus's where its center lies inside. GeoJSON measures from
    pixels' corners, as QuPath does; ImageScope's whole numbers name pixels. Where nuclei overlap the earlier keeps
    the pixels. Crossing outlines are repaired, and polygons without area or beyond the image left out, each told; of
    QuPath's cells the nuclei count, and what was annotated around detections is left out.
    Raises AnnotationError for a broken file and where every outline lies outside.
    """
    regions = read_regions(path, tell, nuclei=True)
    offset = _VERTEX_OFFSET_PX if path.suffix.lower() == ".xml" else 0.0
    width, height = size
    labels = np.zeros((height, width), np.int32)
    beyond = drawn = 0
    for region in regions:
        patch = _patch(region, offset, size)
        if patch is None:
            beyond += 1
            continue
        (y0, x0), inside = patch
        under = labels[y0 : y0 + inside.shape[0], x0 : x0 + inside.shape[1]]
        free = inside & (under == 0)
        if not free.any():
            tell("holds no pixel that is not another's")
            continue
        drawn += 1
        under[free] = drawn
    if beyond and beyond == len(regions):
        raise AnnotationError(
            path,
            f"all {beyond} outlines lie outside of the image ({width} × {height} px); are they of another?",
        )
    for _ in range(beyond):
        tell("lies outside of the image")
    return labels


def _patch(
    region: Region, offset: float, size: tuple[int, int]
) -> tuple[tuple[int, int], NDArray[np.bool_]] | None:
    """Where a region's box starts (row, column) and its pixels there; None where it lies outside of the image."""
    from shapely.affinity import translate

    x0, y0, x1, y1 = (value + offset for value in region.geometry.bounds)
    left, top = max(0, int(np.floor(x0))), max(0, int(np.floor(y0)))
    right, bottom = min(size[0], int(np.ceil(x1))), min(size[1], int(np.ceil(y1)))
    if left >= right or top >= bottom:
        return None
    one = Mpp(1.0, 1.0)
    moved = translate(region.geometry, offset - left, offset - top)
    return (top, left), rasterize([moved], WorkingFrame((right - left, bottom - top), one, one))


def _pieces(labels: NDArray[np.int32]) -> int:
    """How many 8-connected parts the numbers' places make together."""
    from scipy import ndimage

    boxes = ((number, box) for number, box in enumerate(ndimage.find_objects(labels), 1) if box is not None)
    return sum(int(ndimage.label(labels[box] == number, np.ones((3, 3)))[1]) for number, box in boxes)


def _one_plane(path: Path, raw: NDArray[Any], wanted: str) -> NDArray[Any]:
    """A mask's single plane: a picture's opaque alpha is dropped, and three equal channels are one."""
    if raw.ndim == 3 and raw.shape[2] in (2, 4) and path.suffix.lower() != ".npy":
        if (raw[..., -1] != np.iinfo(raw.dtype).max if raw.dtype.kind == "u" else raw[..., -1] != 1).any():
            raise AnnotationError(path, f"it has a transparent part; {wanted}")
        raw = raw[..., :-1]
    if raw.ndim == 3 and raw.shape[2] == 1:
        raw = raw[..., 0]
    if raw.ndim == 3 and raw.shape[2] == 3:
        if (raw[..., :1] != raw[..., 1:]).any():
            raise AnnotationError(path, f"it is a color picture; {wanted}")
        raw = raw[..., 0]
    if raw.ndim != 2 or 0 in raw.shape:
        raise AnnotationError(path, f"it holds an array of shape {raw.shape}; {wanted}")
    return raw


def _read_array(path: Path) -> NDArray[Any]:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        try:
            loaded = np.load(path, allow_pickle=False)
        except (*_BROKEN, tokenize.TokenError) as error:
            raise AnnotationError(path, f"cannot be read: {_reason(error)}") from error
        return np.asarray(loaded)
    return _read_tiff(path) if suffix in (".tif", ".tiff") else _read_picture(path, indices=True)


def _reason(error: BaseException) -> str:
    return (str(error) or type(error).__name__)[:200]


def _check_size(path: Path, width: int, height: int) -> None:
    if width < 1 or height < 1 or width * height > _MOST_PIXELS:
        raise AnnotationError(
            path, f"{width} × {height} px; fields of 1 to 100 million pixels are read: cut it into fields"
        )


def _read_picture(path: Path, *, indices: bool = False) -> NDArray[Any]:
    """What Pillow decodes; a palette's indices, or its colors."""
    from PIL import Image, UnidentifiedImageError

    try:
        with path.open("rb") as handle:
            start = handle.read(32)
        with warnings.catch_warnings():
            # the size is checked here, before any pixel is decoded
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                _check_size(path, *image.size)
                _check_upright(path, image.getexif().get(_ORIENTATION, 1))
                if not indices:
                    _check_picture(path, image, start)
                elif start.startswith(_PNG) and start[24] == 16 and start[25] in (2, 6):
                    raise AnnotationError(path, f"a color picture of 16 bits; {_MAPPED}")
                if image.mode in ("P", "PA") and not indices:
                    return np.asarray(image.convert("RGBA" if "transparency" in image.info else "RGB"))
                return np.asarray(image)
    except AnnotationError:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise AnnotationError(path, "is no PNG, JPEG, TIFF or BMP that can be decoded") from error
    except FileNotFoundError as error:
        raise AnnotationError(path, "is not there") from error
    except _BROKEN as error:
        raise AnnotationError(path, f"cannot be decoded: {_reason(error)}; save it anew") from error


def _check_picture(path: Path, image: Image, start: bytes) -> None:
    # Pillow gives the upper 8 bits of a 16-bit color PNG without a word
    if start.startswith(_PNG) and start[24] == 16:
        raise AnnotationError(path, "the image has 16 bits a channel; save it with 8, scaled as it is shown")
    if image.mode == "CMYK":
        raise AnnotationError(path, "the image is CMYK; save it as RGB")


def _check_upright(path: Path, orientation: object) -> None:
    if orientation not in (0, 1):
        raise AnnotationError(path, f"it is stored turned (orientation {orientation}); save it upright")


def _read_tiff(path: Path) -> NDArray[Any]:
    """A TIFF's only plane, samples last."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            pages = list(file.series)
            if not pages:
                raise AnnotationError(path, "the TIFF holds no image")
            axes, shape = pages[0].axes, pages[0].shape
            if "Y" not in axes or "X" not in axes:
                raise AnnotationError(path, f"the TIFF holds no plane (its axes are {axes})")
            _check_size(path, shape[axes.index("X")], shape[axes.index("Y")])
            extra = [n for axis, n in zip(axes, shape, strict=True) if axis not in "YXSC" and n > 1]
            if extra:
                raise AnnotationError(path, f"the TIFF holds {extra[0]} planes (axes {axes}); one is needed")
            page = file.pages[0]
            _check_upright(path, page.aspage().tags.valueof(_ORIENTATION, 1))
            photometric = getattr(page, "photometric", None)
            if photometric is not None and photometric.name in ("CIELAB", "SEPARATED", "PALETTE"):
                raise AnnotationError(
                    path, f"the TIFF's colors are {photometric.name}; save it as RGB or as gray"
                )
            pixels = np.asarray(file.asarray(series=0))
            if pixels.shape != tuple(shape):
                raise AnnotationError(path, f"the TIFF holds {pixels.shape} of {shape} pixels; save it anew")
    except AnnotationError:
        raise
    except FileNotFoundError as error:
        raise AnnotationError(path, "is not there") from error
    except _BROKEN as error:
        raise AnnotationError(path, f"cannot be decoded: {_reason(error)}; save it anew") from error
    keep = [k for k in range(pixels.ndim) if axes[k] in "YX" or pixels.shape[k] > 1]
    place = {"Y": 0, "X": 1}
    order = sorted(range(len(keep)), key=lambda k: place.get(axes[keep[k]], 2))
    return pixels.reshape([pixels.shape[k] for k in keep]).transpose(order)
