"""The README's scores are those of the shipped cards."""

from __future__ import annotations

import re
from pathlib import Path

from lobule.models.zoo import load_model, shipped_models

README = (Path(__file__).resolve().parents[1] / "README.md").read_text("utf-8")


def test_scores_are_those_of_the_cards() -> None:
    rows = re.findall(
        r"^\| `([\w-]+)` \| [^|]+ \| (.+?) ([\d.]+) \| ([\d.]+) to ([\d.]+) \| (.+?) \|$", README, re.M
    )
    assert len(rows) >= 10
    for model, name, *numbers, on in rows:
        card = load_model(shipped_models()[model]).card
        score = next(score for score in card.scores if score.name == name)
        assert [f"{value:.3f}" for value in (score.value, score.low, score.high)] == numbers
        assert score.on == on
