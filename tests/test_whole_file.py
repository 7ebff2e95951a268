from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lobule.errors import ResultWriteError, SlideReadError
from lobule.whole_file import whole_file


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


def test_of_two_that_write_one_path_each_has_its_own_part(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with whole_file(path) as first:
        first.write(b"first" * 1000)
        with whole_file(path) as second:
            second.write(b"second")
            parts = [part.name for part in tmp_path.glob(".*.part")]
            assert len(parts) == 2
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first" * 1000
    assert list(tmp_path.iterdir()) == [path]


def test_one_that_fails_leaves_the_others_part(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with whole_file(path) as first:
        first.write(b"first")
        with pytest.raises(ValueError, match="second"), whole_file(path):
            raise ValueError("second")
    assert path.read_bytes() == b"first"


def test_what_a_killed_run_left_is_hidden_and_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    killed = (
        "import os, pathlib, sys; from lobule.whole_file import whole_file\n"
        "with whole_file(pathlib.Path(sys.argv[1])) as stream: stream.write(b'half'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", killed, path], check=False).returncode == 9
    (left,) = tmp_path.iterdir()
    assert left.match(".*.part")
    with whole_file(path) as stream:
        stream.write(b"new")
    assert path.read_bytes() == b"new"
    assert set(tmp_path.iterdir()) == {left, path}


def test_a_name_as_long_as_names_can_be_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 127)
    with whole_file(path) as stream:
        stream.write(b"content")
    assert list(tmp_path.iterdir()) == [path]
