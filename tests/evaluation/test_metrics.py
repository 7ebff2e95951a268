"""Metrics agree with slow oracles, empty cases included."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lobule.evaluation.classes import accuracy, auc, balanced_accuracy
from lobule.evaluation.instances import PanopticCounts, aji, aji_plus, count_panoptic
from lobule.evaluation.interval import Interval, bootstrap
from lobule.evaluation.pixels import MaskCounts, count_mask, dice, jaccard

LABELS = hnp.arrays(np.int32, (6, 7), elements=st.integers(0, 4))


def pixel_sets(labels: np.ndarray) -> list[set[tuple[int, int]]]:
    out: dict[int, set[tuple[int, int]]] = {}
    for (row, column), label in np.ndenumerate(labels):
        if label:
            out.setdefault(int(label), set()).add((row, column))
    return [out[label] for label in sorted(out)]


def slow_aji(truth: np.ndarray, found: np.ndarray) -> float:
    there, seen = pixel_sets(truth), pixel_sets(found)
    if not there and not seen:
        return 1.0
    shared = union = 0
    used = set()
    for nucleus in there:
        scores = [len(nucleus & other) / len(nucleus | other) for other in seen]
        best = int(np.argmax(scores)) if scores and max(scores) > 0 else None
        if best is None:
            union += len(nucleus)
            continue
        used.add(best)
        shared += len(nucleus & seen[best])
        union += len(nucleus | seen[best])
    union += sum(len(other) for k, other in enumerate(seen) if k not in used)
    return shared / union


def slow_best_matching(truth: np.ndarray, found: np.ndarray) -> float:
    there, seen = pixel_sets(truth), pixel_sets(found)
    slots: list[int | None] = [*range(len(seen)), *[None] * len(there)]
    best = 0.0
    for chosen in itertools.permutations(slots, len(there)):
        best = max(
            best,
            sum(
                len(nucleus & seen[k]) / len(nucleus | seen[k])
                for nucleus, k in zip(there, chosen, strict=True)
                if k is not None
            ),
        )
    return best


@given(hnp.arrays(bool, (5, 6)), hnp.arrays(bool, (5, 6)))
def test_mask_scores_equal_those_of_pixel_sets(truth: np.ndarray, found: np.ndarray) -> None:
    there = {i for i, v in enumerate(truth.ravel()) if v}
    seen = {i for i, v in enumerate(found.ravel()) if v}
    both, either = len(there & seen), len(there | seen)
    counts = count_mask(truth, found)
    assert jaccard(truth, found) == (both / either if either else 1.0)
    assert dice(truth, found) == pytest.approx(2 * both / (len(there) + len(seen)) if either else 1.0)
    assert counts.precision == (both / len(seen) if seen else 1.0)
    assert counts.recall == (both / len(there) if there else 1.0)
    assert counts.accuracy == pytest.approx((truth == found).mean())


def test_pooled_counts_are_sums() -> None:
    total = MaskCounts(1, 2, 3, 4) + MaskCounts(10, 20, 30, 40)
    assert total == MaskCounts(11, 22, 33, 44)
    assert PanopticCounts(1, 2, 3, 0.75) + PanopticCounts(1, 0, 0, 1.0) == PanopticCounts(2, 2, 3, 1.75)


def test_masks_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        count_mask(np.zeros((2, 3), bool), np.zeros((3, 2), bool))
    with pytest.raises(ValueError, match="differ in shape"):
        aji(np.zeros((2, 3), int), np.zeros((3, 2), int))


@given(LABELS, LABELS)
def test_aji_equals_the_slow_one(truth: np.ndarray, found: np.ndarray) -> None:
    assert aji(truth, found) == pytest.approx(slow_aji(truth, found))


@settings(max_examples=30)
@given(
    hnp.arrays(np.int32, (4, 5), elements=st.integers(0, 3)),
    hnp.arrays(np.int32, (4, 5), elements=st.integers(0, 3)),
)
def test_aji_plus_takes_a_best_one_to_one_matching(truth: np.ndarray, found: np.ndarray) -> None:
    from lobule.evaluation import instances

    value = aji_plus(truth, found)
    assert 0 <= value <= 1
    o = instances._overlaps(truth, found)
    table = np.zeros((o.truth_areas.size, o.found_areas.size))
    table[o.truth, o.found] = o.iou
    from scipy.optimize import linear_sum_assignment

    assert table[linear_sum_assignment(-table)].sum() == pytest.approx(slow_best_matching(truth, found))


def test_aji_plus_counts_a_shared_object_once() -> None:
    truth = np.array([[1, 1, 2, 2, 0]])
    found = np.array([[5, 5, 5, 5, 0]])
    assert aji(truth, found) == pytest.approx(4 / 8)
    assert aji_plus(truth, found) == pytest.approx(2 / 6)


@given(LABELS, LABELS)
def test_panoptic_quality_equals_the_slow_one(truth: np.ndarray, found: np.ndarray) -> None:
    there, seen = pixel_sets(truth), pixel_sets(found)
    scores = [len(a & b) / len(a | b) for a in there for b in seen]
    good = [s for s in scores if s > 0.5]
    counts = count_panoptic(truth, found)
    assert (counts.matched, counts.spare, counts.missed) == (
        len(good),
        len(seen) - len(good),
        len(there) - len(good),
    )
    whole = len(good) + (len(seen) + len(there) - 2 * len(good)) / 2
    assert counts.panoptic_quality == pytest.approx(sum(good) / whole if whole else 1.0)


def test_instance_scores_of_empty_maps() -> None:
    none, one = np.zeros((4, 4), int), np.eye(4, dtype=int)
    for score in (aji, aji_plus, lambda a, b: count_panoptic(a, b).panoptic_quality):
        assert score(none, none) == 1
        assert score(none, one) == score(one, none) == 0
        assert score(one, one) == 1


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5)), min_size=2).filter(
        lambda rows: len({label for label, _ in rows}) == 2
    )
)
def test_auc_is_the_share_of_pairs_in_order(rows: list[tuple[int, int]]) -> None:
    positive = [s for label, s in rows if label]
    negative = [s for label, s in rows if not label]
    wins = [1.0 if p > n else 0.5 if p == n else 0.0 for p in positive for n in negative]
    truth, score = (np.array(column) for column in zip(*rows, strict=True))
    assert auc(truth, score.astype(float)) == pytest.approx(np.mean(wins))


def test_what_is_no_number_has_no_rank() -> None:
    with pytest.raises(ValueError, match="no number"):
        auc(np.array([0, 1, 1]), np.array([0.1, np.nan, 0.2]))


def test_auc_needs_both_classes() -> None:
    with pytest.raises(ValueError, match="positives and negatives"):
        auc(np.ones(3, int), np.zeros(3))


def test_balanced_accuracy_weighs_classes_alike() -> None:
    truth = np.array([0, 0, 0, 0, 0, 0, 0, 0, 1, 1])
    found = np.array([0, 0, 0, 0, 0, 0, 0, 0, 0, 1])
    assert accuracy(truth, found) == pytest.approx(0.9)
    assert balanced_accuracy(truth, found) == pytest.approx(0.75)
    with pytest.raises(ValueError, match="equally long"):
        accuracy(np.zeros(0, int), np.zeros(0, int))


def test_a_bootstrap_holds_the_value_repeats_exactly_and_shrinks_with_more_units() -> None:
    values = np.random.default_rng(3).normal(5, 1, 400)
    few = bootstrap(lambda at: float(values[:40][at].mean()), 40, repeats=300)
    many = bootstrap(lambda at: float(values[at].mean()), 400, repeats=300)
    assert few.low is not None and few.high is not None and many.low is not None and many.high is not None
    assert few.low < few.value < few.high
    assert many.high - many.low < few.high - few.low
    assert few == bootstrap(lambda at: float(values[:40][at].mean()), 40, repeats=300)
    with pytest.raises(ValueError, match="at least one"):
        bootstrap(lambda at: 0.0, 0)


def test_a_stratified_bootstrap_keeps_each_stratum() -> None:
    strata = np.array([0] * 6 + [1] * 5)
    seen: list[int] = []
    bootstrap(lambda at: float(seen.append(int((strata[at] == 1).sum())) or 0), 11, strata=strata, repeats=20)
    assert len(seen) == 21 and set(seen) == {5}


@pytest.mark.parametrize(("units", "strata"), [(1, None), (4, None), (9, [0] * 5 + [1] * 4)])
def test_of_fewer_than_five_units_there_is_no_interval(units: int, strata: list[int] | None) -> None:
    values = np.arange(float(units))
    found = bootstrap(
        lambda at: float(values[at].mean()), units, strata=None if strata is None else np.array(strata)
    )
    assert found == Interval(values.mean(), None, None)
