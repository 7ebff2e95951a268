"""A slide's identity: its content, whatever its name."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from slides.painted import Picture, reduce, write_dicom

from lobule import provenance
from lobule.errors import SlideReadError
from lobule.provenance import slide_identity
from lobule.slides import open_slide


def test_a_small_file_is_hashed_whole_and_survives_renaming(tmp_path: Path) -> None:
    (tmp_path / "a.svs").write_bytes(b"pixels" * 1000)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.svs").write_bytes(b"pixels" * 1000)
    first, second = slide_identity([tmp_path / "a.svs"]), slide_identity([tmp_path / "sub" / "b.svs"])
    assert first == second and first.method == "sha256" and first.size_bytes == 6000
    assert first.sha256 == hashlib.sha256(b"pixels" * 1000).hexdigest()


def test_a_series_is_one_slide_whichever_file_names_it(picture: Picture, tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", picture, photometric="RGB")
    write_dicom(tmp_path / "b.dcm", reduce(picture, 2), photometric="RGB")
    with open_slide(tmp_path / "a.dcm") as first, open_slide(tmp_path / "b.dcm") as second:
        assert slide_identity(first.files()) == slide_identity(second.files())
        assert slide_identity(first.files()) != slide_identity(first.files()[:1])


def test_a_large_file_is_sampled_at_both_ends_and_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "WHOLE_UP_TO_BYTES", 100_000)
    monkeypatch.setattr(provenance, "EDGE_BYTES", 1000)
    monkeypatch.setattr(provenance, "BLOCK_BYTES", 100)
    data = bytearray(range(256)) * 1000
    path = tmp_path / "a.svs"

    def identity() -> str:
        path.write_bytes(data)
        found = slide_identity([path])
        assert found.method == "sha256-sampled" and found.size_bytes == len(data)
        return found.sha256

    before = identity()
    assert identity() == before
    for place in (0, 999, len(data) - 1, len(data) - 1000, 1000, len(data) - 1050):
        data[place] ^= 1
        changed = identity()
        data[place] ^= 1
        assert changed != before, place
    data += b"x"
    assert identity() != before


def test_an_unreadable_file_is_a_read_error(tmp_path: Path) -> None:
    with pytest.raises(SlideReadError, match="cannot be read"):
        slide_identity([tmp_path / "absent.svs"])
