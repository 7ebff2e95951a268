from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lobule.errors import ResultWriteError, SlideReadError
from lobule.whole_file import part_path, whole_file


def test_the_content_appears_under_the_name_and_nothing_else(tmp_path: Path) -> None:
    with whole_file(tmp_path / "a.bin") as stream:
        stream.write(b"content")
        assert not (tmp_path / "a.bin").exists()
    assert (tmp_path / "a.bin").read_bytes() == b"content"
    assert list(tmp_path.iterdir()) == [tmp_path / "a.bin"]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SlideReadError("s", "torn")])
def test_a_failing_block_leaves_the_earlier_file_and_no_part(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"earlier")
    with pytest.raises(type(error)) as caught, whole_file(path) as stream:
        stream.write(b"half")
        raise error
    assert caught.value is error
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [tmp_path / "a.bin"]


def test_a_full_disk_is_a_result_write_error_that_names_the_file(tmp_path: Path) -> None:
    full = pytest.raises(ResultWriteError, match=r"a\.bin: cannot be written: No space left")
    with full, whole_file(tmp_path / "a.bin"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_and_a_file_as_folder_are_result_write_errors(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "absent" / "a", tmp_path / "file" / "a"):
        with pytest.raises(ResultWriteError, match="check that its folder exists"), whole_file(path):
            pass


def test_a_part_that_a_killed_run_left_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    part_path(path).write_bytes(b"x" * 1000)
    with whole_file(path) as stream:
        stream.write(b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [tmp_path / "a.bin"]
