"""Many slides: every one is tried, every failure is named, finished work is found and not done again."""

from __future__ import annotations

import hashlib
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

from lobule.analysis.given_mpp import open_with_mpp, rows_of_no_slide
from lobule.analysis.networks import Equipment, equip
from lobule.analysis.options import Options
from lobule.analysis.results import FINDINGS, SUMMARY, are_whole, holds_files_of, name_of, results_in, writing
from lobule.analysis.single import Result, prepare, run_stages
from lobule.analysis.work import WORK, FolderWork, alone
from lobule.errors import ConfigurationError, LobuleError, ResultLockedError, ResultWriteError
from lobule.export.tables import earlier_failures, write_summary
from lobule.findings.schema import Findings
from lobule.geometry import Mpp
from lobule.progress import Reporter
from lobule.provenance import slide_identity
from lobule.slides import Slide
from lobule.strict import from_json

__all__ = ["Outcome", "analyze_slides", "slide_ids"]

_LOCKED = "lock"
"""The stage at which a slide fails that another run is at work on."""


@dataclass(frozen=True)
class Outcome:
    """What became of one slide. ``folder`` holds the results where there are any, under the name ``slide_id``."""

    slide: Path
    slide_id: str
    status: Literal["done", "unchanged", "failed"]
    stage: str
    reason: str
    folder: Path | None
    findings: Findings | None


def slide_ids(slides: Sequence[Path]) -> dict[Path, str]:
    """Slide → name for its results: the file's name without its ending, made unique where two collide.

    Colliding slides get the first digits of their content's digest (of the path's where they cannot be read),
    so a slide's name depends on neither the order nor on which others failed. What lies in the results folder
    has the last word: see `_place`.
    """
    by_name = defaultdict(list)
    for slide in dict.fromkeys(slides):
        by_name[name_of(slide).casefold()].append(slide)
    ids: dict[Path, str] = {}
    for group in by_name.values():
        if len(group) == 1:
            ids[group[0]] = name_of(group[0])
            continue
        taken: set[str] = set()
        for slide in sorted(group):
            name = f"{name_of(slide)}-{_content_digest(slide)[:8]}"
            if name.casefold() in taken:
                name = f"{name}-{_path_digest(slide)[:8]}"
            taken.add(name.casefold())
            ids[slide] = name
    return ids


def _content_digest(slide: Path) -> str:
    try:
        return slide_identity([slide]).sha256
    except OSError:
        return _path_digest(slide)


def _path_digest(slide: Path) -> str:
    return hashlib.sha256(str(slide.resolve()).encode("utf-8", "surrogateescape")).hexdigest()


def analyze_slides(
    slides: Sequence[Path],
    out: Path,
    options: Options,
    *,
    mpp: Mpp | Mapping[str, Mpp] | None,
    reporter: Reporter,
    after: Callable[[Result], None] | None = None,
    each: Callable[[Outcome], object] | None = None,
    equipment: Equipment | None = None,
) -> tuple[Outcome, ...]:
    """Analyzes every slide into ``out`` and writes ``out/summary.csv`` after each.

    ``equipment`` is made of the options where none is given; its networks are freed at the end.
    ``after`` is called with each result once it is written, its slide still open; ``each`` with each outcome.
    ``mpp`` is one for all slides, or a table by file name (with or without its ending); None: as the files say.
    Raises ModelError or ConfigurationError at once where nothing could be done for any slide, and ResultWriteError
    where ``out`` cannot be made or, with every slide tried, summary.csv could still not be written.
    """
    options.deterministic()  # a mask that cannot be read stops the run before its first slide
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultWriteError(out, f"cannot be written: {error.strerror or error}") from error
    if (unused := rows_of_no_slide(slides, mpp)) is not None:
        reporter.say(unused)
    outcomes: list[Outcome] = []
    ids = slide_ids(slides)
    if options.tissue is not None and len(ids) > 1:
        reporter.say(f"{options.tissue}: one drawing of tissue is used for all {len(ids)} slides")
    equipment = equip(options) if equipment is None else equipment
    unwritten = False
    with equipment.networks:
        for number, (slide, slide_id) in enumerate(ids.items(), 1):
            reporter.say(f"[{number}/{len(ids)}] {slide.name}")
            outcome = _attempt(slide, slide_id, out, options, equipment, mpp, reporter, after)
            outcomes.append(outcome)
            if each is not None:
                each(outcome)
            if outcome.status == "failed":
                reporter.say(f"{outcome.slide_id}: failed at {outcome.stage}: {outcome.reason}")
            elif outcome.status == "unchanged":
                reporter.say(f"{outcome.slide_id}: already done, nothing changed: {outcome.folder}")
            else:
                reporter.say(f"{outcome.slide_id}: done: {outcome.folder}")
            try:
                _write_summary(out, outcomes, reporter)
                unwritten = False
            except ResultWriteError as error:
                unwritten = True
                reporter.say(f"{error}; it is tried again after the next slide and at the end")
    if unwritten:
        _write_summary(out, outcomes, reporter)
    return tuple(outcomes)


