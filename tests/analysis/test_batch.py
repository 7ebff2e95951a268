"""Many slides: resume, kills, order, failures."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from painted_slides import paint, write_slide

from lobule.analysis.batch import Outcome, analyze_slides, slide_ids
from lobule.analysis.options import Options
from lobule.errors import ResultWriteError
from lobule.progress import QuietReporter

RUN = [sys.executable, "-c", "from lobule.cli import main; main()", "analyze"]


def _analyze(slides: list[Path], out: Path, models: Path, **choices: Any) -> tuple[Outcome, ...]:
    options = Options(models=(str(models),), nuclei_tiles=None, **choices)
    return analyze_slides(slides, out, options, mpp=None, reporter=QuietReporter())


def _digests(folder: Path) -> dict[str, str]:
    """Digest by file; findings without their ``run``; the report shows the run, so its presence counts."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or ".lobule" in path.parts:
            continue
        data = path.read_bytes()
        if path.name == "findings.json":
            findings = json.loads(data)
            del findings["run"]
            data = json.dumps(findings).encode()
        elif path.name in ("report.html", "summary.csv"):
            data = b""
        found[path.relative_to(folder).as_posix()] = hashlib.sha256(data).hexdigest()
    return found


def test_workers_and_repetition_leave_the_same_bytes(painted: Path, models: Path, tmp_path: Path) -> None:
    seen = []
    for number, workers in enumerate((1, 2, 2, 3)):
        _analyze([painted], tmp_path / str(number), models, workers=workers)
        seen.append(_digests(tmp_path / str(number)))
    assert len(seen[0]) >= 5
    assert all(digests == seen[0] for digests in seen)


