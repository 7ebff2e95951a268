"""Sets of fields with outlined nuclei: TNBC, MoNuSeg and a user's own, found out by their layout and checked.

=============  ======================================================================================
TNBC           ``Slide_NN/NN_k.png`` and ``GT_NN/NN_k.png``, as published
MoNuSeg        ``Tissue Images/*.tif`` and ``Annotations/*.xml``, as released (or both kinds in one
               folder, as its test set), or ``images/`` and ``labels/`` of fields named by TCGA barcodes
a user's own   ``images/`` and one of ``masks/``, ``labels/``, ``geojson/``; files belong together by stem
=============  ======================================================================================

A ``manifest.csv`` beside them may give, by ``file`` (or ``name``), each field's ``patient``, ``organ``, ``split`` and
``mpp``, its µm per pixel.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lobule.errors import AnnotationError, ConfigurationError, SlideError
from lobule.geometry import Mpp
from lobule.slides import open_slide
from lobule.slides.resolution import mpp_from_option, parse_number
from lobule.spreadsheet import read_sheet
from lobule.training.field_files import (
    components,
    read_binary_mask,
    read_label_map,
    read_outlines,
    read_pixels,
)

__all__ = [
    "NucleiField",
    "SetKind",
    "SetReport",
    "counted",
    "detect",
    "read_folder",
    "read_monuseg",
    "read_set",
    "read_tnbc",
]

SetKind = Literal["tnbc", "monuseg", "monuseg-labels", "folder"]
"""``monuseg``: outlines in XML, as released; ``monuseg-labels``: its label maps."""


@dataclass(frozen=True, eq=False)
class NucleiField:
    """One field: pixels (H, W, 3) uint8 and instances (H, W) int32, 0 outside of nuclei.

    ``name``: "<set>/<file stem>"; ``source_set``: the set's folder name; ``organ``: None where nobody says;
    ``part``: what a manifest's ``split`` column says, where there is one; ``mpp``: the resolution that the manifest
    states, else the file; None where neither does.
    """

    name: str
    patient: str
    pixels: NDArray[np.uint8]
    instances: NDArray[np.int32]
    organ: str | None
    source_set: str
    part: str | None = None
    mpp: Mpp | None = None


@dataclass(frozen=True)
class SetReport:
    """What was found in a set. ``notes``: what whoever trains on it should know, a line each."""

    name: str
    kind: SetKind
    fields: int
    patients: int
    nuclei: int
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        nuclei = counted(self.nuclei, "nucleus", "nuclei")
        found = f"{counted(self.fields, 'field')} of {counted(self.patients, 'patient')}, {nuclei}"
        return f"{self.name}: {found} ({_KINDS[self.kind]})"


def counted(count: int, one: str, many: str = "") -> str:
    """The number with its noun: "1 field", "2 fields"."""
    return f"{count} {one if count == 1 else many or one + 's'}"


_KINDS: dict[SetKind, str] = {
    "tnbc": "TNBC's layout",
    "monuseg": "MoNuSeg as released",
    "monuseg-labels": "MoNuSeg's label maps",
    "folder": "images with annotations",
}
_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_ANNOTATED: dict[str, tuple[str, ...]] = {
    "masks": (".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg"),
    "labels": (".png", ".tif", ".tiff", ".npy", ".jpg", ".jpeg"),
    "geojson": (".geojson", ".json"),
}
_BARCODE = re.compile(r"^(TCGA-[0-9A-Z]{2}-[0-9A-Z]{4})(?![0-9A-Z])", re.IGNORECASE)
# the 30 training fields and the organ each is of, as the challenge's paper lists them
_MONUSEG_ORGANS: dict[str, tuple[str, ...]] = {
    "Bladder": ("DK-A2I6-01A-01-TS1", "G2-A2EK-01A-02-TSB"),
    "Breast": (
        "A7-A13E-01Z-00-DX1",
        "A7-A13F-01Z-00-DX1",
        "AR-A1AK-01Z-00-DX1",
        "AR-A1AS-01Z-00-DX1",
        "E2-A14V-01Z-00-DX1",
        "E2-A1B5-01Z-00-DX1",
    ),
    "Colon": ("AY-A8YK-01A-01-TS1", "NH-A8F7-01A-01-TS1"),
    "Kidney": (
        "B0-5698-01Z-00-DX1",
        "B0-5710-01Z-00-DX1",
        "B0-5711-01Z-00-DX1",
        "HE-7128-01Z-00-DX1",
        "HE-7129-01Z-00-DX1",
        "HE-7130-01Z-00-DX1",
    ),
    "Liver": (
        "18-5592-01Z-00-DX1",
        "21-5784-01Z-00-DX1",
        "21-5786-01Z-00-DX1",
        "38-6178-01Z-00-DX1",
        "49-4488-01Z-00-DX1",
        "50-5931-01Z-00-DX1",
    ),
    "Prostate": (
        "CH-5767-01Z-00-DX1",
        "G9-6336-01Z-00-DX1",
        "G9-6348-01Z-00-DX1",
        "G9-6356-01Z-00-DX1",
        "G9-6362-01Z-00-DX1",
        "G9-6363-01Z-00-DX1",
    ),
    "Stomach": ("KB-A93J-01A-01-TS1", "RD-A8N9-01A-01-TS1"),
}
_MONUSEG_TEST = (
    "2Z-A9J9-01A-01-TS1",
    "44-2665-01B-06-BS6",
    "69-7764-01A-01-TS1",
    "A6-6782-01A-01-BS1",
    "AC-A2FO-01A-01-TS1",
    "AO-A0J2-01A-01-BSA",
    "CU-A0YN-01A-02-BSB",
    "EJ-A46H-01A-03-TSC",
    "FG-A4MU-01B-01-TS1",
    "GL-6846-01A-01-BS1",
    "HC-7209-01A-01-TS1",
    "HT-8564-01Z-00-DX1",
    "IZ-8196-01A-01-BS1",
    "ZF-A9R5-01A-01-TS1",
)
"""The 14 fields that test."""
_ORGAN_OF = {f"TCGA-{field[:7]}": organ for organ, owned in _MONUSEG_ORGANS.items() for field in owned}
_MONUSEG_FIELDS = {
    f"TCGA-{field}" for fields in (*_MONUSEG_ORGANS.values(), _MONUSEG_TEST) for field in fields
}
_MONUSEG_SIZE = (1000, 1000)
_TNBC_PATIENTS = 11
_FIRST_FEW = 4
_MOST_SHARE = 0.6
"""Of a field in one nucleus, at most; of published fields 2 %, where many touch in a mask."""

Read = tuple[list[NucleiField], SetReport]


def read_set(folder: Path) -> Read:
    """Finds out what a folder holds and reads it: its fields sorted by name, and what there is to know about them.

    Raises ConfigurationError where it is no set (it lists what was looked for) or files are missing, AnnotationError
    for a file that cannot be used.
    """
    kind = detect(folder)
    if kind == "tnbc":
        return read_tnbc(folder)
    return read_folder(folder) if kind == "folder" else read_monuseg(folder)


def detect(folder: Path) -> SetKind:
    """Which layout a folder has. Raises ConfigurationError that lists what was looked for."""
    if not folder.is_dir():
        raise ConfigurationError("--data", str(folder), "there is no such folder")
    if _tnbc_root(folder) is not None:
        return "tnbc"
    if _has_label_maps(folder) and _is_monuseg(folder):
        return "monuseg-labels"
    if (folder / "images").is_dir() and any((folder / name).is_dir() for name in _ANNOTATED):
        return "folder"
    if _released_pairs(folder) is not None:
        return "monuseg"
    found = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
    raise ConfigurationError(
        "--data", str(folder),
        "a set is one of: TNBC (Slide_01/01_1.png and GT_01/01_1.png), MoNuSeg ('Tissue Images'/*.tif and "
        "Annotations/*.xml, or images/ and labels/), your own (images/ and one of masks/, labels/, geojson/, same "
        f"file names); it holds {found}",
    )  # fmt: skip


def read_tnbc(folder: Path) -> Read:
    """TNBC (Naylor 2018) as published: binary masks, whose 8-connected components are the nuclei.

    Patients are the slides: "TNBC-01" … Raises as `read_set`.
    """
    root = _tnbc_root(folder)
    if root is None:
        raise ConfigurationError("--data", str(folder), "TNBC holds Slide_01/01_1.png and GT_01/01_1.png")
    notes = _Notes()
    pairs: dict[str, tuple[Path, Path]] = {}
    slides = _numbered(root, "Slide_")
    masks = _numbered(root, "GT_")
    for number in sorted(slides | masks):
        if number not in slides or number not in masks:
            there, missing = ("Slide", "GT") if number in slides else ("GT", "Slide")
            raise ConfigurationError(
                "--data", str(root), f"there is {there}_{number} but no {missing}_{number} beside it"
            )
        own = _paired(slides[number], masks[number], (".png",), notes)
        wrong = next((stem for stem in own if not stem.startswith(f"{number}_")), None)
        if wrong is not None:
            raise ConfigurationError(
                "--data", str(own[wrong][0]), f"its name must start with the patient's number: {number}_"
            )
        pairs.update(own)
    beyond = sorted(number for number in slides if int(number) > _TNBC_PATIENTS)
    if beyond:
        notes.add(
            f"Slide_{', Slide_'.join(beyond)}: not of the {_TNBC_PATIENTS} patients that TNBC has; organ unknown"
        )

    def patient_of(stem: str) -> tuple[str, str | None]:
        number = stem.split("_")[0]
        return f"TNBC-{number}", "Breast" if int(number) <= _TNBC_PATIENTS else None

    def annotate(path: Path, size: tuple[int, int]) -> NDArray[np.int32]:
        return components(read_binary_mask(path))

    return _read(folder, "tnbc", pairs, annotate, patient_of, notes, root)


def read_monuseg(folder: Path) -> Read:
    """MoNuSeg 2018, as released (TIFF and ImageScope XML) or as label maps; patients from the TCGA barcodes.

    Label maps made with the challenge's own program lie up and left of the outlines that they were drawn from; those
    of its fields are moved by one pixel down and right. Raises as `read_set`.
    """
    notes = _Notes()

    def patient_of(stem: str) -> tuple[str, str | None]:
        patient = _barcode(stem)
        if patient is None:
            raise ConfigurationError(
                "--data",
                f"{folder}/{stem}",
                "MoNuSeg's files are named by TCGA barcodes (TCGA-A7-A13E-01Z-00-DX1)",
            )
        return patient, _ORGAN_OF.get(patient)

    if _has_label_maps(folder):

        def moved(path: Path, size: tuple[int, int]) -> NDArray[np.int32]:
            stored = read_label_map(path, notes.of(path.stem))
            if path.stem not in _MONUSEG_FIELDS or size != _MONUSEG_SIZE:
                return stored
            notes.of(path.stem)("label map moved by one pixel down and right, onto MoNuSeg's outlines")
            labels = np.zeros_like(stored)
            labels[1:, 1:] = stored[:-1, :-1]
            return labels

        pairs = _paired(folder / "images", folder / "labels", _ANNOTATED["labels"], notes)
        return _read(folder, "monuseg-labels", pairs, moved, patient_of, notes, folder)
    found = _released_pairs(folder)
    if found is None:
        raise ConfigurationError(
            "--data",
            str(folder),
            "MoNuSeg holds 'Tissue Images'/*.tif and Annotations/*.xml, or images/ and labels/",
        )
    images, annotations = found
    pairs = _paired(images, annotations, (".xml",), notes)

    def outlined(path: Path, size: tuple[int, int]) -> NDArray[np.int32]:
        return read_outlines(path, size, notes.of(path.stem, "outline"))

    return _read(folder, "monuseg", pairs, outlined, patient_of, notes, folder)


def read_folder(folder: Path) -> Read:
    """A user's own set: ``images/`` and one of ``masks/``, ``labels/`` and ``geojson/``; files of a pair share a stem.

    Patients and organs from ``manifest.csv``; without it from TCGA barcodes where all files are named by them; else
    every file counts as a patient of its own, which the report's notes say. Raises as `read_set`.
    """
    notes = _Notes()
    held = [name for name in _ANNOTATED if (folder / name).is_dir()]
    if not (folder / "images").is_dir() or not held:
        raise ConfigurationError(
            "--data", str(folder), "a set holds images/ and one of masks/, labels/ and geojson/"
        )
    if len(held) > 1:
        raise ConfigurationError(
            "--data",
            str(folder),
            f"it holds {' and '.join(f'{name}/' for name in held)}; leave the one that counts",
        )
    pairs = _paired(folder / "images", folder / held[0], _ANNOTATED[held[0]], notes)
    barcodes = {stem: _barcode(stem) for stem in pairs}
    named = all(barcodes.values())
    if not any(row.get("patient") for row in _manifest(folder).values()):
        lacking = (
            "manifest.csv names no patient" if (folder / "manifest.csv").is_file() else "no manifest.csv"
        )
        if named:
            notes.add(f"{lacking}: patients are read from the TCGA barcodes that the files are named by")
        else:
            notes.add(
                f"{lacking}: every file counts as a patient of its own, so fields of one patient may train and test; "
                "name the patients in manifest.csv (file, patient, organ)"
            )

    def patient_of(stem: str) -> tuple[str, str | None]:
        return (barcodes[stem] or stem) if named else f"{folder.name}/{stem}", None

    def annotate(path: Path, size: tuple[int, int]) -> NDArray[np.int32]:
        if held[0] == "masks":
            return components(read_binary_mask(path))
        if held[0] == "labels":
            return read_label_map(path, notes.of(path.stem))
        return read_outlines(path, size, notes.of(path.stem, "outline"))

    return _read(folder, "folder", pairs, annotate, patient_of, notes, folder)


class _Notes:
    """Collects notes; of many cases of a kind it tells the number and the first few fields."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._cases: dict[tuple[str, str], Counter[str]] = {}

    def add(self, line: str) -> None:
        self._lines.append(line)

    def of(self, stem: str, thing: str = "field") -> Callable[[str], None]:
        def tell(case: str) -> None:
            self._cases.setdefault((thing, case), Counter())[stem] += 1

        return tell

    def told(self) -> tuple[str, ...]:
        out = list(self._lines)
        for (thing, case), fields in self._cases.items():
            count = fields.total()
            done = _REMEDY.get(case, "")
            out.append(f"{case}{done}: {count} {thing}{'s' * (count > 1)} ({_listed(sorted(fields))})")
        return tuple(out)


