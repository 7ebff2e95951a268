"""Splits: the paper's, by patient and by image, a user's own; the same whatever order the files are found in."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lobule.errors import ConfigurationError
from lobule.strict import from_values
from lobule.training.leakage import shared_patients
from lobule.training.nuclei_sets import NucleiField, read_set
from lobule.training.recipe import NucleiRecipe, NucleiSplit
from lobule.training.splits import Parts, assign, by_patient, folds_by_patient, half_of_images, split_fields

_PIXELS = np.zeros((4, 4, 3), np.uint8)
_NONE = np.zeros((4, 4), np.int32)


def field(name: str, patient: str, part: str | None = None) -> NucleiField:
    return NucleiField(name, patient, _PIXELS, _NONE, None, name.split("/")[0], part)


def named(parts: Parts) -> dict[str, list[str]]:
    return {part: [field.name for field in fields] for part, fields in parts.items()}


TNBC = [field(f"tnbc/{slide:02d}_{k}", f"TNBC-{slide:02d}") for slide in range(1, 12) for k in range(1, 5)]
OTHERS = [field(f"monuseg/TCGA-{k}", f"TCGA-{k}") for k in range(7)]
FIELDS = TNBC + OTHERS


def test_even_numbered_tnbc_patients_test_and_named_ones_select() -> None:
    parts = by_patient(FIELDS, ("TNBC-11", "TCGA-3"))
    assert {f.patient for f in parts["test"]} == {f"TNBC-{n:02d}" for n in (2, 4, 6, 8, 10)}
    assert {f.patient for f in parts["selection"]} == {"TNBC-11", "TCGA-3"}
    assert len(parts["training"]) == 5 * 4 + 6
    assert shared_patients(parts) == {}


@pytest.mark.parametrize(
    ("patients", "message"),
    [
        (("TNBC-02",), "test part"),
        (("TNBC-99",), "TNBC-99.*each must be a patient"),
        (("x", "TNBC-04"), "each must"),
    ],
)
def test_selection_patients_that_cannot_select_are_named(patients: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        by_patient(FIELDS, patients)


def test_named_patients_test_besides() -> None:
    chosen = NucleiSplit(by="patient", selection=("TNBC-11",), test=("TCGA-3", "TCGA-5"))
    parts = split_fields(FIELDS, chosen)
    assert {f.patient for f in parts["test"]} == {f"TNBC-{n:02d}" for n in (2, 4, 6, 8, 10)} | {
        "TCGA-3",
        "TCGA-5",
    }
    assert list(parts) == ["training", "selection", "test"]
    assert sorted(f.name for part in parts.values() for f in part) == sorted(f.name for f in FIELDS)
    assert shared_patients(parts) == {}


@pytest.mark.parametrize(
    ("patient", "message"),
    [("TNBC-11", "selection part"), ("x", "each must be a patient")],
)
def test_patients_that_cannot_test_besides_are_named(patient: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"split.test.*{message}"):
        split_fields(FIELDS, NucleiSplit(by="patient", selection=("TNBC-11",), test=(patient,)))


def test_patients_may_be_named_for_the_part_that_they_are_in() -> None:
    once = split_fields(FIELDS, NucleiSplit(by="patient", test=("TCGA-3",)))
    assert named(once) == named(split_fields(FIELDS, NucleiSplit(by="patient", test=("TNBC-02", "TCGA-3"))))
    own = [field("a/1", "P1", "training"), field("a/2", "P7", "selection"), field("a/3", "P3", "test")]
    both = NucleiSplit(by="column", selection=("P7",), test=("P3",))
    assert named(split_fields(own, both)) == named(assign(own))


def test_the_recipe_of_the_documentation_splits_as_it_says() -> None:
    root = Path(__file__).resolve().parents[2]
    page = (root / "docs" / "how-to" / "train.md").read_text("utf-8")
    blocks = [tomllib.loads(block) for block in re.findall(r"^```toml\n(.*?)^```$", page, re.M | re.S)]
    splits = [block["split"] for block in blocks if "split" in block]
    shipped = tomllib.loads((root / "recipes" / "nuclei-breast-lite0.toml").read_text("utf-8"))
    del shipped["thresholds"]
    own = [field(f"mine/{k}", f"P{k}", "training") for k in range(1, 7) if k != 3]
    own += [field("mine/3", "P3", "test"), field("mine/7", "P7", "selection")]
    assert len(splits) == 2
    for split in splits:
        recipe = from_values(shipped | {"sets": blocks[0]["sets"], "split": split}, NucleiRecipe)
        parts = split_fields(own, recipe.split)
        assert named(parts) == named(assign(own)) and recipe.sets == ("mine",)


def test_sets_without_tnbc_are_told_which_split_they_need() -> None:
    with pytest.raises(ConfigurationError, match="folds"):
        by_patient(OTHERS)
    with pytest.raises(ConfigurationError, match="half of the TNBC"):
        half_of_images(OTHERS, 0)


def test_half_of_the_tnbc_images_test_by_a_stated_seed() -> None:
    parts = half_of_images(FIELDS, 7)
    assert len(parts["test"]) == 22 and all(f.source_set == "tnbc" for f in parts["test"])
    assert {f.name for f in OTHERS} <= {f.name for f in parts["training"]}
    assert named(parts) == named(half_of_images(FIELDS[::-1], 7))
    assert named(parts) != named(half_of_images(FIELDS, 8))
    assert shared_patients(parts), "it is leaky between patients, as the paper's"


def test_a_manifests_column_assigns_and_what_it_does_not_say_is_named() -> None:
    fields = [
        field("a/1", "p", "Train"), field("a/0", "p", "training"), field("a/2", "q", "val"), field("a/3", "r", "TEST ")
    ]  # fmt: skip
    assert named(assign(fields)) == {"training": ["a/0", "a/1"], "selection": ["a/2"], "test": ["a/3"]}
    for wrong, said in ((None, "no value"), ("tset", "'tset'")):
        with pytest.raises(
            ConfigurationError, match=f"a/9 has {said} in column split of manifest.csv; write"
        ):
            assign([*fields, field("a/9", "s", wrong)])
    with pytest.raises(ConfigurationError, match="names no field for training"):
        assign([field("a/3", "r", "test")])
    with pytest.raises(ConfigurationError, match="only the manifest's column"):
        assign(fields, "fold")


PATIENTS = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 11)), min_size=12, max_size=60
).filter(lambda drawn: len(set(drawn)) >= 5)


@settings(max_examples=60)
@given(drawn=PATIENTS, k=st.integers(2, 5), seed=st.integers(0, 99), order=st.randoms())
def test_folds_keep_patients_whole_and_are_even_and_repeat(drawn, k, seed, order) -> None:  # type: ignore[no-untyped-def]
    fields = [field(f"{s}/{n}", f"{s}-{p}") for n, (s, p) in enumerate(drawn)]
    folds = folds_by_patient(fields, k, seed)
    assert sorted(f.name for fold in folds for f in fold) == sorted(f.name for f in fields)
    owners = [{f.patient for f in fold} for fold in folds]
    assert all(owners) and sum(map(len, owners)) == len({f.patient for f in fields})
    sizes = [len(fold) for fold in folds]
    largest = max(sum(f.patient == p for f in fields) for p in set().union(*owners))
    assert max(sizes) - min(sizes) <= 2 * largest
    mixed = list(fields)
    order.shuffle(mixed)
    assert [[f.name for f in fold] for fold in folds_by_patient(mixed, k, seed)] == [
        [f.name for f in fold] for fold in folds
    ]


@pytest.mark.parametrize("seed", range(12))
def test_named_patients_test_whomever_the_share_draws(seed: int) -> None:
    settings_ = NucleiSplit(by="folds", test=("TNBC-03",), selection=("TNBC-05",), seed=seed)
    parts = split_fields(FIELDS, settings_)
    tested = {f.patient for f in parts["test"]}
    assert "TNBC-03" in tested and len(tested) > 1
    assert {f.patient for f in parts["selection"]} == {"TNBC-05"}
    assert shared_patients(parts) == {}


def test_folds_that_cannot_be_made_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="two or more"):
        folds_by_patient(FIELDS, 1, 0)
    with pytest.raises(ConfigurationError, match="only 7 patients"):
        folds_by_patient(OTHERS, 8, 0)


@settings(max_examples=60)
@given(
    by=st.sampled_from(["patient", "image", "folds"]),
    share=st.sampled_from([0.0, 0.1, 0.3]),
    test_share=st.sampled_from([0.1, 0.2, 0.5]),
    seed=st.integers(0, 50),
    order=st.randoms(),
)
def test_every_split_of_a_recipe_is_whole_and_repeats(by, share, test_share, seed, order) -> None:  # type: ignore[no-untyped-def]
    wanted = NucleiSplit(
        by=by, selection=("TCGA-1",), selection_share=share, test_share=test_share, seed=seed
    )
    parts = split_fields(FIELDS, wanted)
    assert list(parts) == ["training", "selection", "test"]
    assert sorted(name for own in named(parts).values() for name in own) == sorted(f.name for f in FIELDS)
    assert all(own == sorted(own) for own in named(parts).values())
    assert parts["training"] and parts["test"]
    assert "monuseg/TCGA-1" in named(parts)["selection"]
    if by == "image":
        # patients may both train and test here, but those who select do not train
        assert not {f.patient for f in parts["selection"]} & {f.patient for f in parts["training"]}
    else:
        assert shared_patients(parts) == {}
    if share == 0:
        assert named(parts)["selection"] == ["monuseg/TCGA-1"]
    mixed = list(FIELDS)
    order.shuffle(mixed)
    assert named(split_fields(mixed, wanted)) == named(parts)


def test_shares_are_met_to_within_half_a_patient_and_one_patient_cannot_be_shared() -> None:
    parts = split_fields(TNBC, NucleiSplit(by="folds", test_share=0.25, seed=3))
    assert abs(len(parts["test"]) - 11) <= 2
    with pytest.raises(ConfigurationError, match="none to spare"):
        split_fields(TNBC[:4], NucleiSplit(by="folds"))


def test_the_papers_two_splits_of_the_real_sets(data_dir: Path) -> None:
    fields = [field for name in ("tnbc", "monuseg") for field in read_set(data_dir / name)[0]]
    assert {part: len(own) for part, own in by_patient(fields).items()} == {
        "training": 30 + 28,
        "selection": 0,
        "test": 22,
    }
    assert [len(own) for own in half_of_images(fields, 0).values()] == [55, 0, 25]
