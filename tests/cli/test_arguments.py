"""What is named on the command line: folders, series, numbers, and what cannot be looked at."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from drawn_models import redness_model
from painted_slides import paint, write_slide

from lobule.cli import main
from lobule.cli.analyze import existing_slides, parse_mpp, parse_nuclei
from lobule.errors import ConfigurationError


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return redness_model(tmp_path_factory.mktemp("models") / "redness")


@pytest.fixture
def unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder into which this process may not look, whoever runs it."""
    folder = tmp_path / "private"
    folder.mkdir()
    if os.geteuid() != 0:
        folder.chmod(0)
        yield folder
        folder.chmod(0o700)
        return
    stat, listdir = Path.stat, Path.iterdir

    def refused(path: Path) -> None:
        if folder in path.parents:
            raise PermissionError(13, "Permission denied", str(path))

    def guarded_stat(path: Path, **how: Any) -> os.stat_result:
        refused(path)
        return stat(path, **how)

    def guarded_iterdir(path: Path) -> Iterator[Path]:
        refused(path / "any")
        return listdir(path)

    monkeypatch.setattr(Path, "stat", guarded_stat)
    monkeypatch.setattr(Path, "iterdir", guarded_iterdir)
    yield folder


def test_a_folder_that_may_not_be_read_is_wrong_use_in_one_line(unreadable: Path) -> None:
    with pytest.raises(click.BadParameter, match="private: this folder cannot be read: Permission denied"):
        existing_slides((str(unreadable),))


def test_a_slide_in_a_folder_that_may_not_be_read_fails_alone(unreadable: Path, models: Path) -> None:
    from lobule.analysis.checking import check_slides
    from lobule.analysis.options import Options

    named = existing_slides((str(unreadable / "x.svs"),))
    (checked,) = check_slides(named, Options(models=(str(models),), only=("tumor",)), None)
    assert "x.svs: the file cannot be read: Permission denied" in checked.problems[0]


def test_a_table_in_a_folder_that_may_not_be_read_is_said(unreadable: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: Permission denied"):
        parse_mpp(str(unreadable / "mpp.csv"))


@pytest.mark.parametrize("text", ["²", "0", "-1", "1.5", "", "½"])
def test_what_is_no_number_of_tiles_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="neither a number of tiles nor 'all'"):
        parse_nuclei(text)


def test_the_files_of_a_dicom_series_are_one_slide(slides_dir: Path, tmp_path: Path) -> None:
    series = slides_dir / "dicom" / "cmu-1-small-region"
    (largest,) = existing_slides((str(series),))
    assert largest == series / "level-0.dcm"
    named = [str(path) for path in sorted(series.iterdir(), reverse=True)]
    assert existing_slides(tuple(named)) == [largest]
    assert existing_slides((str(series / "level-3.dcm"),)) == [series / "level-3.dcm"]
    # another series and a file that is no DICOM stand for themselves
    for number in (0, 1):
        (tmp_path / f"{number}.dcm").write_bytes((series / f"level-{number}.dcm").read_bytes())
    (tmp_path / "other.dcm").write_bytes((slides_dir / "dicom" / "sm_image.dcm").read_bytes())
    (tmp_path / "damaged.dcm").write_text("no DICOM")
    names = [path.name for path in existing_slides((str(tmp_path),))]
    assert names == ["0.dcm", "damaged.dcm", "other.dcm"]


def test_quiet_names_a_failed_slide_once(models: Path, tmp_path: Path) -> None:
    from lobule.cli.analyze import analyze

    command = [str(tmp_path / "gone.svs"), "-o", str(tmp_path / "o"), "-m", str(models), "--quiet"]
    done = CliRunner().invoke(analyze, [*command, "--only", "tumor"])
    assert done.stderr.count("gone.svs") == 1 and "there is no such file" in done.stderr


def test_a_profile_of_a_slide_that_was_done_before_is_explained(models: Path, tmp_path: Path) -> None:
    from lobule.cli.analyze import analyze

    slide = write_slide(tmp_path / "s.tif", paint((600, 500), [(100, 100, 400, 400)], margin=20), levels=1)
    command = [str(slide), "-o", str(tmp_path / "o"), "-m", str(models), "--only", "tumor"]
    assert CliRunner().invoke(analyze, command).exit_code == 0
    again = CliRunner().invoke(analyze, [*command, "--profile"])
    assert "s: no profile: it was done before" in again.stdout