_REMEDY = {
    "crosses itself": ", repaired",
    "has no area": ", left out",
    "has no geometry": ", left out",
    "is a cell": ", of which the nucleus counts",
    "is a cell without a nucleus": ", left out",
    "is an annotation beside detections": ", left out",
    "is a point or a line, not an outline": ", left out",
    "has fewer than 3 points": ", left out",
    "lies outside of the image": ", left out",
    "holds no pixel that is not another's": ", left out",
}


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _FIRST_FEW
    return ", ".join(names[:_FIRST_FEW]) + (f" and {rest} more" if rest > 0 else "")


def _barcode(stem: str) -> str | None:
    found = _BARCODE.match(stem)
    return found.group(1).upper() if found else None


def _numbered(root: Path, prefix: str) -> dict[str, Path]:
    """Folders ``<prefix>NN`` by their number."""
    found = {}
    for path in root.iterdir():
        number = path.name.removeprefix(prefix)
        if path.is_dir() and path.name.startswith(prefix) and number.isdecimal():
            found[number] = path
    return found


def _levels(folder: Path) -> Iterable[Path]:
    """The folder and the folders in it, two deep: archives unpack into folders of their own name."""
    yield folder
    inner = sorted(path for path in folder.iterdir() if path.is_dir())
    yield from inner
    for one in inner:
        yield from sorted(path for path in one.iterdir() if path.is_dir())


