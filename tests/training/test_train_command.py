"""``lobule train`` says in one line what it lacks, without loading torch first."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "nuclei-breast-lite0.toml"


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from lobule.cli import main; main()", "train", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_help_names_the_options() -> None:
    result = call("--help")
    assert result.returncode == 0
    assert all(option in result.stdout for option in ("--data", "--out", "--steps", "--threads"))


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed")
def test_without_torch_one_line_says_what_to_install(tmp_path: Path) -> None:
    result = call(str(RECIPE), "--data", str(tmp_path), "--out", str(tmp_path / "run"))
    assert result.returncode == 2
    assert "pip install '.[train]' in lobule's folder" in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_absent_data_are_one_line(tmp_path: Path) -> None:
    result = call(str(RECIPE), "--data", str(tmp_path), "--out", str(tmp_path / "run"))
    assert result.returncode == 2
    assert (
        "monuseg" in result.stderr and "no such folder" in result.stderr and "Traceback" not in result.stderr
    )


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_a_card_names_the_recipe_without_a_folder_that_it_did_not_lie_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lobule.training import run

    class _Reached(Exception):
        pass

    def reached(*given: object) -> None:
        raise _Reached(given[-1])

    monkeypatch.setattr(run, "_train_tumor", reached)
    mine = shutil.copy(RECIPE.with_name("tumor-breast-lite0.toml"), tmp_path / "mine.toml")
    with pytest.raises(_Reached, match=r": lobule train mine\.toml --data DATA; seed"):
        run.train_recipe(Path(mine), tmp_path, tmp_path / "out", say=print)
