"""The shipped nuclei model in tiles of several sizes: the same nuclei, none lost or doubled at a seam."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from lobule import analyze
from lobule.analysis import Options
from lobule.findings.nuclei import Nuclei
from lobule.geometry import Mpp
from lobule.models.zoo import shipped_models
from lobule.slides import ArraySlide

SIZES_PX = (256, 512, 1024, 2048)
"""What a tile answers for; around it lies the card's halo."""
WHOLE_PX = 2304
MPP = 0.25
SIZE_PX = (2200, 2000)
BAND_UM = 5.0


def _with_tile(folder: Path, kept_px: int) -> Path:
    """The shipped model with tiles of another size, as a user would state it: a copy with another card."""
    shutil.copytree(shipped_models()["nuclei-breast-lite0"], folder)
    card = json.loads((folder / "card.json").read_text())
    card["graphs"][0]["tile_px"] = kept_px + 2 * card["graphs"][0]["halo_px"]
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def _nuclei(slide: ArraySlide, folder: Path, precision: str = "float32") -> Nuclei:
    options = Options(only=("nuclei",), models=(str(folder),), nuclei_tiles=None, precision=precision)  # type: ignore[arg-type]
    outcome = analyze(slide, options=options).nuclei
    assert outcome is not None
    return Nuclei.joined(outcome.batches())


@pytest.fixture(scope="module")
def slide(data_dir: Path) -> ArraySlide:
    """Six real fields side by side, cut to 2200 × 2000 px."""
    from PIL import Image

    names = sorted((data_dir / "monuseg" / "images").glob("*"))[:6]
    fields = [np.asarray(Image.open(name).convert("RGB"))[:1000, :1000] for name in names]
    image = np.concatenate([np.concatenate(fields[:3], 1), np.concatenate(fields[3:], 1)], 0)
    return ArraySlide(np.ascontiguousarray(image[: SIZE_PX[1], : SIZE_PX[0]]), Mpp(MPP, MPP))


@pytest.fixture(scope="module")
def found(slide: ArraySlide, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Nuclei]:
    """Nuclei by what a tile answers for, in float32."""
    folder = tmp_path_factory.mktemp("models")
    return {size: _nuclei(slide, _with_tile(folder / str(size), size)) for size in (*SIZES_PX, WHOLE_PX)}


def _matched_share(one: Nuclei, other: Nuclei) -> float:
    """A match: centers within 1 µm and areas within a third, one to one."""
    gap, partner = cKDTree(other.centroid_px).query(one.centroid_px)
    ratio = one.measure("area_um2") / other.measure("area_um2")[partner]
    same = (gap * MPP < 1) & (ratio > 2 / 3) & (ratio < 1.5)
    return len(set(partner[same])) / max(len(one), len(other))


@pytest.mark.parametrize("kept_px", SIZES_PX)
def test_tiles_give_the_nuclei_of_the_field_analyzed_whole(kept_px: int, found: dict[int, Nuclei]) -> None:
    """99.5 % match; the count is within 0.3 %."""
    one, other = found[WHOLE_PX], found[kept_px]
    assert len(one) > 1000
    assert _matched_share(one, other) >= 0.995
    assert abs(len(other) / len(one) - 1) <= 0.003


def test_in_the_fastest_proven_number_format_they_match_nearly_as_well(
    slide: ArraySlide, tmp_path: Path
) -> None:
    """98 % match; the count is within 1 %: coarser numbers carry what a tile's edge does further."""
    one = _nuclei(slide, _with_tile(tmp_path / "whole", WHOLE_PX), "auto")
    other = _nuclei(slide, _with_tile(tmp_path / "tiles", 512), "auto")
    assert _matched_share(one, other) >= 0.98
    assert abs(len(other) / len(one) - 1) <= 0.01


@pytest.mark.parametrize("kept_px", SIZES_PX)
def test_no_seam_is_seen_in_the_density(kept_px: int, found: dict[int, Nuclei]) -> None:
    """Nuclei whose center lies within 5 µm of a seam: as many as there without one, within 2 % (or one nucleus)."""

    def near_seams(nuclei: Nuclei) -> int:
        near = np.zeros(len(nuclei), bool)
        for axis, side in enumerate(SIZE_PX):
            for seam in range(kept_px, side, kept_px):
                near |= np.abs(nuclei.centroid_px[:, axis] - seam) * MPP < BAND_UM
        return int(np.count_nonzero(near))

    without, with_seams = near_seams(found[WHOLE_PX]), near_seams(found[kept_px])
    assert without > 20
    assert abs(with_seams - without) <= max(1, 0.02 * without), (
        f"{with_seams} nuclei in the band, {without} without seams"
    )


def test_no_nucleus_is_counted_twice(found: dict[int, Nuclei]) -> None:
    for nuclei in found.values():
        near, _ = cKDTree(nuclei.centroid_px).query(nuclei.centroid_px, k=2)
        assert near[:, 1].min() > 1.5