def _tnbc_root(folder: Path) -> Path | None:
    if not folder.is_dir():
        return None
    return next((one for one in _levels(folder) if _numbered(one, "Slide_") or _numbered(one, "GT_")), None)


def _released_pairs(folder: Path) -> tuple[Path, Path] | None:
    """The folders of MoNuSeg's images and outlines, as released; the same one twice in its test set."""
    if not folder.is_dir():
        return None
    for one in _levels(folder):
        images, annotations = one / "Tissue Images", one / "Annotations"
        if images.is_dir() or (annotations.is_dir() and any(annotations.glob("*.xml"))):
            return images, annotations
        if any(one.glob("TCGA-*.xml")) and any(one.glob("TCGA-*.tif")):
            return one, one
    return None


def _has_label_maps(folder: Path) -> bool:
    return (folder / "images").is_dir() and (folder / "labels").is_dir()


def _is_monuseg(folder: Path) -> bool:
    """Whether label maps are MoNuSeg's: all named by barcodes, and known ones or a set of that name."""
    patients = {_barcode(path.stem) for path in _files(folder / "images", _PICTURES)[0].values()}
    if not patients or None in patients:
        return False
    rows = _manifest(folder)
    sets = {row.get("set", "") for row in rows.values()}
    named = folder.name.lower().startswith("monuseg") or (
        bool(rows) and all("monuseg" in name.lower() for name in sets)
    )
    return named or patients <= set(_ORGAN_OF)


