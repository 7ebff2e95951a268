"""``lobule phantom`` on the command line."""

from __future__ import annotations

from pathlib import Path

import openslide
import pytest
from click.testing import CliRunner

from lobule.cli.phantom import phantom
from lobule.errors import ConfigurationError


def test_a_size_in_millimeters_becomes_pixels(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        phantom,
        [str(tmp_path / "a.svs"), "--mm", "1x0.5", "--mpp", "0.5", "--tissue", "0"],
        catch_exceptions=False,
    )
    assert result.exit_code == 0
    assert "2000 x 1000 px at 0.5 µm" in result.output
    with openslide.OpenSlide(tmp_path / "a.svs") as slide:
        assert slide.dimensions == (2000, 1000)
        assert float(slide.properties["openslide.mpp-x"]) == 0.5
        assert float(slide.properties["openslide.objective-power"]) == 20


def test_fields_are_written_at_half_a_micrometer(field_folder: Path, tmp_path: Path) -> None:
    arguments = [str(tmp_path / "a.tif"), "--size", "1500x1200", "--fields", str(field_folder), "--quiet"]
    result = CliRunner().invoke(phantom, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert result.output == ""
    with openslide.OpenSlide(tmp_path / "a.tif") as slide:
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--size", "10"],
        ["--size", "axb"],
        ["--size", "100.5x2000"],
        ["--size", "-5x2000"],
        ["--size", "nanx2000"],
        ["--size", "infx2000"],
        ["--size", "100x2000"],
        ["--size", "1000x1000", "--mm", "1x1"],
        ["--mm", "0x1"],
        ["--mm", "1e9x1"],
        ["--mm", "1x1", "--mpp", "nan"],
        ["--mm", "1x1", "--mpp", "0"],
        ["--mm", "1x1", "--tissue", "2"],
        ["--mm", "1x1", "--seed", "-1"],
        ["--mm", "1x1", "--workers", "0"],
        ["--mm", "1x1", "--labels", __file__],
    ],
)
def test_a_bad_argument_is_refused_in_one_line(arguments: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(phantom, [str(tmp_path / "a.tif"), *arguments])
    assert isinstance(result.exception, ConfigurationError)
    assert "\n" not in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_no_slide_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(phantom, [str(tmp_path / "a.png"), "--mm", "1x1"])
    assert isinstance(result.exception, ConfigurationError)
