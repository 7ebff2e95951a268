"""Composed slides that several tests look at."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lobule.phantom import PhantomSpec, PhantomTruth, histology, read_field_labels, write_phantom

DRAWN = PhantomSpec((6000, 4500), seed=6, nuclei=True, tissue_share=0.4)


@pytest.fixture(scope="session")
def drawn_once() -> Iterator[None]:
    """Every canvas is drawn once for all tests."""
    patch = pytest.MonkeyPatch()
    patch.setattr(histology, "draw_canvas", lru_cache(histology.draw_canvas))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def drawn(drawn_once: None, tmp_path_factory: pytest.TempPathFactory) -> PhantomTruth:
    """A small drawn slide, Aperio's manner, with nuclei."""
    return write_phantom(tmp_path_factory.mktemp("drawn") / "drawn.svs", DRAWN, workers=2)


@pytest.fixture(scope="session")
def field_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fields of plain color with a little noise: carcinoma is red, the rest green."""
    folder = tmp_path_factory.mktemp("fields")
    rows = ["file,label"]
    rng = np.random.default_rng(0)
    for k, (label, color) in enumerate(
        [
            ("invasive", (200, 40, 60)),
            ("insitu", (190, 50, 70)),
            ("normal", (60, 180, 80)),
            ("benign", (50, 170, 70)),
        ]
    ):
        pixels = np.array(color) + rng.integers(-8, 9, (96, 128, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"f{k}.png")
        rows.append(f"f{k}.png,{label}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="session")
def patched(field_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> PhantomTruth:
    """A small slide of those fields, as a generic TIFF, without artifacts."""
    fields = read_field_labels(field_folder, field_folder / "labels.csv", 0.84)
    spec = PhantomSpec((5000, 4100), mpp=0.5, seed=3, artifacts=False, fields=fields, tissue_share=0.4)
    return write_phantom(tmp_path_factory.mktemp("patched") / "patched.tif", spec, workers=1)
