"""The painted picture that most tests of slides show."""

from __future__ import annotations

import pytest
from slides.painted import Picture, paint


@pytest.fixture(scope="session")
def picture() -> Picture:
    """251 x 199 px whose red is x and green y."""
    return paint(251, 199)
