"""Many slides: resume, kills, order, failures."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from mirax_slides import write_mirax
from painted_slides import paint, write_slide

from lobule import analyze, open_slide
from lobule.analysis import batch, checking
from lobule.analysis.batch import Outcome, analyze_slides, slide_ids
from lobule.analysis.checking import check_slides
from lobule.analysis.options import Options
from lobule.analysis.work import FolderWork
from lobule.errors import ConfigurationError, ModelOutputError, ResultWriteError
from lobule.geometry import Mpp
from lobule.machine import granted_cores
from lobule.progress import LineReporter, QuietReporter

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
    with FolderWork(tmp_path / "painted" / ".lobule"):
        outcome = _analyze([painted], tmp_path, models)[0]
    assert outcome.status == "failed"
    assert "another run is writing these results" in outcome.reason


def _words(slides: list[Path], out: Path, models: Path, **choices: Any) -> tuple[tuple[Outcome, ...], str]:
    """The outcomes and what was said."""
    said = io.StringIO()
    options = Options(models=(str(models),), **{"only": ("tumor",), **choices})
    outcomes = analyze_slides(slides, out, options, mpp=None, reporter=LineReporter(said))
    return outcomes, said.getvalue()


def _rows(out: Path) -> list[dict[str, str]]:
    with (out / "summary.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize(
    ("choices", "where", "warned"),
    [
        ({"only": ("tumor", "nuclei")}, "tumor region", False),
        # the tumor stage is skipped
        ({"only": ("tumor", "nuclei"), "specimen": "node"}, "tissue", True),
        ({"only": ("nuclei",)}, "tissue", False),
        ({"only": ("tumor", "nuclei"), "tissue": True}, "tumor region in tissue given", False),
        ({"only": ("tumor", "nuclei"), "tissue": True, "specimen": "node"}, "tissue given", True),
        ({"only": ("tumor",)}, "", False),
    ],
)
def test_the_summary_says_where_nuclei_were_counted(
    choices: dict[str, Any], where: str, warned: bool, painted: Path, models: Path, tmp_path: Path
) -> None:
    if "tissue" in choices:
        ring = [[200, 200], [1000, 200], [1000, 700], [200, 700], [200, 200]]
        choices = {**choices, "tissue": tmp_path / "tissue.geojson"}
        choices["tissue"].write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    _words([painted], tmp_path / "out", models, **choices)
    (row,) = _rows(tmp_path / "out")
    assert row["nuclei_where"] == where
    assert (row["nuclei_counted"] == "") == (where == "")
    assert ("nuclei-in-tissue" in row["warnings"].split("; ")) == warned


@pytest.fixture
def namesakes(tmp_path: Path) -> tuple[Path, Path]:
    """Two slides of one name in two folders."""
    paths = []
    for folder, side in (("x", 500), ("y", 600)):
        (tmp_path / folder).mkdir()
        paths.append(
            write_slide(tmp_path / folder / "f.tif", paint((900, 800), [(200, 200, side, side)]), levels=1)
        )
    return paths[0], paths[1]


def test_a_second_slide_of_the_same_name_leaves_the_first_ones_results(
    namesakes: tuple[Path, Path], models: Path, tmp_path: Path
) -> None:
    first, second = namesakes
    out = tmp_path / "out"
    _words([first], out, models)
    kept = _digests(out / "f")
    outcomes, said = _words([second], out, models)
    assert _digests(out / "f") == kept
    (outcome,) = outcomes
    assert outcome.status == "done" and outcome.findings is not None and outcome.folder is not None
    assert outcome.slide_id == outcome.folder.name == f"f-{outcome.findings.slide.identity[:8]}"
    assert f"{second}: {out / 'f'} holds another slide of that name" in said
    assert [row["results"] for row in _rows(out)] == ["f", outcome.slide_id]
    assert [_words([slide], out, models)[0][0].status for slide in namesakes] == ["unchanged"] * 2


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_slide_that_has_results_keeps_their_folder_beside_a_namesake(
    order: tuple[int, int], namesakes: tuple[Path, Path], models: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    _words([namesakes[0]], out, models)
    outcomes, _ = _words([namesakes[number] for number in order], out, models)
    status = {outcome.slide: outcome.status for outcome in outcomes}
    assert status == {namesakes[0]: "unchanged", namesakes[1]: "done"}
    assert len(_rows(out)) == 2
    again, _ = _words([namesakes[1]], out, models)
    assert again[0].status == "unchanged" and len(_rows(out)) == 2


def test_a_file_that_cannot_be_read_does_not_hide_the_results_of_its_namesake(
    painted: Path, models: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    _words([painted], out, models)
    (tmp_path / painted.name).write_text("no slide")
    _words([tmp_path / painted.name], out, models)
    assert [row["status"] for row in _rows(out)] == ["done", "failed"]


def test_results_that_a_rerun_replaces_and_removes_are_named(
    painted: Path, models: Path, tmp_path: Path
) -> None:
    _words([painted], tmp_path, models, only=("tumor", "nuclei"), nuclei_tiles=2)
    _, said = _words([painted], tmp_path, models)
    assert "were made with other options" in said and "will be replaced" in said
    assert "painted: removed, since this run does not make them: nuclei.csv.gz, nuclei.geojson.gz" in said
    assert "replaced" not in _words([painted], tmp_path, models)[1]


@pytest.mark.parametrize("damaged", ["regions.geojson", "heatmap.ome.tif", "report.html"])
def test_a_damaged_file_of_the_same_size_is_made_again(
    damaged: str, painted: Path, models: Path, tmp_path: Path
) -> None:
    _words([painted], tmp_path, models)
    whole = _digests(tmp_path)
    path = tmp_path / "painted" / damaged
    path.write_bytes(b"" if damaged == "report.html" else bytes(path.stat().st_size))
    outcomes, said = _words([painted], tmp_path, models)
    assert outcomes[0].status == "done" and "lost or changed; they are made again" in said
    assert _digests(tmp_path) == whole and path.stat().st_size > 0


def test_a_slide_that_needs_more_than_max_ram_leaves_the_others_done(
    painted: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # so much an overview pixel that the painted slide's overview is beyond the bound and the small one's is not
    monkeypatch.setattr("lobule.analysis.memory.BYTES_PER_OVERVIEW_PIXEL", 600)
    small = write_slide(
        tmp_path / "small.tif", paint((500, 400), [(200, 200, 300, 300)], margin=32), levels=1
    )
    outcomes, said = _words([painted, small], tmp_path / "out", models, max_ram_bytes=460_000_000)
    assert [outcome.status for outcome in outcomes] == ["failed", "done"]
    assert "painted: failed at analyze: --max-ram: '460M' is not possible here; this slide" in said
    assert [row["status"] for row in _rows(tmp_path / "out")] == ["failed", "done"]
    assert not (tmp_path / "out" / "painted").exists()


def test_a_max_ram_in_which_no_slide_fits_ends_the_run_before_the_first(
    painted: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lobule.analysis.memory.BASE_BYTES", 500_000_000)
    with pytest.raises(ConfigurationError, match="one worker needs about 5"):
        _words([painted], tmp_path / "out", models, max_ram_bytes=400_000_000)
    assert not (tmp_path / "out" / "painted").exists()


def test_a_summary_that_cannot_be_written_leaves_the_slides_done_and_is_tried_again(
    namesakes: tuple[Path, Path], models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[Path] = []
    write = batch.write_summary

    def fail_first(path: Path, rows: Any) -> None:
        tries.append(path)
        if len(tries) == 1:
            raise ResultWriteError(path, "cannot be written: no room")
        write(path, rows)

    monkeypatch.setattr(batch, "write_summary", fail_first)
    outcomes, said = _words(list(namesakes), tmp_path / "out", models)
    assert [outcome.status for outcome in outcomes] == ["done", "done"]
    assert "no room; it is tried again" in said and len(_rows(tmp_path / "out")) == 2


def test_a_summary_that_still_cannot_be_written_at_the_end_is_an_error_after_every_slide(
    namesakes: tuple[Path, Path], models: Path, tmp_path: Path
) -> None:
    (tmp_path / "out" / "summary.csv" / "in the way").mkdir(parents=True)
    seen: list[Outcome] = []
    with pytest.raises(ResultWriteError, match=r"summary\.csv: cannot be written"):
        analyze_slides(
            namesakes,
            tmp_path / "out",
            Options(models=(str(models),), only=("tumor",)),
            mpp=None,
            reporter=QuietReporter(),
            each=seen.append,
        )
    assert [outcome.status for outcome in seen] == ["done", "done"]


def _misdescribe(folder: Path) -> None:
    """Gives the output of a model's graph a name that the graph does not know; the digests stay right."""
    card = json.loads((folder / "card.json").read_text())
    card["graphs"][0]["outputs"][0]["name"] = "elsewhere"
    (folder / "card.json").write_text(json.dumps(card))


