"""Which fields train, choose and test: by patient, by image, by a manifest's column, in folds.

Every split is a function of the fields' names, patients and a stated seed: in whatever order the files are found,
the parts are the same, and each part is sorted by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np

from lobule.errors import ConfigurationError
from lobule.training.nuclei_sets import NucleiField
from lobule.training.recipe import NucleiSplit

__all__ = ["Parts", "assign", "by_patient", "folds_by_patient", "half_of_images", "split_fields"]

Parts = dict[str, list[NucleiField]]
"""Fields by part: 'training', 'selection' and 'test', each sorted by name."""

_PARTS = {"training": "training", "train": "training", "selection": "selection", "validation": "selection"}
_PARTS |= {"valid": "selection", "val": "selection", "test": "test"}
_TNBC = "TNBC-"


def split_fields(fields: Sequence[NucleiField], settings: NucleiSplit) -> Parts:
    """Returns the parts that a recipe's ``settings`` make of the fields. Raises ConfigurationError."""
    if settings.by == "patient":
        parts = by_patient(fields, settings.selection)
    elif settings.by == "image":
        parts = half_of_images(fields, settings.seed)
        parts = _named_move(parts, settings.selection, "selection")
    elif settings.by == "column":
        parts = _named_move(assign(fields), settings.selection, "selection")
    else:
        return _share_selects(_one_fold(fields, settings), settings.selection_share, settings.seed)
    parts = _named_move(parts, settings.test, "test")
    # a column names its own selection part; a share is of what is left to train on
    return _share_selects(parts, settings.selection_share, settings.seed)


def by_patient(fields: Sequence[NucleiField], selection_patients: Collection[str] = ()) -> Parts:
    """The paper's choice as SPEC settles it: the even-numbered TNBC patients test, all others train.

    Save ``selection_patients``, who neither train nor test. Raises ConfigurationError where one of them is
    unknown or tests, or where nobody tests.
    """
    parts: Parts = {"training": [], "selection": [], "test": []}
    for field in _sorted(fields):
        parts["test" if _is_even_tnbc(field.patient) else "training"].append(field)
    if not parts["test"]:
        raise ConfigurationError(
            "split.by",
            "patient",
            'it tests on even-numbered TNBC patients; for your own sets use "folds" or "column"',
        )
    return _named_move(parts, selection_patients, "selection")


