"""Costs of commands and the statistics of pairs."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pairs import CommandFailed, Spread, run_command, spread

BENCH = Path(__file__).resolve().parents[2] / "bench"


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9))
def test_a_spread_is_the_middle_and_the_ends_of_the_sorted_numbers(values: list[float]) -> None:
    ordered = sorted(values)
    middle = (ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2
    got = spread(values)
    assert (got.low, got.high) == (ordered[0], ordered[-1])
    assert got.median == pytest.approx(middle)


def test_no_numbers_have_no_spread() -> None:
    with pytest.raises(ValueError, match="no numbers"):
        spread([])


def test_a_spread_is_written_median_first() -> None:
    assert Spread(1.5, 1.0, 2.25).text() == "1.50 (1.00-2.25)"


def test_a_command_costs_its_own_memory_not_that_of_the_process_that_starts_it(tmp_path: Path) -> None:
    ballast = bytearray(300 << 20)
    ballast[:: 1 << 12] = b"x" * len(ballast[:: 1 << 12])
    cost = run_command([sys.executable, "-S", "-c", "pass"], tmp_path / "log", 60)
    assert cost.peak_bytes < 100 << 20 < len(ballast)
    assert 0 < cost.wall_seconds < 30


def test_a_command_costs_the_seconds_and_memory_that_it_takes(tmp_path: Path) -> None:
    code = "import time; x = bytearray(b'1') * (80 << 20); time.sleep(0.3)"
    cost = run_command([sys.executable, "-S", "-c", code], tmp_path / "log", 60)
    assert cost.wall_seconds >= 0.3
    assert cost.peak_bytes > 80 << 20


def test_a_failing_command_is_an_error_that_names_its_log(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "x.log"
    with pytest.raises(CommandFailed, match=r"exit 3 .*x\.log"):
        run_command([sys.executable, "-c", "print('why'); raise SystemExit(3)"], log, 60)
    assert log.read_text() == "why\n"


def test_a_command_that_hangs_is_stopped_with_its_children(tmp_path: Path) -> None:
    hang = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    with pytest.raises(CommandFailed, match="stopped after 0"):
        run_command([sys.executable, "-c", hang], tmp_path / "log", 0.4)


def test_a_command_ends_when_the_process_that_started_it_is_killed(tmp_path: Path) -> None:
    mark = tmp_path / "still-there"
    child = f"import time, pathlib; time.sleep(1.5); pathlib.Path({str(mark)!r}).touch()"
    code = (
        "import sys; from pathlib import Path; from pairs import run_command; "
        f"run_command([sys.executable, '-c', {child!r}], Path({str(tmp_path / 'log')!r}), 60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=BENCH)
    time.sleep(0.8)
    parent.kill()
    parent.wait()
    time.sleep(1.5)
    assert not mark.exists()


def test_a_command_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="could not be started"):
        run_command([str(tmp_path / "absent")], tmp_path / "log", 5)


def test_a_commands_environment_is_added_to_ours(tmp_path: Path) -> None:
    log = tmp_path / "log"
    run_command([sys.executable, "-c", "import os; print(os.environ['SAY'])"], log, 60, {"SAY": "hello"})
    assert log.read_text() == "hello\n"
