"""The command line as a user meets it: exit status, one clear line, no traceback, no connection."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_models import darkness_model, redness_model
from painted_slides import paint, write_slide

from lobule.cli.analyze import _bounds, _number
from lobule.findings.schema import Measurement

MAIN = "from lobule.cli import main; main()"
# any attempt to open a socket to somewhere, or to resolve a name, ends the process with a mark
NO_NETWORK = """
import os, socket, sys
def refused(*arguments, **named):
    sys.stderr.write("NETWORK USED\\n")
    sys.stderr.flush()
    os._exit(99)
socket.socket.connect = socket.socket.connect_ex = refused
socket.create_connection = socket.getaddrinfo = socket.gethostbyname = refused
"""


def lobule(*arguments: str | Path, code: str = MAIN, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    redness_model(folder / "redness")
    darkness_model(folder / "darkness")
    return folder


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    image = paint((900, 800), [(200, 200, 600, 600)], np.array([[300, 300], [400, 420]]))
    return write_slide(tmp_path_factory.mktemp("slides") / "a slide 😐.tif", image)


def test_analyze_ends_with_the_report_and_a_few_lines(slide: Path, models: Path, tmp_path: Path) -> None:
    done = lobule("analyze", slide, "--out", tmp_path, "--models", models)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.strip().startswith("report: ") and Path(last.split("report: ")[1]).is_file()
    assert "Tumor region, area: 0." in done.stdout
    again = lobule("analyze", slide, "--out", tmp_path, "--models", models)
    assert again.returncode == 0 and "already done, nothing changed" in again.stdout


def test_nothing_is_connected_to(slide: Path, tmp_path: Path) -> None:
    done = lobule("analyze", slide, "--out", tmp_path, "--nuclei", "2", code=NO_NETWORK + MAIN)
    assert done.returncode == 0, done.stderr
    assert "NETWORK" not in done.stdout + done.stderr
    guarded = lobule(code=NO_NETWORK + "import socket; socket.create_connection(('127.0.0.1', 9))")
    assert "NETWORK USED" in guarded.stderr, "the guard itself works"


def test_a_nuclei_graph_that_is_not_as_its_card_says_is_one_line_and_exits_2(
    slide: Path, models: Path, tmp_path: Path
) -> None:
    shutil.copytree(models, tmp_path / "models")
    card = tmp_path / "models" / "darkness" / "card.json"
    graph = json.loads(card.read_text())
    graph["graphs"][0]["outputs"][0]["name"] = "elsewhere"
    card.write_text(json.dumps(graph))
    done = lobule(
        "analyze", slide, slide, "--out", tmp_path / "o", "--models", tmp_path / "models", "--quiet"
    )
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("lobule: model darkness: ")


def test_a_summary_that_cannot_be_written_leaves_the_results_and_exits_1(
    slide: Path, models: Path, tmp_path: Path
) -> None:
    (tmp_path / "summary.csv" / "in the way").mkdir(parents=True)
    done = lobule("analyze", slide, "--out", tmp_path, "--models", models, "--only", "tumor")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"lobule: {tmp_path / 'summary.csv'}: cannot be written")
    assert "report: " in done.stdout


@pytest.mark.parametrize(
    ("value", "low", "high", "bounds", "said"),
    [
        (21570, None, None, None, "21,570"),
        (13330.4, 12000.0, 14000.0, "95 % interval", "13,330  (95 % interval 12,000 to 14,000)"),
        (0.0123456, 0.01, 0.02, "other thresholds", "0.01235  (0.01 to 0.02 at other thresholds)"),
        (0.5, 0.5, 0.5, "other thresholds", "0.5  (the same at other thresholds)"),
    ],
)
def test_numbers_are_said_in_full_with_what_their_bounds_are(
    value: float, low: float | None, high: float | None, bounds: Any, said: str
) -> None:
    one = Measurement(stage="s", name="n", label="l", value=value, unit="", low=low, high=high, bounds=bounds)
    assert f"{_number(value)}{_bounds(one)}" == said


def test_quiet_says_only_what_failed(slide: Path, models: Path, tmp_path: Path) -> None:
    done = lobule(
        "analyze", slide, tmp_path / "gone.svs", "--out", tmp_path / "o", "--models", models, "--quiet"
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and "gone.svs" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["analyze"], "Missing argument"),
        (["analyze", "x.svs"], "Missing option '--out'"),
        (["analyze", "x.svs", "--out", "o", "--runtime", "gpu"], "is not one of"),
        (["analyze", "x.svs", "--out", "o", "--precision", "int4"], "is not one of"),
        (
            ["analyze", "x.svs", "--out", "o", "--models", "tumor-breast-small0", "--precision", "int8"],
            "model tumor-breast-small0 has no int8 graph; choose auto, or make one with lobule prove",
        ),
        (["analyze", "x.svs", "--out", "o", "--workers", "0"], "--workers: 0 is not possible"),
        (["analyze", "x.svs", "--out", "o", "--max-ram", "lots"], "not an amount of memory"),
        (["analyze", "x.svs", "--out", "o", "--max-ram", "1M"], "give at least 256M"),
        (["analyze", "x.svs", "--out", "o", "--mpp", "quarter"], "--mpp: 'quarter' is not possible"),
        (["analyze", "x.svs", "--out", "o", "--mpp", "-1"], "--mpp"),
        (["analyze", "x.svs", "--out", "o", "--mpp", "nan"], "--mpp"),
        (["analyze", "x.svs", "--out", "o", "--mpp", "1e9"], "--mpp"),
        (["analyze", "x.svs", "--out", "o", "--only", "kidney"], "choose among tissue, tumor, nuclei"),
        (["analyze", "x.svs", "--out", "o", "--nuclei", "some"], "neither a number of tiles nor 'all'"),
        (["analyze", "x.svs", "--out", "o", "--models", "nowhere"], "neither a model folder"),
        (["analyze", "x.svs", "--out", "o", "--tissue", "nowhere.png"], "--tissue: 'nowhere.png'"),
        (["analyse", "x.svs"], "No such command"),
        (["check"], "Missing argument"),
        (["phantom", "o.tif", "--size", "0x10"], "--size"),
    ],
)
def test_wrong_use_exits_2_with_one_clear_line(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.svs").write_bytes(b"II*\0")
    done = lobule(*arguments)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_info_check_and_doctor_speak_of_what_is_there(slide: Path, models: Path) -> None:
    info = lobule("info", slide)
    assert info.returncode == 0 and "900 × 800 px" in info.stdout and "0.5 µm/px" in info.stdout
    check = lobule("check", slide, slide, "--models", models)
    assert check.returncode == 0 and "1 of 1 slides can be analyzed" in check.stdout
    doctor = lobule("doctor")
    assert "cores" in doctor.stdout and "OpenVINO" in doctor.stdout


def test_check_names_duplicates_and_bad_slides(slide: Path, models: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.tif"
    copy.write_bytes(slide.read_bytes())
    bad = tmp_path / "bad.svs"
    bad.write_text("nothing")
    done = lobule("check", slide, copy, bad, "--models", models)
    assert done.returncode == 1
    assert f"the same slide as {slide}" in done.stdout
    assert f"BAD   {bad}" in done.stdout


def test_a_table_of_mpp_serves_slides_that_do_not_say_it(models: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(paint((600, 500), [(100, 100, 400, 400)], margin=20)).save(tmp_path / "field.png")
    refused = lobule("analyze", tmp_path / "field.png", "--out", tmp_path / "o", "--models", models)
    assert refused.returncode == 1 and "--mpp 0.25" in refused.stderr
    assert not (tmp_path / "o" / "field").exists()
    (tmp_path / "mpp.csv").write_text("slide,mpp\nfield.png,0.5\n")
    command = ["analyze", tmp_path / "field.png", "--out", tmp_path / "o", "--models", models]
    done = lobule(*command, "--mpp", tmp_path / "mpp.csv")
    assert done.returncode == 0, done.stderr
