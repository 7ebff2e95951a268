"""``lobule analyze``."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lobule.geometry import Mpp

if TYPE_CHECKING:
    from lobule.analysis.batch import Outcome
    from lobule.analysis.single import Result
    from lobule.findings.schema import Measurement

__all__ = ["analyze", "existing_slides", "parse_bytes", "parse_mpp", "parse_nuclei"]


def parse_bytes(text: str) -> int:
    """``2G``, ``900M`` or plain bytes → bytes. Raises click.BadParameter."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", text.strip().lower())
    if not match:
        raise click.BadParameter(f"{text!r} is not an amount of memory; write 2G or 900M")
    return int(float(match[1]) * 1000 ** " kmgt".index(match[2] or " "))


def parse_nuclei(text: str) -> int | None:
    """A number of tiles, or None for ``all``. Raises click.BadParameter."""
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise click.BadParameter(f"{text!r} is neither a number of tiles nor 'all'", param_hint="--nuclei")
    return int(text)


def existing_slides(arguments: tuple[str, ...]) -> list[Path]:
    """The slides that were named; a folder stands for the files in it that look like slides.

    The DICOM files of a series stand for one slide, and so do several names of a file. Beside other names
    (``folder/*``) a folder without slides is left out and told of, and so are lobule's own results. Raises
    click.BadParameter.
    """
    slides: list[Path] = []
    left_out: list[str] = []
    for argument in arguments:
        if not argument:
            raise click.BadParameter("one name is empty (a variable that is not set?)", param_hint="SLIDES")
        path = Path(argument)
        if _is_folder(path):
            inside = _slides_in(path)
            if not inside and not (path.parent / f"{path.name}.mrxs").exists():
                left_out.append(f"{path}: no slides in this folder (folders in it are not searched)")
            slides += inside
        elif path.name in ("summary.csv", ".summary.csv.lock"):
            left_out.append(f"{path}: the table of earlier results, not a slide")
        else:
            slides.append(path)
    if not slides:
        raise click.BadParameter("; ".join(left_out) or "no slides", param_hint="SLIDES")
    for line in left_out:
        click.echo(f"{line}; left out", err=True)
    # links are not followed: a slide is called as it is named
    once = {os.path.normpath(slide.absolute()): slide for slide in reversed(slides)}
    return _one_of_each_series(list(once.values())[::-1])


def _slides_in(folder: Path) -> list[Path]:
    """The files of a folder that look like slides; none in one of lobule's results. Raises click.BadParameter."""
    endings = [
        ".svs",
        ".ndpi",
        ".mrxs",
        ".scn",
        ".bif",
        ".svslide",
        ".tif",
        ".tiff",
        ".dcm",
        ".dicom",
        ".vms",
        ".vmu",
        ".qptiff",
        ".czi",
        ".vsi",
        ".bmp",
        ".png",
        ".jpg",
        ".jpeg",
    ]
    try:
        if (folder / "findings.json").exists():
            return []
        return sorted(
            file
            for file in folder.iterdir()
            # macOS leaves a file "._name" beside each on disks that are not its own
            if file.suffix.lower() in endings and not file.name.startswith("._") and file.is_file()
        )
    except OSError as error:
        raise click.BadParameter(
            f"{folder}: this folder cannot be read: {error.strerror or error}", param_hint="SLIDES"
        ) from error


def _is_folder(path: Path) -> bool:
    """Whether a folder is there; what may not be looked at is taken for a slide, and opening it says why not."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _one_of_each_series(slides: list[Path]) -> list[Path]:
    """The slides with the largest level alone, in the place of the first, where files are one DICOM slide's."""
    files = [slide for slide in slides if slide.suffix.lower() in (".dcm", ".dicom")]
    if len(files) < 2:
        return slides
    from lobule.errors import SlideReadError
    from lobule.slides.dicom_structure import WHOLE_SLIDE, DicomImage, read_dicom_header

    series: dict[tuple[Path, str], list[DicomImage]] = {}
    for file in dict.fromkeys(files):
        with suppress(SlideReadError):  # the run will name it
            image = read_dicom_header(file)
            if image.series and image.sop_class == WHOLE_SLIDE:
                series.setdefault((file.parent, image.series), []).append(image)
    stands_for = {}
    for images in series.values():
        levels = [image for image in images if image.flavor == "VOLUME"] or images
        largest = max(levels, key=lambda image: image.matrix[0] * image.matrix[1])
        stands_for.update({image.path: largest.path for image in images})
    return list(dict.fromkeys(stands_for.get(slide, slide) for slide in slides))


