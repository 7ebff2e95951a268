"""What a measurement gives: a table, its notes, and figures held against the bars; as markdown, JSON and a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

PLAIN = str.maketrans({"→": "to", "≤": "at most", "≥": "at least", "×": "x", "²": "2"})
"""For the picture: Pillow's own font lacks these."""


@dataclass(frozen=True)
class Bar:
    """One figure against its limit. ``better``: on which side of the limit it must lie."""

    what: str
    value: float
    limit: float
    better: Literal["lower", "higher"]
    unit: str = ""

    @property
    def reached(self) -> bool:
        return self.value <= self.limit if self.better == "lower" else self.value >= self.limit

    @property
    def share(self) -> float:
        """How far towards the limit: 1 is on it, above 1 is better than asked."""
        worse, good = (self.value, self.limit) if self.better == "lower" else (self.limit, self.value)
        return good / worse if worse > 0 else float("inf")


@dataclass(frozen=True)
class Row:
    """One row of the benchmark."""

    name: str
    title: str
    columns: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    bars: tuple[Bar, ...] = ()
    numbers: dict[str, Any] = field(default_factory=dict)
    """Every single measurement, for JSON."""


def table(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A markdown table; every row must have as many cells as there are columns."""
    for row in cells:
        if len(row) != len(columns):
            raise ValueError(f"{len(row)} cells under {len(columns)} columns: {row}")
    lines = [columns, ["---"] * len(columns), *cells]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def number(value: float) -> str:
    """Three significant digits, no exponent below a million."""
    if value == 0 or not abs(value) < 1e6:
        return f"{value:.3g}"
    digits = max(0, 2 - len(str(int(abs(value)))) + 1) if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"


def bar_table(bars: Sequence[Bar]) -> str:
    """Every bar with its verdict."""
    cells = [
        [
            bar.what,
            f"{number(bar.value)}{bar.unit}",
            f"{'≤' if bar.better == 'lower' else '≥'} {number(bar.limit)}{bar.unit}",
            "yes" if bar.reached else "**no**",
        ]
        for bar in bars
    ]
    return table(["what", "measured", "asked", "reached"], cells)


def row_text(row: Row) -> str:
    """One row as markdown."""
    parts = [f"## {row.title}", table(row.columns, row.cells) if row.cells else ""]
    parts += ["\n".join(f"- {note}" for note in row.notes), bar_table(row.bars) if row.bars else ""]
    return "\n\n".join(part for part in parts if part)


def report_text(rows: Sequence[Row], machine: dict[str, Any]) -> str:
    """The whole report as markdown."""
    bars = [bar for row in rows for bar in row.bars]
    parts = ["# lobule benchmark", "\n".join(f"- {key}: {value}" for key, value in machine.items())]
    parts += [bar_table(bars)] if bars else []
    return "\n\n".join([*parts, *(row_text(row) for row in rows)]) + "\n"


def write_report(folder: Path, rows: Sequence[Row], machine: dict[str, Any]) -> None:
    """report.md, report.json and, where figures have bars, report.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text(report_text(rows, machine), "utf-8")
    data = {"machine": machine, "rows": [asdict(row) for row in rows]}
    (folder / "report.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", "utf-8")
    if bars := [bar for row in rows for bar in row.bars]:
        draw_bars(
            bars, f"{machine.get('processor', '')}, {machine.get('cores', '?')} cores", folder / "report.png"
        )


def draw_bars(bars: Sequence[Bar], subtitle: str, path: Path) -> None:
    """Each figure as a bar towards its limit: past the line is reached, short of it is not."""
    from PIL import Image, ImageDraw, ImageFont

    scale, line, left, width, top, longest = 2, 34, 460, 460, 78, 2.0
    ink, pale, good, bad = (40, 40, 46), (228, 228, 232), (46, 125, 110), (196, 78, 62)
    size = ((left + width + 230) * scale, (top + line * len(bars) + 24) * scale)
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)

    def font(points: int) -> Any:
        return ImageFont.load_default(points * scale)

    def text(
        x: float, y: float, words: str, points: int, anchor: str, color: tuple[int, int, int] = ink
    ) -> None:
        words = words.translate(PLAIN)
        draw.text((x * scale, y * scale), words, color, font(points), anchor)

    text(20, 26, "lobule against its bars", 18, "lm")
    text(20, 52, f"{subtitle}; longer is better, the line is what is asked", 12, "lm", (110, 110, 118))
    for number_, bar in enumerate(bars):
        y = top + number_ * line
        length = min(bar.share, longest) / longest * width
        color = good if bar.reached else bad
        text(left - 12, y + line / 2, bar.what, 12, "rm")
        draw.rectangle([left * scale, (y + 7) * scale, (left + width) * scale, (y + line - 7) * scale], pale)
        draw.rectangle(
            [left * scale, (y + 7) * scale, (left + length) * scale, (y + line - 7) * scale], color
        )
        sign = "≤" if bar.better == "lower" else "≥"
        words = f"{number(bar.value)}{bar.unit}  ({sign} {number(bar.limit)}{bar.unit})"
        text(left + width + 10, y + line / 2, words, 12, "lm", color)
    x = (left + width / longest) * scale
    draw.line([x, (top - 4) * scale, x, (top + line * len(bars) + 4) * scale], ink, 2 * scale)
    image.save(path)
