"""Pixels of a layer as a patchwork of whole real fields, made when asked for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lobule.errors import ConfigurationError
from lobule.phantom.pyramid import TILE_PX
from lobule.phantom.texture import Rgb, reduce_by_4

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Patchwork"]

_CACHE_BYTES = 128 * 2**20


class Patchwork:
    """An endless plane of fields, each resampled from ``fields_mpp`` to ``mpp``.

    Patch (i, j) of the plane shows the field, turned by half a turn or flipped, that a hash of ``seed`` and
    (i, j) chooses: neighbors differ and the plane does not repeat. All patches have the size of the first
    field: of a larger one they show the middle, a smaller one goes on as its mirror image around itself.
    Memory bound: resampled fields up to 128 MB, besides the one in work.
    """

    nuclei = None

    def __init__(self, files: Sequence[Path], fields_mpp: float, mpp: float, seed: tuple[int, int]) -> None:
        self._files = tuple(files)
        self._seed = seed
        self._scale = fields_mpp / mpp
        with _opened(self._files[0]) as image:
            width, height = self._scaled(image.size)
        self._width, self._height = max(16, width), max(16, height)
        self._lock = threading.Lock()
        self._known: OrderedDict[int, Rgb] = OrderedDict()

    @property
    def patch_size(self) -> tuple[int, int]:
        """(width, height) of a patch in slide px."""
        return self._width, self._height

    def choice(self, column: int, row: int) -> tuple[Path, bool, bool]:
        """The field of a patch, and whether it is flipped left-right and up-down."""
        key = [*self._seed, column + 2**20, row + 2**20]
        bits = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
        return self._files[(bits >> 2) % len(self._files)], bool(bits & 1), bool(bits & 2)

    def encoded(self, level: int, column: int, row: int) -> None:
        """Nothing repeats: see Texture."""

    def ids(self, column: int, row: int) -> None:
        """Nuclei of real fields are unknown: see Texture."""

    def reduced(self, column: int, row: int) -> Rgb:
        """See Texture."""
        return reduce_by_4(self.pixels(column, row))

    def pixels(self, column: int, row: int) -> Rgb:
        """See Texture."""
        tile: NDArray[np.uint8] = np.empty((TILE_PX, TILE_PX, 3), np.uint8)
        x0, y0 = column * TILE_PX, row * TILE_PX
        for j in range(y0 // self._height, (y0 + TILE_PX - 1) // self._height + 1):
            for i in range(x0 // self._width, (x0 + TILE_PX - 1) // self._width + 1):
                file, mirrored, upside_down = self.choice(i, j)
                field = self._field(file)
                field = field[:, ::-1] if mirrored else field
                field = field[::-1] if upside_down else field
                left, top = max(i * self._width, x0), max(j * self._height, y0)
                right, bottom = (
                    min((i + 1) * self._width, x0 + TILE_PX),
                    min((j + 1) * self._height, y0 + TILE_PX),
                )
                tile[top - y0 : bottom - y0, left - x0 : right - x0] = field[
                    top - j * self._height : bottom - j * self._height,
                    left - i * self._width : right - i * self._width,
                ]
        return tile

    def _field(self, file: Path) -> Rgb:
        key = self._files.index(file)
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        image = self._load(file)
        with self._lock:
            self._known[key] = image
            while len(self._known) > 1 and sum(known.nbytes for known in self._known.values()) > _CACHE_BYTES:
                self._known.popitem(last=False)
        return image

    def _load(self, file: Path) -> Rgb:
        from PIL.Image import Resampling

        with _opened(file) as image:
            rgb = image.convert("RGB")
        field = np.asarray(rgb.resize(self._scaled(rgb.size), Resampling.BICUBIC), np.uint8)
        # cut and mirrored, never stretched to the patch: its micrometers would be others
        rows, columns = _middle(self._height, field.shape[0]), _middle(self._width, field.shape[1])
        return field[rows][:, columns]

    def _scaled(self, size: tuple[int, int]) -> tuple[int, int]:
        return max(1, round(size[0] * self._scale)), max(1, round(size[1] * self._scale))


def _middle(count: int, size: int) -> NDArray[np.intp]:
    """``count`` places around the middle of [0, size), mirrored at both ends where there are fewer."""
    place = (np.arange(count) + (size - count) // 2) % (2 * size)
    return np.minimum(place, 2 * size - 1 - place)


@contextmanager
def _opened(file: Path) -> Iterator[Image]:
    """The picture, as long as it is read. Raises ConfigurationError for whatever Pillow says of a damaged one."""
    import PIL.Image

    try:
        with PIL.Image.open(file) as image:
            yield image
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise ConfigurationError("--fields", str(file), f"a readable image ({error})") from error
