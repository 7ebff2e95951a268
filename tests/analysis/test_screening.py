"""Easy tiles are settled by a small network, which is audited; --thorough leaves it out."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
from drawn_models import redness_model, screened, undecided
from painted_slides import MPP, paint

from lobule import analyze, open_slide
from lobule.analysis import Options
from lobule.analysis.single import Result


def _analyzed(painted: Path, model: Path, **options: object) -> Result:
    with open_slide(painted) as slide:
        return analyze(slide, only=["tumor"], options=Options(models=(str(model),), **options))  # type: ignore[arg-type]


def _same(one: Result, other: Result) -> bool:
    assert one.tumor is not None and other.tumor is not None
    return one.tumor.heatmap.values.tobytes() == other.tumor.heatmap.values.tobytes()


@pytest.fixture(scope="module")
def plain(painted: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return _analyzed(painted, redness_model(tmp_path_factory.mktemp("plain") / "m"))


def test_settled_tiles_do_not_reach_the_classifier_but_for_the_audited(
    painted: Path, plain: Result, tmp_path: Path
) -> None:
    found = _analyzed(painted, screened(redness_model(tmp_path / "m")))
    assert found.tumor is not None and plain.tumor is not None
    assert found.tumor.screened == found.tumor.tiles == plain.tumor.tiles
    # tiles half in a square are in doubt, the others settled; some of these are audited
    doubtful = int(((plain.tumor.heatmap.values > 0.1) & (plain.tumor.heatmap.values < 0.9)).sum())
    assert doubtful + 8 <= found.tumor.classified <= doubtful + 40
    assert found.tumor.note is not None
    assert "settled by the screening network" in found.tumor.note and "judged 0 otherwise" in found.tumor.note
    assert _same(found, plain)


def test_a_misled_screen_is_found_out_and_every_tile_classified(
    painted: Path, plain: Result, tmp_path: Path
) -> None:
    found = _analyzed(painted, screened(redness_model(tmp_path / "m"), misled=True))
    assert found.tumor is not None
    assert found.tumor.classified == found.tumor.tiles
    assert found.tumor.note is not None and "does not know this slide" in found.tumor.note
    assert _same(found, plain)


def test_thorough_leaves_the_screen_out(painted: Path, plain: Result, tmp_path: Path) -> None:
    found = _analyzed(painted, screened(redness_model(tmp_path / "m"), misled=True), thorough=True)
    assert found.tumor is not None
    assert (found.tumor.screened, found.tumor.classified) == (0, found.tumor.tiles)
    assert _same(found, plain)
    assert found.prepared.plan_sha256 != plain.prepared.plan_sha256


def test_what_was_settled_is_settled_the_same_by_one_worker_and_by_three(
    painted: Path, tmp_path: Path
) -> None:
    model = screened(redness_model(tmp_path / "m"))
    one, three = (_analyzed(painted, model, workers=workers) for workers in (1, 3))
    assert one.tumor is not None and three.tumor is not None
    assert one.tumor.classified == three.tumor.classified
    assert _same(one, three)


def test_a_field_of_few_tiles_is_audited_in_full(tmp_path: Path) -> None:
    image = paint((640, 512), [(200, 200, 330, 330)], margin=0)
    model = screened(redness_model(tmp_path / "m"), misled=True)
    found = analyze(
        open_slide(image, mpp=MPP),
        only=["tumor"],
        options=Options(models=(str(model),)),
    )
    assert found.tumor is not None and not math.isnan(np.nanmax(found.tumor.heatmap.values))
    assert found.tumor.classified == found.tumor.tiles


def test_a_screen_that_settles_next_to_nothing_is_left_out(
    painted: Path, plain: Result, tmp_path: Path
) -> None:
    folder = screened(redness_model(tmp_path / "m"))
    card = json.loads((folder / "card.json").read_text())
    # whatever a tile shows, half of it is in doubt
    undecided(folder / "screen.onnx")
    card["graphs"][1]["sha256"] = hashlib.sha256((folder / "screen.onnx").read_bytes()).hexdigest()
    (folder / "card.json").write_text(json.dumps(card))
    one, three = (_analyzed(painted, folder, workers=workers) for workers in (1, 3))
    assert one.tumor is not None and three.tumor is not None
    assert one.tumor.note is not None and "left out: it settled 0 of 48 probed tiles" in one.tumor.note
    assert one.tumor.classified == one.tumor.tiles
    assert _same(one, plain) and _same(three, plain)
