"""DICOM headers that are packed, whole or damaged."""

from __future__ import annotations

import os
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pydicom
import pytest
from slides.painted import Picture, reduce, write_dicom

from lobule.errors import SlideReadError
from lobule.slides import dicom_structure, open_slide
from lobule.slides.dicom_structure import DEFLATED, read_dicom_header, siblings_of


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


def test_a_level_is_found_behind_thousands_of_other_files(picture: Picture, tmp_path: Path) -> None:
    write_dicom(tmp_path / "z0.dcm", picture, photometric="RGB")
    write_dicom(tmp_path / "z1.dcm", reduce(picture, 2), photometric="RGB", mpp=1.0)
    for index in range(2001):
        (tmp_path / f"a{index}.dcm").write_bytes(bytes(128) + b"DICM")
    with open_slide(tmp_path / "z0.dcm") as slide:
        assert len(slide.levels) == 2


def test_the_headers_of_a_folder_are_read_once_until_they_change(
    picture: Picture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(6):
        write_dicom(tmp_path / f"{index}.dcm", picture, photometric="RGB", series=f"1.2.{index // 2}")
    images = [read_dicom_header(tmp_path / f"{index}.dcm") for index in range(6)]
    read: list[str] = []

    def counted(path: Path) -> dicom_structure.DicomImage:
        read.append(path.name)
        return read_dicom_header(path)

    monkeypatch.setattr(dicom_structure, "read_dicom_header", counted)
    assert [other.path.name for other in siblings_of(images[0])] == ["1.dcm"]
    assert set(read) == {f"{index}.dcm" for index in range(1, 6)}
    read.clear()
    assert [other.path.name for other in siblings_of(images[2])] == ["3.dcm"]
    assert sorted(set(read)) == ["0.dcm", "3.dcm"]
    # rewritten as another slide's, of the same size
    write_dicom(tmp_path / "5.dcm", picture, photometric="RGB", series="1.2.0")
    os.utime(tmp_path / "5.dcm", ns=(0, 0))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda image: [other.path.name for other in siblings_of(image)], images[:4]))
    assert found == [["1.dcm", "5.dcm"], ["0.dcm", "5.dcm"], ["3.dcm"], ["2.dcm"]]


def test_a_folder_of_too_many_files_is_refused_and_not_searched_in_part(
    picture: Picture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(4):
        write_dicom(tmp_path / f"{index}.dcm", picture, photometric="RGB")
    monkeypatch.setattr(dicom_structure, "MOST_FILES", 3)
    with pytest.raises(SlideReadError, match=r"holds 4 files.*put each slide into a folder of its own"):
        open_slide(tmp_path / "0.dcm")
