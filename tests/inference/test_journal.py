"""The journal: what was written is found again, whatever a kill cut off."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lobule.errors import ResultWriteError
from lobule.inference.journal import Journal

pytestmark = pytest.mark.usefixtures("calls")
PLAN = "a" * 64
records = st.dictionaries(st.integers(0, 2**40), st.binary(max_size=200), max_size=12)


@pytest.fixture(scope="module", params=["this system's calls", "Windows's calls"])
def calls(request: pytest.FixtureRequest) -> Iterator[None]:
    """Windows reads and writes at a file's position alone."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "Windows's calls":
            for name in ("pread", "pwrite"):
                patch.delattr(os, name, raising=False)
        yield


@given(kept=records, cut=st.integers(0, 400))
def test_a_cut_journal_holds_a_prefix_of_its_records(
    tmp_path: Path, kept: dict[int, bytes], cut: int
) -> None:
    path = tmp_path / "j"
    path.unlink(missing_ok=True)
    with Journal(path, PLAN) as journal:
        for index, payload in kept.items():
            journal.append(index, payload)
    size = path.stat().st_size
    with path.open("r+b") as stream:
        stream.truncate(max(0, size - cut))
    with Journal(path, PLAN) as journal:
        found = dict(journal.in_order())
        order = [index for index in kept if index in found]
        assert order == list(kept)[: len(order)]
        assert all(found[index] == kept[index] for index in found)
        if cut == 0:
            assert found == kept
        for index in kept.keys() - found.keys():
            journal.append(index, kept[index])
    with Journal(path, PLAN) as journal:
        assert dict(journal.in_order()) == kept


def test_a_flipped_byte_ends_the_readable_part(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path, PLAN) as journal:
        for index in range(5):
            journal.append(index, bytes([index]) * 50)
        third = journal._places[3][0]
    data = bytearray(path.read_bytes())
    data[third] ^= 1
    path.write_bytes(data)
    with Journal(path, PLAN) as journal:
        assert [index for index, _ in journal.in_order()] == [0, 1, 2]


def test_a_journal_of_another_plan_is_started_afresh(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", PLAN) as journal:
        journal.append(1, b"old")
    with Journal(tmp_path / "j", "b" * 64) as journal:
        assert len(journal) == 0
        journal.append(1, b"new")
        assert journal.read(1) == b"new"


def test_a_path_that_cannot_be_written_is_a_result_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ResultWriteError, match="cannot be written"):
        Journal(tmp_path / "file" / "j", PLAN)


def test_results_are_read_while_others_are_written(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", PLAN) as journal, ThreadPoolExecutor(2) as threads:
        journal.append(0, bytes(1000))
        read = [threads.submit(journal.read, 0) for _ in range(500)]
        for index in range(1, 500):
            journal.append(index, index.to_bytes(2, "little") * 20)
        assert {each.result() for each in read} == {bytes(1000)}
    with Journal(tmp_path / "j", PLAN) as journal:
        assert all(
            payload == index.to_bytes(2, "little") * 20 for index, payload in journal.in_order() if index
        )
        assert len(journal) == 500