def _place(out: Path, slide: Slide, wanted: str, identity: str) -> tuple[str, Findings | None]:
    """(name of the folder in ``out`` for a slide's results, what it holds of this very slide).

    A slide that has results keeps their folder, whichever others are named beside it this time. One that has none
    gets the folder that is ``wanted``, unless another slide's results lie there, or the slide's own files do (MIRAX
    keeps them in a folder of its name): then its digest is added. A file of another name with the same content
    (``x.png``, ``x.bmp``) is another slide.
    """
    assert slide.path is not None
    path = slide.path
    stem = name_of(path)
    free = (wanted, f"{stem}-{identity[:8]}", f"{stem}-{identity}")
    held = {name: results_in(out / name) for name in (*free, stem)}
    # a name that is no UTF-8 stands in findings.json as it is written there
    written = path.name.encode("utf-8", "backslashreplace").decode()
    for name, found in held.items():
        if found is not None and found.slide.identity == identity and found.slide.file == written:
            return name, found
    own = [name for name in free if holds_files_of(slide, out / name)]
    return next(name for name in free if held[name] is None and name not in own), None


def _attempt(
    path: Path,
    slide_id: str,
    out: Path,
    options: Options,
    equipment: Equipment,
    mpp: Mpp | Mapping[str, Mpp] | None,
    reporter: Reporter,
    after: Callable[[Result], None] | None,
) -> Outcome:
    stage = "open"
    try:
        with open_with_mpp(path, mpp) as slide:
            stage = "prepare"
            prepared = prepare(slide, slide_id, options, equipment.models)
            wanted = slide_id
            slide_id, earlier = _place(out, slide, wanted, prepared.identity.sha256)
            if slide_id != wanted:
                prepared = prepare(slide, slide_id, options, equipment.models)
                if earlier is None:
                    held = (
                        "its own files"
                        if holds_files_of(slide, out / wanted)
                        else "another slide of that name"
                    )
                    reporter.say(f"{path}: {out / wanted} holds {held}; its results go to {slide_id}")
            folder = out / slide_id
            if earlier is not None and earlier.plan_sha256 != prepared.plan_sha256:
                made = "made with other options, models or another version of lobule"
                reporter.say(f"{slide_id}: the results in {folder} were {made}; they will be replaced")
            elif earlier is not None and are_whole(folder, earlier):
                return Outcome(path, slide_id, "unchanged", "", "", folder, earlier)
            elif earlier is not None:
                reporter.say(f"{slide_id}: files in {folder} are lost or changed; they are made again")
            stage = "analyze"
            fresh = not folder.exists()
            try:
                with FolderWork(folder / WORK) as work:
                    if not work.locked:
                        reporter.say(
                            f"{folder}: this file system has no locks; let no second run write there"
                        )
                    result = run_stages(prepared, work, reporter, equipment.networks)
                    stage = "write"
                    result.write(out)
                    if after is not None:
                        after(result)
            except LobuleError as error:
                # a slide refused before its first tile leaves no folder behind
                if (
                    fresh
                    and not isinstance(error, ResultLockedError)
                    and not any((folder / WORK).glob("*.journal"))
                ):
                    shutil.rmtree(folder, ignore_errors=True)
                raise
            findings = from_json((folder / FINDINGS).read_bytes(), Findings)
            _say_what_went(folder, earlier, findings, reporter)
        return Outcome(path, slide_id, "done", "", "", folder, findings)
    except LobuleError as error:
        if (failure := equipment.networks.failure()) is not None:
            # no slide can be done without that network: one line now, not one for each of them
            raise failure from error
        if isinstance(error, ConfigurationError) and error.option != "--max-ram":
            # the same for every slide, while the memory that is needed depends on the slide
            raise
        if isinstance(error, ResultLockedError):
            stage = _LOCKED
        return Outcome(path, slide_id, "failed", stage, str(error), None, None)
    except Exception as error:
        # the one place for what nobody foresaw: the slide is named, the others go on
        reason = f"unforeseen {type(error).__name__}: {' '.join(str(error).split())}"
        return Outcome(path, slide_id, "failed", stage, reason, None, None)