def parse_mpp(text: str | None) -> Mpp | dict[str, Mpp] | None:
    """A number for every slide, or the table in a CSV file. Raises ConfigurationError."""
    from lobule.errors import ConfigurationError
    from lobule.slides.resolution import mpp_from_option, parse_number, read_mpp_csv

    if text is None:
        return None
    number = parse_number(text)
    if number is not None:
        return mpp_from_option(number)
    try:
        is_table = Path(text).is_file()
    except OSError as error:
        raise ConfigurationError("--mpp", text, f"it cannot be read: {error.strerror or error}") from error
    if is_table:
        return read_mpp_csv(Path(text), "--mpp")
    raise ConfigurationError(
        "--mpp", text, "give micrometers per pixel, such as 0.25, or a CSV file 'slide,mpp'"
    )


@click.command()
@click.argument("slides", nargs=-1, required=True)
@click.option("--out", "-o", type=click.Path(path_type=Path), required=True, help="Folder for the results.")
@click.option(
    "--models", "-m", multiple=True, help="Model folder or name; takes its family's place. Repeatable."
)
@click.option(
    "--runtime",
    type=click.Choice(["auto", "onnxruntime", "openvino", "torch"]),
    default="auto",
    show_default=True,
    help="What runs the models.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "f32", "bf16", "int8"]),
    default="auto",
    show_default=True,
    help="Number format of the networks; auto takes the fastest that a model's card proves.",
)
@click.option(
    "--thorough",
    is_flag=True,
    help="Every tile through the large network, none settled by a small one; nuclei seen in all eight positions.",
)
@click.option("--workers", type=int, help="Threads; by default one for each core granted to this process.")
@click.option("--max-ram", help="Memory to stay within, such as 2G: fewer workers are used.")
@click.option(
    "--mpp",
    help="Micrometers per pixel, over what the files say: one number, or a CSV table 'slide,mpp'.",
)
@click.option(
    "--specimen",
    type=click.Choice(["breast", "node"]),
    default="breast",
    show_default=True,
    help="Kind of tissue.",
)
@click.option("--only", help="Stages to run, such as tumor or tumor,nuclei; tissue: no other.")
@click.option("--tissue", type=click.Path(path_type=Path), help="Tissue mask: PNG, GeoJSON, ASAP XML …")
@click.option(
    "--tissue-method",
    type=click.Choice(["hsv", "otsu"]),
    default="hsv",
    show_default=True,
    help="How tissue is found.",
)
@click.option(
    "--nuclei",
    default="64",
    show_default=True,
    help="Nuclei tiles to look at, spread evenly over the region; 'all' for every one.",
)
@click.option(
    "--tables",
    default="csv",
    show_default=True,
    help="Formats of the table of nuclei: csv, parquet (needs the extra 'tables') or csv,parquet.",
)
@click.option("--profile", is_flag=True, help="Say where the time went, beside the least it could take here.")
@click.option("--quiet", "-q", is_flag=True, help="Say only what failed.")
def analyze(
    slides: tuple[str, ...],
    out: Path,
    models: tuple[str, ...],
    runtime: str,
    precision: str,
    thorough: bool,
    workers: int | None,
    max_ram: str | None,
    mpp: str | None,
    specimen: str,
    only: str | None,
    tissue: Path | None,
    tissue_method: str,
    nuclei: str,
    tables: str,
    profile: bool,
    quiet: bool,
) -> int:
    """Analyze SLIDES (files or folders) and write a folder of results for each.

    Exit status: 0 all done, 1 some slide failed (the others are done), 2 wrong use.
    """
    from lobule.analysis.memory import share_one_heap
    from lobule.analysis.networks import equip
    from lobule.analysis.options import STAGES, Options

    share_one_heap()

    options = Options(
        only=STAGES if only is None else tuple(part.strip() for part in only.split(",") if part.strip()),
        specimen="node" if specimen == "node" else "breast",
        models=models,
        runtime=runtime,  # type: ignore[arg-type]
        precision={"f32": "float32", "bf16": "bfloat16"}.get(precision, precision),  # type: ignore[arg-type]
        thorough=thorough,
        tissue=tissue,
        tissue_method="otsu" if tissue_method == "otsu" else "hsv",
        nuclei_tiles=parse_nuclei(nuclei),
        tables=tuple(part.strip() for part in tables.split(",") if part.strip()),
        workers=workers,
        max_ram_bytes=None if max_ram is None else parse_bytes(max_ram),
    )
    given, named = parse_mpp(mpp), existing_slides(slides)
    equipment = equip(options)
    # imported while the networks load
    from lobule.analysis.batch import analyze_slides
    from lobule.errors import ResultWriteError
    from lobule.progress import reporter_for

    outcomes: list[Outcome] = []
    try:
        analyze_slides(
            named,
            out,
            options,
            mpp=given,
            reporter=reporter_for(quiet=quiet),
            after=_say_profile if profile else None,
            each=outcomes.append,
            equipment=equipment,
        )
    except ResultWriteError:
        # the slides were done all the same
        _say_results(outcomes, out, profile=profile, quiet=quiet)
        raise
    _say_results(outcomes, out, profile=profile, quiet=quiet)
    return 1 if any(outcome.status == "failed" for outcome in outcomes) else 0


