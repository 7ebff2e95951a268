"""``lobule check``."""

from __future__ import annotations

import click

__all__ = ["check"]


@click.command()
@click.argument("slides", nargs=-1, required=True)
@click.option("--models", "-m", multiple=True, help="Model folder or name. Repeatable.")
@click.option("--mpp", help="Micrometers per pixel, or a CSV table 'slide,mpp'.")
@click.option("--only", help="Stages that will be run, such as tumor.")
@click.option(
    "--nuclei", default="64", show_default=True, help="Nuclei tiles that will be looked at, or 'all'."
)
@click.option("--thorough", is_flag=True, help="As the run will be.")
@click.option("--workers", type=int, help="Threads that will be used.")
def check(
    slides: tuple[str, ...],
    models: tuple[str, ...],
    mpp: str | None,
    only: str | None,
    nuclei: str,
    thorough: bool,
    workers: int | None,
) -> int:
    """Look at SLIDES before a long run, seconds each: what is wrong, and what the run will take here.

    Exit status: 0 all can be analyzed, 1 some cannot, 2 wrong use.
    """
    from lobule.analysis.checking import check_slides
    from lobule.analysis.given_mpp import rows_of_no_slide
    from lobule.analysis.options import STAGES, Options
    from lobule.cli.analyze import existing_slides, parse_mpp, parse_nuclei

    options = Options(
        only=STAGES if only is None else tuple(part.strip() for part in only.split(",") if part.strip()),
        models=models,
        nuclei_tiles=parse_nuclei(nuclei),
        thorough=thorough,
        workers=workers,
    )
    named, given = existing_slides(slides), parse_mpp(mpp)
    if (unused := rows_of_no_slide(named, given)) is not None:
        click.echo(unused, err=True)
    results = check_slides(named, options, given)
    for result in results:
        if result.problems:
            click.echo(f"BAD   {result.problems[0]}")
            continue
        cost = f"about {result.seconds:.0f} s, {result.disk_bytes / 1e6:.0f} MB of results"
        click.echo(f"ok    {result.slide}: {cost}")
        for remark in result.remarks:
            click.echo(f"      note: {remark}")
    bad = sum(bool(result.problems) for result in results)
    total = sum(result.seconds for result in results)
    memory = max((result.memory_bytes for result in results), default=0)
    disk = sum(result.disk_bytes for result in results)
    click.echo(
        f"{len(results) - bad} of {len(results)} slides can be analyzed; about {total / 60:.1f} min, "
        f"{memory / 1e9:.1f} GB of memory, {disk / 1e6:.0f} MB of disk"
    )
    return 1 if bad else 0
