"""Tables, bars, the picture, and which rows run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from analyses import precision_of, precisions
from report import Bar, Row, bar_table, number, row_text, table, write_report
from run import DEFAULT, chosen_rows
from scaling import fitted_exponent


def test_a_table_is_markdown_with_its_pipes_escaped() -> None:
    assert table(["a", "b"], [["1", "x|y"]]) == "| a | b |\n| --- | --- |\n| 1 | x\\|y |"


def test_a_ragged_table_is_refused() -> None:
    with pytest.raises(ValueError, match="1 cells under 2 columns"):
        table(["a", "b"], [["1"]])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.85, "0.850"),
        (1.0, "1.00"),
        (12.34, "12.3"),
        (459.4, "459"),
        (1234.5, "1,234"),
        (0.0, "0"),
        (2.76, "2.76"),
    ],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "limit", "better", "reached", "share"),
    [
        (0.9, 0.85, "higher", True, 0.9 / 0.85),
        (0.8, 0.85, "higher", False, 0.8 / 0.85),
        (200, 250, "lower", True, 1.25),
        (500, 250, "lower", False, 0.5),
        (0, 0, "lower", True, float("inf")),
    ],
)
def test_a_bar_is_reached_on_its_good_side(
    value: float, limit: float, better: str, reached: bool, share: float
) -> None:
    bar = Bar("x", value, limit, better)  # type: ignore[arg-type]
    assert bar.reached is reached
    assert bar.share == pytest.approx(share)
    assert ("**no**" in bar_table([bar])) is not reached


def test_a_report_is_text_numbers_and_a_picture(tmp_path: Path) -> None:
    from PIL import Image

    bars = (Bar("wide → narrow", 0.5, 0.35, "lower", " s"), Bar("shares", 0.9, 0.85, "higher"))
    row = Row("r", "A row", ("what", "s"), (("x", "1"),), ("a note",), bars, {"walls": [1.0, 2.0]})
    write_report(tmp_path / "r", [row], {"processor": "P", "cores": 2})
    text = (tmp_path / "r" / "report.md").read_text("utf-8")
    assert row_text(row) in text
    assert "- processor: P" in text
    data = json.loads((tmp_path / "r" / "report.json").read_text("utf-8"))
    assert data["rows"][0]["numbers"] == {"walls": [1.0, 2.0]}
    with Image.open(tmp_path / "r" / "report.png") as image:
        colors = {color for _, color in image.convert("RGB").getcolors(1 << 20) or []}
    assert (46, 125, 110) in colors  # one bar reached
    assert (196, 78, 62) in colors  # one not


def test_rows_are_the_quick_ones_unless_chosen_and_memory_is_part_of_the_pipeline() -> None:
    assert chosen_rows("") == list(DEFAULT)
    assert chosen_rows("half, memory,pipeline,half") == ["half", "pipeline"]


def test_the_exponent_of_a_power_is_found() -> None:
    amounts = [0.1, 1.0, 10.0, 26.0]
    assert fitted_exponent(amounts, [3 * a**1.2 for a in amounts]) == pytest.approx(1.2)
    with pytest.raises(ValueError, match="two points"):
        fitted_exponent([1.0], [1.0])


def test_precisions_are_read_from_the_help_and_from_what_a_runtime_says() -> None:
    help_text = "  --precision [auto|float32|bfloat16|int8]\n      Arithmetic."
    assert precisions(help_text) == ("auto", "float32", "bfloat16", "int8")
    assert precisions("  --mpp TEXT") == ()
    assert [precision_of(word) for word in ("OpenVINO 2026.4, CPU, float32", "bfloat16", "BF16", "int8")] == [
        "f32",
        "bf16",
        "bf16",
        "int8",
    ]