def test_the_second_run_finds_the_work_done(painted: Path, models: Path, tmp_path: Path) -> None:
    assert _analyze([painted], tmp_path, models)[0].status == "done"
    before = (tmp_path / "painted" / "findings.json").stat().st_mtime_ns
    assert _analyze([painted], tmp_path, models)[0].status == "unchanged"
    assert (tmp_path / "painted" / "findings.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("lost", ["regions.geojson", "report.html", "heatmap.ome.tif", "findings.json"])
def test_a_lost_file_is_made_again(lost: str, painted: Path, models: Path, tmp_path: Path) -> None:
    _analyze([painted], tmp_path, models)
    whole = _digests(tmp_path)
    (tmp_path / "painted" / lost).unlink()
    outcome = _analyze([painted], tmp_path, models)[0]
    assert outcome.status == "done" and outcome.findings is not None
    assert outcome.findings.run.tiles_resumed > 0
    assert _digests(tmp_path) == whole


def test_a_changed_option_does_that_part_again(painted: Path, models: Path, tmp_path: Path) -> None:
    _analyze([painted], tmp_path, models, only=("tumor",))
    outcome = _analyze([painted], tmp_path, models)[0]
    assert outcome.status == "done" and outcome.findings is not None
    tiles = {stage.name: stage.tiles for stage in outcome.findings.stages}
    assert outcome.findings.run.tiles_resumed == tiles["tumor"]


def test_a_changed_slide_is_analyzed_again(models: Path, tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "s.tif", paint((900, 800), [(200, 200, 500, 500)]))
    first = _analyze([slide], tmp_path / "out", models)[0]
    write_slide(slide, paint((900, 800), [(200, 200, 700, 600)]))
    second = _analyze([slide], tmp_path / "out", models)[0]
    assert second.status == "done"
    assert first.findings is not None and second.findings is not None
    assert first.findings.slide.identity != second.findings.slide.identity
    assert second.findings.run.tiles_resumed == 0


def test_a_renamed_slide_keeps_its_identity(models: Path, tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "before.tif", paint((700, 600), []))
    first = _analyze([slide], tmp_path / "out", models)[0]
    second = _analyze([slide.rename(tmp_path / "after.tif")], tmp_path / "out", models)[0]
    assert first.findings is not None and second.findings is not None
    assert first.findings.slide.identity == second.findings.slide.identity


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], list[Path]]:
    """(16 good slides, 4 bad ones)."""
    folder = tmp_path_factory.mktemp("mixed")
    draw = np.random.default_rng(3)
    good = []
    for number in range(16):
        x, y = (int(v) for v in draw.integers(80, 200, 2))
        image = paint(
            (512, 448), [(x, y, x + 192, y + 160)], np.array([[x + 40, y + 40], [x + 90, y + 70]]), margin=32
        )
        good.append(write_slide(folder / f"good{number:02}.tif", image, levels=1))
    bad = [folder / name for name in ("empty.svs", "text.tif", "cut.tif", "gone.svs")]
    bad[0].touch()
    bad[1].write_text("this is a letter, not a slide")
    whole = good[0].read_bytes()
    bad[2].write_bytes(whole[: len(whole) // 2])
    return good, bad


def test_twenty_slides_of_which_four_are_bad_in_any_order(
    mixed: tuple[list[Path], list[Path]], models: Path, tmp_path: Path
) -> None:
    good, bad = mixed
    for order in range(2):
        slides = [*good, *bad]
        random.Random(order).shuffle(slides)
        outcomes = _analyze(slides, tmp_path / str(order), models, workers=2)
        assert sorted(o.slide for o in outcomes if o.status == "failed") == sorted(bad)
        assert all(o.reason and "\n" not in o.reason for o in outcomes if o.status == "failed")
    first, second = _digests(tmp_path / "0"), _digests(tmp_path / "1")
    assert first == second
    for slide in good[:3]:
        _analyze([slide], tmp_path / "alone", models)
        alone = _digests(tmp_path / "alone" / slide.stem)
        assert alone == _digests(tmp_path / "0" / slide.stem)
    with (tmp_path / "0" / "summary.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 20
    assert [row["slide"] for row in rows] == sorted(row["slide"] for row in rows)
    assert {row["slide"] for row in rows if row["status"] == "failed"} == {path.stem for path in bad}
    assert all(row["reason"] for row in rows if row["status"] == "failed")


def test_colliding_names_become_unique_whatever_the_order(tmp_path: Path) -> None:
    paths = []
    for folder, text in (("a", "one"), ("b", "two"), ("c", "two")):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "x.svs"
        path.write_text(text)
        paths.append(path)
    paths.append(tmp_path / "a" / "y.ome.tif")
    ids = slide_ids(paths)
    assert len(set(ids.values())) == 4
    assert ids[paths[3]] == "y"
    assert slide_ids(paths[::-1]) == ids


def test_results_that_cannot_be_written_end_the_run(painted: Path, models: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file, not a folder")
    with pytest.raises(ResultWriteError, match="cannot be written"):
        _analyze([painted], tmp_path / "out", models)


def test_one_results_folder_that_cannot_be_written_leaves_the_others_done(
    painted: Path, models: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.tif"
    other.write_bytes(painted.read_bytes())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "other").write_text("a file where a folder should be")
    outcomes = _analyze([other, painted], tmp_path / "out", models, only=("tumor",))
    assert [outcome.status for outcome in outcomes] == ["failed", "done"]
    assert "cannot be written" in outcomes[0].reason
    assert (tmp_path / "out" / "other").read_text() == "a file where a folder should be"


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL exists on POSIX systems alone")
def test_twenty_kills_at_random_moments_end_in_the_same_bytes(
    painted: Path, models: Path, tmp_path: Path
) -> None:
    _analyze([painted], tmp_path / "calm", models)
    command = [
        *RUN,
        str(painted),
        "--out",
        str(tmp_path / "killed"),
        "--models",
        str(models),
        "--nuclei",
        "all",
    ]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lasts = time.monotonic() - started
    names = {path.name for path in (tmp_path / "calm" / "painted").iterdir()}
    moments = random.Random(11)
    for number in range(20):
        out = tmp_path / f"killed{number % 4}"
        command[command.index("--out") + 1] = str(out)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(moments.uniform(0.3, 1.0) * lasts)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        if (out / "painted" / "findings.json").exists():
            json.loads((out / "painted" / "findings.json").read_text())
            assert names <= {path.name for path in (out / "painted").iterdir()}
    for number in range(4):
        out = tmp_path / f"killed{number}"
        command[command.index("--out") + 1] = str(out)
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert _digests(out) == _digests(tmp_path / "calm")
        assert {path.name for path in (out / "painted").iterdir()} == names


def test_a_second_run_on_the_same_results_is_refused_while_the_first_runs(
    painted: Path, models: Path, tmp_path: Path
) -> None:
    from lobule.analysis.work import FolderWork

    with FolderWork(tmp_path / "painted" / ".lobule"):
        outcome = _analyze([painted], tmp_path, models)[0]
    assert outcome.status == "failed"
    assert "another run is writing these results" in outcome.reason
