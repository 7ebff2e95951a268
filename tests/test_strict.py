"""Records from files: what is not as it should be is named with its place."""

from __future__ import annotations

import json
import math
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from lobule.strict import InvalidError, Strict, changed, from_json, from_values, values_of


class Leaf(Strict, frozen=True, kw_only=True):
    size: Annotated[float, Meta(gt=0)]
    kind: Literal["plain", "lobed"] = "plain"
    low: int = 0
    high: int = 9

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"from {self.low} to {self.high}")


class Branch(Strict, frozen=True, kw_only=True):
    leaves: tuple[Leaf, ...]
    named: dict[str, float]
    mark: str | None = None


LEAVES = st.builds(
    Leaf,
    size=st.floats(min_value=0, exclude_min=True, allow_nan=False, allow_infinity=False),
    kind=st.sampled_from(["plain", "lobed"]),
    low=st.integers(-9, 4),
    high=st.integers(4, 9),
)
BRANCHES = st.builds(
    Branch,
    leaves=st.lists(LEAVES, max_size=3).map(tuple),
    named=st.dictionaries(st.text(max_size=4), st.floats(allow_nan=False, allow_infinity=False), max_size=3),
    mark=st.none() | st.text(max_size=5),
)


@given(BRANCHES)
def test_what_is_written_is_read_back(branch: Branch) -> None:
    values = values_of(branch)
    assert from_values(values, Branch) == branch
    assert from_json(json.dumps(values).encode(), Branch) == branch


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"named": {}}, "leaves: it is missing"),
        ({"named": {}, "leaves": [{"size": 1}, {}]}, "leaves.1.size: it is missing"),
        ({"named": {}, "leaves": [{"size": 1, "colour": "red"}]}, "leaves.0.colour: there is no such field"),
        ({"named": {}, "leaves": [{"size": 0}]}, "leaves.0.size: Expected `float` > 0.0"),
        ({"named": {}, "leaves": [{"size": True}]}, "leaves.0.size: Expected `float`, got `bool`"),
        (
            {"named": {}, "leaves": [{"size": 1, "kind": "round"}]},
            "leaves.0.kind: Invalid enum value 'round'",
        ),
        ({"named": {}, "leaves": [{"size": 1, "low": 4, "high": 3}]}, "leaves.0: from 4 to 3"),
        ({"named": {}, "leaves": 3}, "leaves: Expected `array`, got `int`"),
        ([], "Expected `object`, got `array`"),
    ],
)
def test_the_place_of_what_is_wrong_is_named(values: object, said: str) -> None:
    with pytest.raises(InvalidError) as caught:
        from_values(values, Branch)
    assert str(caught.value) == said
    with pytest.raises(InvalidError) as caught:
        from_json(json.dumps(values).encode(), Branch)
    assert str(caught.value) == said


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_are_finite(number: float) -> None:
    with pytest.raises(InvalidError, match=r"^named\.x: Expected a finite number"):
        from_values({"leaves": [], "named": {"x": number}}, Branch)
    with pytest.raises(InvalidError, match="not JSON"):
        from_json(json.dumps({"leaves": [], "named": {"x": number}}).encode(), Branch)


def test_what_is_changed_is_checked_again() -> None:
    leaf = Leaf(size=1.0)
    assert changed(leaf, low=3) == Leaf(size=1.0, low=3)
    with pytest.raises(ValueError, match="from 10 to 9"):
        changed(leaf, low=10)