def test_info_says_that_the_mpp_is_the_tables_or_that_the_table_lacks_the_slide(tmp_path: Path) -> None:
    from PIL import Image

    from lobule.cli.info import info

    Image.fromarray(paint((300, 200), [], margin=20)).save(tmp_path / "field.png")
    (tmp_path / "mpp.csv").write_text("slide,mpp\nfield.png,0.5\n")
    command = [str(tmp_path / "field.png"), "--mpp", str(tmp_path / "mpp.csv")]
    assert "0.5 µm/px, from the table" in CliRunner().invoke(info, command).stdout
    (tmp_path / "mpp.csv").write_text("slide,mpp\nother.png,0.5\n")
    assert "has no row for field.png" in CliRunner().invoke(info, command).stdout


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            "import_torch",
            r"scoring or exporting a network needs torch: pip install '\.\[train\]' in lobule's folder$",
        ),
        (
            "import_timm",
            r"scoring or exporting a network needs torch: pip install '\.\[train\]' in lobule's folder$",
        ),
        ("--runtime torch", r"--runtime torch needs torch: pip install '\.\[torch\]' in lobule's folder$"),
    ],
)
def test_without_torch_what_needs_it_is_named(call: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from lobule.errors import MissingDependencyError
    from lobule.runtimes import torch_builds

    def absent(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(torch_builds, "import_module", absent)
    with pytest.raises(MissingDependencyError, match=said):
        if call.startswith("import"):
            getattr(torch_builds, call)()
        else:
            torch_builds.import_beside_torch("onnx2torch", "torch", call)


def test_an_empty_name_is_not_the_working_folder() -> None:
    with pytest.raises(click.BadParameter, match="one name is empty"):
        existing_slides(("",))


def test_what_macos_leaves_beside_files_on_foreign_disks_is_no_slide(tmp_path: Path) -> None:
    for name in ("case.svs", "._case.svs"):
        (tmp_path / name).write_text("x")
    assert existing_slides((str(tmp_path),)) == [tmp_path / "case.svs"]
    assert existing_slides((str(tmp_path / "._case.svs"),)) == [tmp_path / "._case.svs"]


@pytest.mark.parametrize(("command", "goes_on"), [("analyze", True), ("check", False)])
def test_only_a_command_that_goes_on_says_so_when_interrupted(
    command: str, goes_on: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lobule.cli._lobule.main", interrupted)
    with pytest.raises(SystemExit) as leaving:
        main([command, "x.svs"])
    assert leaving.value.code == 130
    said = capsys.readouterr().err
    assert said.startswith("interrupted") and ("goes on from here" in said) == goes_on


def test_what_is_no_slide_among_many_names_is_left_out_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (
        "a.png",
        "S1.mrxs",
        "S1/Slidedat.ini",
        "notes/read.txt",
        "a/findings.json",
        "a/heatmap.ome.tif",
        "summary.csv",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    named = sorted(str(file) for file in tmp_path.iterdir())
    assert existing_slides((*named, str(tmp_path / "notes" / ".." / "a.png"))) == [
        tmp_path / "S1.mrxs",
        tmp_path / "a.png",
    ]
    told = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[0] for line in told] == [
        str(tmp_path / name) for name in ("a", "notes", "summary.csv")
    ]
    assert existing_slides((str(tmp_path),)) == [tmp_path / "S1.mrxs", tmp_path / "a.png"]
    with pytest.raises(click.BadParameter, match="notes: no slides in this folder"):
        existing_slides((str(tmp_path / "notes"),))


def test_a_table_tells_slides_of_one_name_by_their_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    from lobule.analysis.given_mpp import open_with_mpp, rows_of_no_slide

    slides = [tmp_path / folder / "f.png" for folder in ("s1", "s2", "s3")]
    for slide in slides:
        slide.parent.mkdir()
        Image.new("RGB", (8, 8)).save(slide)
    table = tmp_path / "tables" / "mpp.csv"
    table.parent.mkdir()
    table.write_text(f"slide,mpp\n../s1/f.png,0.25\ns2/f.png,0.3\n{slides[2]},0.5\ns4/f.png,0.1\n")
    monkeypatch.chdir(tmp_path)
    given = parse_mpp(str(table))
    found = []
    for slide in (Path("s1/f.png"), slides[1], Path("s3/../s3/f.png")):
        with open_with_mpp(slide, given) as opened:
            assert opened.properties.mpp is not None
            found.append(opened.properties.mpp.x)
    assert found == [0.25, 0.3, 0.5]
    said = rows_of_no_slide(slides, given)
    assert said is not None and said.endswith(": s4/f.png")
