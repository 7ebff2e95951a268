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

SIZES_PX = (512, 768, 1024)


def _with_tile(folder: Path, tile_px: int) -> Path:
    shutil.copytree(shipped_models()["nuclei-breast-lite0"], folder)
    card = json.loads((folder / "card.json").read_text())
    card["graphs"][0]["tile_px"] = tile_px
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def _nuclei(slide: ArraySlide, folder: Path) -> Nuclei:
    options = Options(only=("nuclei",), models=(str(folder),), nuclei_tiles=None)
    outcome = analyze(slide, options=options).nuclei
    assert outcome is not None
    return Nuclei.joined(outcome.batches())


@pytest.fixture(scope="module")
def found(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Nuclei]:
    """Nuclei by tile size on four real breast fields side by side, 2000 × 2000 px."""
    from PIL import Image

    names = sorted((data_dir / "monuseg" / "images").glob("*"))[:4]
    fields = [np.asarray(Image.open(name).convert("RGB"))[:1000, :1000] for name in names]
    image = np.concatenate([np.concatenate(fields[:2], 1), np.concatenate(fields[2:], 1)], 0)
    slide = ArraySlide(np.ascontiguousarray(image), Mpp(0.25, 0.25))
    folder = tmp_path_factory.mktemp("models")
    return {size: _nuclei(slide, _with_tile(folder / str(size), size)) for size in SIZES_PX}


@pytest.mark.parametrize("size_px", SIZES_PX[:-1])
def test_nuclei_match_across_tile_sizes(size_px: int, found: dict[int, Nuclei]) -> None:
    """A match: centers within 1 µm and areas within a third, one to one."""
    one, other = found[SIZES_PX[-1]], found[size_px]
    gap, partner = cKDTree(other.centroid_px).query(one.centroid_px)
    ratio = one.measure("area_um2") / other.measure("area_um2")[partner]
    same = (gap < 4) & (ratio > 2 / 3) & (ratio < 1.5)
    matched = len(set(partner[same]))
    share = matched / max(len(one), len(other))
    assert len(one) > 1000
    assert share >= 0.995, f"{matched} of {len(one)} and {len(other)} nuclei match: {share:.4f}"


def test_no_nucleus_is_counted_twice(found: dict[int, Nuclei]) -> None:
    for nuclei in found.values():
        near, _ = cKDTree(nuclei.centroid_px).query(nuclei.centroid_px, k=2)
        assert near[:, 1].min() > 1.5