def _say_what_went(folder: Path, earlier: Findings | None, now: Findings, reporter: Reporter) -> None:
    """Names the files of earlier results that the new ones are without."""
    before = () if earlier is None else earlier.files
    if gone := {file.name for file in before} - {file.name for file in now.files}:
        reporter.say(f"{folder.name}: removed, since this run does not make them: {', '.join(sorted(gone))}")


def _write_summary(out: Path, outcomes: Sequence[Outcome], reporter: Reporter) -> None:
    """All slides whose results lie in ``out``, and the failures, by slide id. Raises ResultWriteError.

    Failures of earlier runs stay until a slide of that name is done or fails anew. Many runs may share a folder:
    between one's reading of the table and its writing no other writes. A table that is not lobule's is set aside.
    """
    table = out / SUMMARY
    with writing(table), alone(out / f".{SUMMARY}.lock"):
        rows = _summary_rows(out, outcomes)
        known = {(str(row["slide"]), str(row["file"])) for row in rows.values()}
        known |= {(outcome.slide_id, outcome.slide.name) for outcome in outcomes}
        earlier = earlier_failures(table, known)
        if earlier is None:
            free = (out / f"{SUMMARY}.old{number or ''}" for number in count())
            aside = next(path for path in free if not path.exists())
            table.rename(aside)
            reporter.say(f"{table} was another table than lobule's; it is now {aside.name}")
        for row in earlier or ():
            rows[row["slide"], row["file"]] = row
        write_summary(table, [rows[key] for key in sorted(rows)])


def _summary_rows(out: Path, outcomes: Sequence[Outcome]) -> dict[tuple[str, str], Mapping[str, object]]:
    rows: dict[tuple[str, str], Mapping[str, object]] = {}
    for path in out.glob(f"*/{FINDINGS}"):
        if (found := results_in(path.parent)) is not None:
            rows[path.parent.name, ""] = _row(found, path.parent.name)
    for outcome in outcomes:
        if outcome.status == "failed":
            if outcome.stage == _LOCKED and (outcome.slide_id, "") in rows:
                continue  # the run that was at work there is done
            # a file that was not read may be another slide than the one whose results lie under its name
            unread = outcome.stage in ("open", "prepare")
            rows[outcome.slide_id, str(outcome.slide) if unread else ""] = {
                "slide": outcome.slide_id,
                "file": outcome.slide.name,
                "status": "failed",
                "stage": outcome.stage,
                "reason": outcome.reason,
            }
    return rows


def _nuclei_where(findings: Findings) -> str | None:
    """Where nuclei were counted: numbers of the tumor region do not compare with those of all tissue."""
    if not any(stage.name == "nuclei" and stage.status == "done" for stage in findings.stages):
        return None
    given = findings.options.get("tissue_mask_sha256") is not None
    if findings.regions:
        return "tumor region in tissue given" if given else "tumor region"
    return "tissue given" if given else "tissue"


def _row(findings: Findings, folder: str) -> dict[str, object]:
    numbers = {measurement.name: measurement.value for measurement in findings.measurements}
    skipped = [
        f"{stage.name} skipped: {stage.reason}" for stage in findings.stages if stage.status == "skipped"
    ]
    return {
        "slide": findings.slide.id,
        "file": findings.slide.file,
        "status": "done",
        "reason": "; ".join(skipped),
        "seconds": findings.run.seconds_total,
        "mpp_um_per_px": round(Mpp(*findings.frame.mpp_um_per_px).mean, 6),
        "tissue_mm2": numbers.get("tissue_area"),
        "tumor_mm2": numbers.get("tumor_area"),
        "tumor_share": numbers.get("tumor_share"),
        "regions": numbers.get("tumor_regions"),
        "nuclei_where": _nuclei_where(findings),
        "nuclei_counted": numbers.get("nuclei_counted"),
        "nuclei_per_mm2": numbers.get("nuclear_density"),
        "median_nuclear_area_um2": numbers.get("nuclear_area_median"),
        "warnings": "; ".join(notice.code for notice in findings.warnings),
        "results": folder,
    }