def _say_results(outcomes: Sequence[Outcome], out: Path, *, profile: bool, quiet: bool) -> None:
    """Every slide's results in a few lines; when quiet only what failed."""
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    for outcome in failed if quiet else ():
        named = outcome.reason.startswith(f"{outcome.slide}: ")
        click.echo(outcome.reason if named else f"{outcome.slide}: {outcome.reason}", err=True)
    if profile:
        for outcome in outcomes:
            if outcome.status == "unchanged":
                click.echo(f"{outcome.slide_id}: no profile: it was done before; time it with another --out")
    if not quiet:
        for outcome in outcomes:
            if outcome.findings is not None:
                click.echo(_brief(outcome))
        if len(outcomes) > 1:
            click.echo(f"{len(outcomes) - len(failed)} of {len(outcomes)} slides done; {out / 'summary.csv'}")


def _say_profile(result: Result) -> None:
    """Measures the limits and prints where the time went."""
    from lobule.analysis.profile import measure_rooflines, profile_lines

    click.echo(f"{result.slide_id}: where the time went")
    for line in profile_lines(result, measure_rooflines(result)):
        click.echo(f"  {line}")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _bounds(measurement: Measurement) -> str:
    if measurement.low is None or measurement.high is None:
        return ""
    between = f"{_number(measurement.low)} to {_number(measurement.high)}"
    if measurement.bounds == "other thresholds":
        same = measurement.low == measurement.value == measurement.high
        return f"  ({'the same' if same else between} at other thresholds)"
    return f"  ({measurement.bounds} {between})"


def _brief(outcome: Outcome) -> str:
    """A few lines of result and where the report lies."""
    if outcome.findings is None or outcome.folder is None:
        return outcome.slide_id
    lines = [outcome.slide_id]
    wanted = (
        "tissue_area",
        "tumor_area",
        "tumor_share",
        "nuclei_counted",
        "nuclear_density",
        "nuclear_area_median",
    )
    for measurement in outcome.findings.measurements:
        if measurement.name in wanted and measurement.value is not None:
            said = f"{_number(measurement.value)} {measurement.unit}".rstrip()
            lines.append(f"  {measurement.label}: {said}{_bounds(measurement)}")
    for stage in outcome.findings.stages:
        if stage.status == "skipped":
            lines.append(f"  {stage.name}: skipped, {stage.reason}")
    lines += [f"  warning: {notice.message}" for notice in outcome.findings.warnings]
    already = " (already done, nothing changed)" if outcome.status == "unchanged" else ""
    lines.append(f"  report: {outcome.folder / 'report.html'}{already}")
    return "\n".join(lines)
