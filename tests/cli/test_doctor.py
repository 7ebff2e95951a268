"""What `lobule doctor` says of the folder for compiled networks, whatever that folder is like."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from lobule.cli import doctor as command


@pytest.fixture(autouse=True)
def _openvino_and_no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lobule.runtimes.choose_runtime", lambda asked: ("openvino", "faster here"))
    monkeypatch.setattr(command, "_models", lambda measure: 0)


def _said() -> str:
    done = CliRunner().invoke(command.doctor, catch_exceptions=False)
    lines = done.output.splitlines()
    at = next(number for number, line in enumerate(lines) if " compiled " in line)
    return "\n".join(lines[at : at + 2])


def test_a_folder_that_is_not_made_yet_but_can_be_is_fine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOBULE_CACHE", str(tmp_path / "a" / "b"))
    assert _said().startswith(f"ok  compiled       networks are kept in {tmp_path / 'a' / 'b'}\n")


def test_a_user_without_a_home_folder_is_told_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lobule.runtimes.compiled.compiled_folder", lambda: None)
    said = _said()
    assert said.startswith("--  compiled       networks are not kept: this user has no home folder")
    assert "set LOBULE_CACHE" in said


@pytest.mark.parametrize("why", ["may not be searched", "nothing is there", "a file", "may not be written"])
def test_a_folder_that_cannot_be_written_is_told(
    why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may search and write everywhere, so what the system says is put in its place."""
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("LOBULE_CACHE", str(tmp_path / ("file" if why == "a file" else "") / "a" / "b"))

    def exists(path: Path) -> bool:
        if why == "may not be searched":
            raise PermissionError(13, "Permission denied", str(path))
        return False

    if why in ("may not be searched", "nothing is there"):
        monkeypatch.setattr(Path, "exists", exists)
    if why == "may not be written":
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    said = _said()
    assert said.startswith("--  compiled       networks would be kept in ")
    assert "cannot be written: each start compiles anew" in said


def test_without_torch_training_is_said_to_need_it_from_lobules_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command, "_version", lambda package: None if package == "torch" else "1")
    output = CliRunner().invoke(command.doctor, catch_exceptions=False).output
    assert "training needs pip install '.[train]' in lobule's folder" in " ".join(output.split())