@pytest.mark.parametrize("wrong", ["redness", "darkness"])
def test_a_graph_that_is_not_as_its_card_says_ends_the_run_with_one_error(
    wrong: str, namesakes: tuple[Path, Path], models: Path, tmp_path: Path
) -> None:
    shutil.copytree(models, tmp_path / "models")
    _misdescribe(tmp_path / "models" / wrong)
    seen: list[Outcome] = []
    with pytest.raises(ModelOutputError, match=f"model {wrong}: "):
        analyze_slides(
            namesakes,
            tmp_path / "out",
            Options(models=(str(tmp_path / "models"),)),
            mpp=None,
            reporter=QuietReporter(),
            each=seen.append,
        )
    assert not seen


def test_a_nuclei_graph_that_cannot_be_loaded_is_found_before_the_first_tumor_tile(
    painted: Path, models: Path, tmp_path: Path
) -> None:
    from lobule.analysis.networks import equip

    shutil.copytree(models, tmp_path / "models")
    _misdescribe(tmp_path / "models" / "darkness")
    options = Options(models=(str(tmp_path / "models"),))
    equipment = equip(options)
    deadline = time.monotonic() + 60
    while equipment.networks.failure() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(ModelOutputError, match="model darkness: "):
        analyze_slides(
            [painted], tmp_path / "out", options, mpp=None, reporter=QuietReporter(), equipment=equipment
        )
    assert not (tmp_path / "out" / "painted").exists()


