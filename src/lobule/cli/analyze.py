"""``lobule analyze``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lobule.geometry import Mpp

if TYPE_CHECKING:
    from lobule.analysis.single import Result

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
    if not text.isdigit() or int(text) < 1:
        raise click.BadParameter(f"{text!r} is neither a number of tiles nor 'all'", param_hint="--nuclei")
    return int(text)


def existing_slides(arguments: tuple[str, ...]) -> list[Path]:
    """The slides that were named; a folder stands for the files in it that look like slides."""
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
        ".png",
        ".jpg",
        ".jpeg",
    ]
    slides: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            inside = sorted(
                file for file in path.iterdir() if file.is_file() and file.suffix.lower() in endings
            )
            if not inside:
                raise click.BadParameter(f"{path}: no slides in this folder", param_hint="SLIDES")
            slides += inside
        else:
            slides.append(path)
    return slides


def parse_mpp(text: str | None) -> Mpp | dict[str, Mpp] | None:
    """A number for every slide, or the table in a CSV file. Raises ConfigurationError."""
    from lobule.errors import ConfigurationError
    from lobule.slides.resolution import mpp_from_option, parse_number, read_mpp_csv

    if text is None:
        return None
    number = parse_number(text)
    if number is not None:
        return mpp_from_option(number)
    if Path(text).is_file():
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
    "--thorough", is_flag=True, help="Every tile through the large network, none settled by a small one."
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
@click.option("--only", help="Stages to run, such as tumor or tumor,nuclei.")
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
    from lobule.progress import reporter_for

    outcomes = analyze_slides(
        named,
        out,
        options,
        mpp=given,
        reporter=reporter_for(quiet=quiet),
        after=_say_profile if profile else None,
        equipment=equipment,
    )
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    for outcome in failed:
        if quiet:
            click.echo(f"{outcome.slide}: {outcome.reason}", err=True)
    if not quiet:
        for outcome in outcomes:
            if outcome.findings is not None:
                click.echo(_brief(outcome.slide_id, outcome))
        if len(outcomes) > 1:
            click.echo(f"{len(outcomes) - len(failed)} of {len(outcomes)} slides done; {out / 'summary.csv'}")
    return 1 if failed else 0


def _say_profile(result: Result) -> None:
    """Measures the limits and prints where the time went."""
    from lobule.analysis.profile import measure_rooflines, profile_lines

    click.echo(f"{result.slide_id}: where the time went")
    for line in profile_lines(result, measure_rooflines(result)):
        click.echo(f"  {line}")


def _brief(slide_id: str, outcome: object) -> str:
    """A few lines of result and where the report lies."""
    from lobule.analysis.batch import Outcome

    if not isinstance(outcome, Outcome) or outcome.findings is None or outcome.folder is None:
        return slide_id
    lines = [slide_id]
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
            bounds = "" if measurement.low is None else f"  ({measurement.low:.4g} to {measurement.high:.4g})"
            lines.append(
                f"  {measurement.label}: {measurement.value:.4g} {measurement.unit}{bounds}".rstrip()
            )
    for stage in outcome.findings.stages:
        if stage.status == "skipped":
            lines.append(f"  {stage.name}: skipped, {stage.reason}")
    lines += [f"  warning: {notice.message}" for notice in outcome.findings.warnings]
    already = " (already done, nothing changed)" if outcome.status == "unchanged" else ""
    lines.append(f"  report: {outcome.folder / 'report.html'}{already}")
    return "\n".join(lines)