def _files(folder: Path, suffixes: Sequence[str]) -> tuple[dict[str, Path], list[str]]:
    """Files of these suffixes by stem, and the names of others that are not hidden."""
    found: dict[str, Path] = {}
    others = []
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.name.startswith(".") or path.name in ("Thumbs.db", "desktop.ini"):
            continue
        if path.suffix.lower() not in suffixes:
            others.append(path.name)
        elif (stem := _composed(path.stem)) in found:
            raise ConfigurationError(
                "--data", str(path), f"{found[stem].name} has the same name; leave the one that counts"
            )
        else:
            found[stem] = path
    return found, others


def _composed(name: str) -> str:
    """The name as most systems write it; macOS writes letters and their marks apart."""
    return unicodedata.normalize("NFC", name)


def _paired(
    images: Path, annotations: Path, suffixes: Sequence[str], notes: _Notes
) -> dict[str, tuple[Path, Path]]:
    """Image and annotation by stem. Raises ConfigurationError that names what has no partner."""
    for folder in (images, annotations):
        if not folder.is_dir():
            raise ConfigurationError("--data", str(folder), "there is no such folder beside the other files")
    pictures, others = _files(images, _PICTURES)
    drawn, strange = _files(annotations, suffixes)
    if images != annotations and others + strange:
        notes.add(f"not read: {_listed(others + strange)}")
    if not pictures:
        raise ConfigurationError("--data", str(images), f"it holds no image ({', '.join(_PICTURES)})")
    alone = sorted(set(pictures) - set(drawn))
    if alone:
        raise ConfigurationError(
            "--data", str(annotations),
            f"{len(alone)} of {len(pictures)} images have no annotation in it ({_listed(alone)}); it would be "
            f"{alone[0]}{suffixes[0]}, and an empty one says that a field has no nuclei",
        )  # fmt: skip
    orphans = sorted(set(drawn) - set(pictures))
    if orphans:
        raise ConfigurationError(
            "--data", str(images),
            f"{len(orphans)} of {len(drawn)} annotations have no image in it ({_listed(orphans)}); add or remove them",
        )  # fmt: skip
    return {stem: (pictures[stem], drawn[stem]) for stem in sorted(pictures)}


