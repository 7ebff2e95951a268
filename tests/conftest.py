"""Fixtures that every test may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# how long an example takes is the machine's and its other users' affair: no test fails for it;
# a folder that all examples of a test share is one that each writes anew
_UNASKED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("lobule", deadline=None, suppress_health_check=_UNASKED)
settings.load_profile("lobule")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def _compiled_networks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compiled networks are kept for the other tests, not in the user's folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOBULE_CACHE", str(tmp_path_factory.mktemp("compiled")))
        yield


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data: LOBULE_DATA, else ``../shared/data`` beside the checkout."""
    folder = Path(os.environ.get("LOBULE_DATA") or ROOT.parent / "shared" / "data")
    if not (folder / "slides").is_dir():
        pytest.skip(f"real data are absent: {folder} has no 'slides' (set LOBULE_DATA)")
    return folder


@pytest.fixture(scope="session")
def slides_dir(data_dir: Path) -> Path:
    """The real slides."""
    return data_dir / "slides"
