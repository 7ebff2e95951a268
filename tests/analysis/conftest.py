"""A painted slide and drawn models for the end-to-end tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn_models import darkness_model, redness_model
from painted_slides import SQUARES, paint, write_slide


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two drawn models: redness (tumor) and darkness (nuclei)."""
    folder = tmp_path_factory.mktemp("models")
    redness_model(folder / "redness")
    darkness_model(folder / "darkness")
    return folder


@pytest.fixture(scope="session")
def dots() -> np.ndarray:
    """Nuclei (x, y) on a jittered grid inside the first square, several per tile border."""
    random = np.random.default_rng(5)
    x, y = np.meshgrid(np.arange(280, 745, 31), np.arange(280, 617, 29))
    return np.stack([x.ravel(), y.ravel()], 1) + random.integers(-4, 5, (x.size, 2))


@pytest.fixture(scope="session")
def painted(tmp_path_factory: pytest.TempPathFactory, dots: np.ndarray) -> Path:
    """A slide of 2048 × 1536 px at 0.5 µm/px with two tumor squares and dots in the first."""
    return write_slide(tmp_path_factory.mktemp("slides") / "painted.tif", paint((2048, 1536), SQUARES, dots))