def _manifest(folder: Path) -> dict[str, dict[str, str]]:
    """The rows of manifest.csv by stem; empty where there is none."""
    path = folder / "manifest.csv"
    if not path.is_file():
        return {}
    try:
        sheet = read_sheet(path)
    except ValueError as error:
        raise AnnotationError(path, str(error)) from error
    key = next((name for name in ("file", "name") if name in sheet.columns), None)
    if key is None:
        raise AnnotationError(path, f"needs a column 'file'; it has {', '.join(sheet.columns) or 'none'}")
    found: dict[str, dict[str, str]] = {}
    for _, row in sheet.rows:
        given = Path(row[key].replace("\\", "/")).name
        known = Path(given).suffix.lower() in (*_PICTURES, ".npy", ".xml", ".json", ".geojson")
        stem = _composed(Path(given).stem if known else given)
        if not stem:
            continue
        if stem in found:
            raise AnnotationError(path, f"has two rows for {stem}")
        found[stem] = row
    return found


def _read(
    folder: Path,
    kind: SetKind,
    pairs: Mapping[str, tuple[Path, Path]],
    annotate: Callable[[Path, tuple[int, int]], NDArray[np.int32]],
    patient_of: Callable[[str], tuple[str, str | None]],
    notes: _Notes,
    manifest_beside: Path,
) -> Read:
    rows = _manifest(folder) or _manifest(manifest_beside)
    if rows:
        _check_rows(folder, rows, pairs)
    name = folder.name or folder.resolve().name
    fields = []
    nuclei = 0
    spelled: dict[str, str] = {}
    for stem, (image, annotation) in pairs.items():
        pixels = read_pixels(image, notes.of(stem))
        height, width = pixels.shape[:2]
        instances = annotate(annotation, (width, height))
        if instances.shape != (height, width):
            raise AnnotationError(
                annotation,
                f"is {instances.shape[1]} × {instances.shape[0]} px, its image {width} × {height} px; "
                "both must be of one size",
            )
        areas = np.unique(instances[instances > 0], return_counts=True)[1]
        own = int(areas.size)
        if own == 0:
            notes.of(stem)("without nuclei")
        elif areas.max() > _MOST_SHARE * instances.size:
            raise AnnotationError(
                annotation,
                f"one nucleus covers {areas.max() / instances.size:.0%} of the field: is the mask inverted (nuclei are "
                "white, the background 0), or is a region outlined, too? invert it, or remove the region",
            )
        nuclei += own
        patient, organ = patient_of(stem)
        row = rows.get(stem, {})
        if kind == "folder":
            patient = row.get("patient") or patient
            # P1 and p1 are one patient, spelled as first
            patient = spelled.setdefault(patient.casefold(), patient)
        fields.append(
            NucleiField(
                f"{name}/{stem}",
                patient,
                pixels,
                instances,
                row.get("organ") or organ,
                name,
                row.get("split") or None,
                _stated_mpp(image, row.get("mpp", ""), folder / "manifest.csv"),
            )
        )
    fields.sort(key=lambda field: field.name)
    patients = len({field.patient for field in fields})
    return fields, SetReport(name, kind, len(fields), patients, nuclei, notes.told())