def half_of_images(fields: Sequence[NucleiField], seed: int) -> Parts:
    """The paper's 25/25: half of the TNBC fields, drawn at random by ``seed``, test; all the rest trains.

    **Leaky**: other fields of the same patients train. A score on it is no score on unseen patients; whoever uses
    this split says so. An odd field trains. Raises ConfigurationError where there are fewer than two TNBC fields.
    """
    drawn = [field for field in _sorted(fields) if field.patient.startswith(_TNBC)]
    if len(drawn) < 2:
        raise ConfigurationError(
            "split.by", "image", "it tests on half of the TNBC fields; there are fewer than two"
        )
    order = np.random.default_rng(seed).permutation(len(drawn))
    chosen = {drawn[k].name for k in order[: len(drawn) // 2]}
    parts: Parts = {"training": [], "selection": [], "test": []}
    for field in _sorted(fields):
        parts["test" if field.name in chosen else "training"].append(field)
    return parts


def folds_by_patient(fields: Sequence[NucleiField], k: int, seed: int) -> list[list[NucleiField]]:
    """Deals the patients into ``k`` folds of about as many fields each, sets spread evenly.

    Patients are shuffled by ``seed`` and, largest first within each set, go to the fold that has fewest fields of
    that set, then fewest in all. Raises ConfigurationError where there are fewer patients than folds.
    """
    if k < 2:
        raise ConfigurationError("folds", k, "there must be two or more")
    owned = Counter(field.patient for field in fields)
    if len(owned) < k:
        raise ConfigurationError(
            "folds", k, f"there are only {len(owned)} patients; name them in manifest.csv"
        )
    names = sorted(owned)
    rank = {names[place]: at for at, place in enumerate(np.random.default_rng(seed).permutation(len(names)))}
    main_set = {field.patient: field.source_set for field in _sorted(fields)}
    folds: list[list[NucleiField]] = [[] for _ in range(k)]
    held = [Counter[str]() for _ in range(k)]
    home: dict[str, int] = {}
    for patient in sorted(names, key=lambda name: (main_set[name], -owned[name], rank[name])):
        of_set = main_set[patient]
        home[patient] = min(range(k), key=lambda fold: (held[fold][of_set], held[fold].total(), fold))
        held[home[patient]][of_set] += owned[patient]
    for field in _sorted(fields):
        folds[home[field.patient]].append(field)
    return folds


def assign(fields: Sequence[NucleiField], column: str = "split") -> Parts:
    """The parts that the manifest's ``split`` column names: training (train), selection (validation, val), test.

    Raises ConfigurationError where a field has no such value, or another one, or where nothing trains.
    """
    if column != "split":
        raise ConfigurationError("split.by", column, "only the manifest's column 'split' is read")
    parts: Parts = {"training": [], "selection": [], "test": []}
    for field in _sorted(fields):
        part = _PARTS.get((field.part or "").strip().lower())
        if part is None:
            said = f"{field.part!r}" if field.part else "no value"
            raise ConfigurationError(
                "split.by", "column", f"{field.name} has {said} in column split of manifest.csv; "
                "write training, selection or test"
            )  # fmt: skip
        parts[part].append(field)
    if not parts["training"]:
        raise ConfigurationError("split.by", "column", "manifest.csv names no field for training")
    return parts


def _sorted(fields: Sequence[NucleiField]) -> list[NucleiField]:
    return sorted(fields, key=lambda field: field.name)


def _is_even_tnbc(patient: str) -> bool:
    number = patient.removeprefix(_TNBC)
    return patient.startswith(_TNBC) and number.isdecimal() and int(number) % 2 == 0


def _named_move(parts: Parts, patients: Collection[str], to: Literal["selection", "test"]) -> Parts:
    """Moves the named patients' training fields to another part, in which some may be already."""
    other: Literal["selection", "test"] = "test" if to == "selection" else "selection"
    missing = sorted(set(patients) - {field.patient for field in (*parts["training"], *parts[to])})
    if missing:
        why = "each must be a patient of the sets"
        if set(missing) <= {field.patient for field in parts[other]}:
            why = f"they are in the {other} part"
        raise ConfigurationError(f"split.{to}", missing, why)
    moved = [field for field in parts["training"] if field.patient in patients]
    kept = [field for field in parts["training"] if field.patient not in patients]
    changed = parts | {"training": kept, to: _sorted([*parts[to], *moved])}
    return {part: changed[part] for part in ("training", "selection", "test")}


def _one_fold(fields: Sequence[NucleiField], settings: NucleiSplit) -> Parts:
    parts: Parts = {"training": _sorted(fields), "selection": [], "test": []}
    parts = _named_move(parts, settings.selection, "selection")
    # first, so that whom the share draws does not depend on whether they were named, too
    parts = _named_move(parts, settings.test, "test")
    tested = _drawn_patients(parts["training"], settings.test_share, settings.seed, "split.test_share")
    return _named_move(parts, tested, "test")


def _share_selects(parts: Parts, share: float, seed: int) -> Parts:
    # another stream than the one that drew the test part
    chosen = _drawn_patients(parts["training"], share, seed + 1, "split.selection_share")
    return _named_move(parts, chosen, "selection")


def _drawn_patients(fields: Sequence[NucleiField], share: float, seed: int, option: str) -> set[str]:
    """Patients at random until they hold ``share`` of the fields, at least one; at least one is left over."""
    if share == 0:
        return set()
    owned = Counter(field.patient for field in fields)
    names = sorted(owned)
    if len(names) < 2:
        raise ConfigurationError(
            option, share, f"with {len(names)} patient there is none to spare; name patients in manifest.csv"
        )
    wanted, held = share * len(fields), 0
    chosen: set[str] = set()
    for place in np.random.default_rng(seed).permutation(len(names))[:-1]:
        # stops where one more patient would lie farther from the share than none
        if chosen and abs(held + owned[names[place]] - wanted) > abs(held - wanted):
            break
        chosen.add(names[place])
        held += owned[names[place]]
    return chosen