def test_a_slide_that_the_table_of_mpp_lacks_is_told_so(models: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(paint((600, 500), [], margin=20)).save(tmp_path / "field.png")
    said = "the table given with --mpp has no row for field.png"
    options = Options(models=(str(models),), only=("tumor",))
    table = {"other.png": Mpp(0.5, 0.5)}
    (outcome,) = analyze_slides(
        [tmp_path / "field.png"], tmp_path / "out", options, mpp=table, reporter=QuietReporter()
    )
    assert said in outcome.reason
    (checked,) = check_slides([tmp_path / "field.png"], options, table)
    assert said in checked.problems[0]


def test_rows_of_the_table_of_mpp_that_name_no_slide_are_told(models: Path, tmp_path: Path) -> None:
    pyramid = tmp_path / "case1.ome.tif"
    tifffile.imwrite(
        pyramid,
        paint((600, 500), [], margin=20),
        photometric="rgb",
        metadata={"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5},
    )
    said = io.StringIO()
    table = {"case1": Mpp(0.25, 0.25), "cas2": Mpp(0.25, 0.25)}
    options = Options(models=(str(models),), only=("tumor",))
    (outcome,) = analyze_slides([pyramid], tmp_path / "out", options, mpp=table, reporter=LineReporter(said))
    assert outcome.findings is not None and outcome.findings.frame.mpp_um_per_px == (0.25, 0.25)
    assert "no slide here is called as these rows of the table given with --mpp: cas2\n" in said.getvalue()


def test_a_slide_that_another_run_did_meanwhile_is_done_in_the_summary(
    painted: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with FolderWork(out / "painted" / ".lobule"):
        (locked,), said = _words([painted], out, models)
        assert "failed at lock: " in said and "another run is writing" in locked.reason
    assert [row["status"] for row in _rows(out)] == ["failed"]
    _words([painted], out, models)
    batch._write_summary(out, [locked], QuietReporter())
    assert [row["status"] for row in _rows(out)] == ["done"]


def test_a_file_system_without_locks_is_told_and_written_to(
    painted: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl", reason="Windows locks otherwise")

    def refuse(error: int) -> None:
        def flock(descriptor: int, how: int) -> None:
            raise OSError(error, os.strerror(error))

        monkeypatch.setattr(fcntl, "flock", flock)

    refuse(errno.EIO)
    (outcome,), _ = _words([painted], tmp_path / "broken", models)
    assert outcome.status == "failed" and "cannot be locked: Input/output error" in outcome.reason
    refuse(errno.ENOLCK)
    (outcome,), said = _words([painted], tmp_path / "out", models)
    assert outcome.status == "done" and "has no locks" in said


@pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode elsewhere")
def test_a_name_that_is_not_utf8_is_analyzed_once(painted: Path, models: Path, tmp_path: Path) -> None:
    named = tmp_path / os.fsdecode(b"sl\xe9.tif")
    shutil.copy(painted, named)
    (outcome,), _ = _words([named], tmp_path / "out", models)
    assert outcome.status == "done" and outcome.findings is not None
    assert outcome.findings.slide.file == "sl\\udce9.tif"
    assert [row["slide"] for row in _rows(tmp_path / "out")] == ["sl\\udce9"]
    assert _words([named], tmp_path / "out", models)[0][0].status == "unchanged"
    done = subprocess.run(
        [*RUN, named, "--out", tmp_path / "out", "--models", models, "--only", "tumor"], capture_output=True
    )
    assert done.returncode == 0 and b"already done" in done.stderr, done.stderr


def test_check_counts_a_thorough_look_at_nuclei_eight_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    Image.fromarray(paint((600, 500), [(100, 100, 400, 400)], margin=20)).save(tmp_path / "field.png")
    monkeypatch.setattr(
        checking, "measure_costs", lambda models, runtime: checking.Costs({"nuclei": 10.0}, {})
    )
    monkeypatch.setattr(checking, "_read_seconds", lambda slide, box, frame: 0.0)

    def seconds(thorough: bool) -> float:
        options = Options(only=("nuclei",), thorough=thorough, workers=1)
        (checked,) = check_slides([tmp_path / "field.png"], options, Mpp(0.25, 0.25))
        return checked.seconds

    assert seconds(thorough=True) - seconds(thorough=False) == pytest.approx(7 * 10.0)


def test_the_report_says_that_memory_and_bytes_read_are_the_process_s(
    painted: Path, models: Path, tmp_path: Path
) -> None:
    _words([painted], tmp_path, models)
    page = (tmp_path / "painted" / "report.html").read_text("utf-8")
    assert "Peak memory of this process so far" in page and "Read by this process so far" in page


@pytest.mark.parametrize("name", ["...png", "..png"])
def test_a_name_of_dots_does_not_lead_out_of_the_results_folder(
    name: str, models: Path, tmp_path: Path
) -> None:
    from PIL import Image

    Image.fromarray(paint((500, 400), [(200, 200, 300, 300)])).save(tmp_path / name, "PNG")
    out = tmp_path / "results"
    out.mkdir()
    for folder in (tmp_path, out):
        (folder / "report.html").write_text("mine")
    options = Options(models=(str(models),), only=("tumor",))
    (outcome,) = analyze_slides([tmp_path / name], out, options, mpp=Mpp(0.5, 0.5), reporter=QuietReporter())
    assert outcome.folder == out / name
    assert [(folder / "report.html").read_text() for folder in (tmp_path, out)] == ["mine"] * 2
    assert [row["slide"] for row in _rows(out)] == [name]


def test_failures_of_earlier_runs_stay_in_the_summary_until_the_slide_is_done(
    painted: Path, models: Path, tmp_path: Path
) -> None:
    """One command a slide, as a cluster's array of jobs gives them."""
    out, bad = tmp_path / "out", tmp_path / "=bad.tif"
    bad.write_text("no slide")
    _words([bad], out, models)
    _words([painted], out, models)
    for _ in range(2):
        assert {row["slide"]: row["status"] for row in _rows(out)} == {"'=bad": "failed", "painted": "done"}
        _words([bad], out, models)
    write_slide(bad, paint((500, 400), [(200, 200, 300, 300)], margin=32), levels=1)
    _words([bad], out, models)
    assert [row["status"] for row in _rows(out)] == ["done", "done"]


def test_one_picture_in_two_formats_keeps_two_folders(models: Path, tmp_path: Path) -> None:
    content = tmp_path / "x.tif"
    write_slide(content, paint((500, 400), [(200, 200, 300, 300)], margin=32), levels=1)
    slides = [content, Path(shutil.copy(content, tmp_path / "x.svs"))]
    out = tmp_path / "out"
    first, _ = _words(slides, out, models)
    assert [outcome.status for outcome in first] == ["done", "done"] and len(_rows(out)) == 2
    again, _ = _words(slides, out, models)
    assert [outcome.status for outcome in again] == ["unchanged", "unchanged"] and len(_rows(out)) == 2


def test_a_slide_that_is_all_its_folder_holds_gets_no_results_there(models: Path, tmp_path: Path) -> None:
    path = write_mirax(tmp_path / "case.mrxs", paint((1280, 1024), [(256, 256, 768, 640)]), mpp=0.5)
    before = sorted((tmp_path / "case").iterdir())
    (first,), said = _words([path], tmp_path, models)
    assert first.status == "done" and first.folder is not None and first.folder.name != "case"
    assert f"case holds its own files; its results go to {first.folder.name}" in said
    assert sorted((tmp_path / "case").iterdir()) == before
    (second,), _ = _words([path], tmp_path, models)
    assert second.status == "unchanged" and second.folder == first.folder
    assert len(_rows(tmp_path)) == 1
    with open_slide(path) as slide, pytest.raises(ResultWriteError, match="holds the slide's own files"):
        analyze(slide, only=("tumor",), options=Options(models=(str(models),))).write(tmp_path)


def test_no_failure_is_lost_when_many_runs_write_one_summary(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    code = (
        "import sys; from pathlib import Path; from lobule.analysis import batch; "
        "from lobule.progress import QuietReporter; slide = Path(sys.argv[2]); "
        "failed = batch.Outcome(slide, slide.stem, 'failed', 'open', 'no slide', None, None); "
        "[batch._write_summary(Path(sys.argv[1]), [failed], QuietReporter()) for _ in range(5)]"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", code, str(out), f"bad{number}.svs"]) for number in range(6)
    ]
    assert [run.wait(60) for run in runs] == [0] * 6
    assert [row["slide"] for row in _rows(out)] == [f"bad{number}" for number in range(6)]


def test_somebody_elses_table_is_set_aside(models: Path, tmp_path: Path) -> None:
    (tmp_path / "summary.csv").write_text("case,notes\n1,mine\n")
    (tmp_path / "summary.csv.old").write_text("older")
    (outcome,), said = _words([tmp_path / "missing.svs"], tmp_path, models)
    assert outcome.status == "failed" and len(_rows(tmp_path)) == 1
    assert "summary.csv was another table than lobule's; it is now summary.csv.old1" in said
    assert (tmp_path / "summary.csv.old1").read_text() == "case,notes\n1,mine\n"
    assert (tmp_path / "summary.csv.old").read_text() == "older"


def test_a_slide_called_as_the_summary_does_not_take_its_place(models: Path, tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "Summary.csv.tif", paint((700, 600), []))
    (outcome,) = _analyze([slide], tmp_path / "out", models, only=("tumor",))
    assert outcome.status == "done" and outcome.slide_id == "Summary.csv.tif"
    assert (tmp_path / "out" / "summary.csv").is_file()


def test_more_workers_than_cores_make_nothing_faster(painted: Path, models: Path) -> None:
    cores = granted_cores()
    seconds = {
        workers: check_slides([painted], Options(models=(str(models),), workers=workers), None)[0].seconds
        for workers in (cores, 64)
    }
    assert seconds[64] > seconds[cores] / 4
