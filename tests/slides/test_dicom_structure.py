"""DICOM headers that are packed, whole or damaged."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pydicom
import pytest
from slides.painted import Picture, write_dicom

from lobule.errors import SlideReadError
from lobule.slides import open_slide
from lobule.slides.dicom_structure import DEFLATED, read_dicom_header


def _write_deflated(path: Path, picture: Picture, padding: int) -> None:
    """A slide's header and ``padding`` zeros, all of it deflated."""
    write_dicom(path, picture, photometric="RGB")
    data = pydicom.dcmread(path)
    data.DataSetTrailingPadding = bytes(padding)
    data.file_meta.TransferSyntaxUID = pydicom.uid.UID(DEFLATED)
    del data.PixelData
    data.save_as(path)


def test_a_deflated_file_is_refused_before_it_is_unpacked(picture: Picture, tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    _write_deflated(path, picture, 50_000_000)
    assert path.stat().st_size < 200_000
    tracemalloc.start()
    try:
        with pytest.raises(SlideReadError, match=r"deflated transfer syntax.*save it as") as error:
            read_dicom_header(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "\n" not in str(error.value)
    assert peak < 20e6


def test_a_damaged_deflated_neighbor_does_not_stop_a_slide(picture: Picture, tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", picture, photometric="RGB")
    _write_deflated(tmp_path / "b.dcm", picture, 1000)
    content = bytearray((tmp_path / "b.dcm").read_bytes())
    content[-200:] = b"\xff" * 200
    (tmp_path / "b.dcm").write_bytes(content)
    with open_slide(tmp_path / "a.dcm") as slide:
        assert slide.files() == (tmp_path / "a.dcm",)
