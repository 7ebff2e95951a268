"""Directories that claim more than their file holds."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import pytest

from lobule.errors import SlideReadError
from lobule.slides.tiff_structure import ByteFile, read_tiff_structure


def _tiff(path: Path, tags_each: list[int], claimed: int, size: int) -> Path:
    """Directories in a chain, each with so many tags that all claim the same bytes, from byte 8 on."""
    content, place = b"II*\0\x08\0\0\0", 8
    for index, count in enumerate(tags_each):
        place += 2 + 12 * count + 4
        tags = b"".join(struct.pack("<HHII", 65000 + k, 1, claimed, 8) for k in range(count))
        following = place if index + 1 < len(tags_each) else 0
        content += struct.pack("<H", count) + tags + struct.pack("<I", following)
    path.write_bytes(content.ljust(size, b"\0"))
    return path


@pytest.mark.parametrize("tags_each", [[50], [1] * 50, [2] * 25])
def test_tags_that_claim_the_same_bytes_again_and_again_are_refused(
    tags_each: list[int], tmp_path: Path
) -> None:
    path = _tiff(tmp_path / "a.tif", tags_each, 1_000_000 - 8, 1_000_000)
    file = ByteFile(path)
    tracemalloc.start()
    try:
        with pytest.raises(SlideReadError, match="more than 2 times the 1000000 bytes") as error:
            read_tiff_structure(file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        file.close()
    assert "\n" not in str(error.value)
    assert peak < 4e6


def test_directories_may_share_what_they_say(tmp_path: Path) -> None:
    path = _tiff(tmp_path / "a.tif", [1] * 6, 300_000, 1_000_000)
    file = ByteFile(path)
    structure = read_tiff_structure(file)
    file.close()
    assert [directory.data(65000) for directory in structure.chain] == [path.read_bytes()[8:300_008]] * 6