def _stated_mpp(image: Path, cell: str, manifest: Path) -> Mpp | None:
    """The resolution that the manifest's cell states, else the tags of a TIFF; None where neither does."""
    if cell:
        value = parse_number(cell)
        if value is None:
            raise AnnotationError(
                manifest, f"gives {cell!r} as mpp of {image.stem}; µm per pixel, such as 0.25"
            )
        return mpp_from_option(value, f"{manifest} mpp of {image.stem}")
    if image.suffix.lower() not in (".tif", ".tiff"):
        return None
    try:
        with open_slide(image) as slide:
            return slide.properties.mpp
    except SlideError:
        # a field that is no slide for a reader may still be one to learn from
        return None


def _check_rows(folder: Path, rows: Mapping[str, Mapping[str, str]], pairs: Mapping[str, object]) -> None:
    path = folder / "manifest.csv"
    unlisted = sorted(set(pairs) - set(rows))
    if unlisted:
        raise AnnotationError(path, f"has no row for {_listed(unlisted)}")
    absent = sorted(set(rows) - set(pairs))
    if absent:
        raise AnnotationError(path, f"names files that are not there: {_listed(absent)}")
    with_patient = [stem for stem in rows if rows[stem].get("patient")]
    if with_patient and len(with_patient) < len(rows):
        without = sorted(set(rows) - set(with_patient))
        raise AnnotationError(path, f"gives no patient for {_listed(without)}; name all or none")
