"""``lobule phantom``: a composed slide with its truth."""

from __future__ import annotations

from pathlib import Path

import click

from lobule.errors import ConfigurationError

__all__ = ["phantom"]


def _pair(option: str, text: str) -> tuple[float, float]:
    try:
        width, height = (float(part) for part in text.lower().replace("×", "x").split("x"))
    except ValueError:
        raise ConfigurationError(option, text, "width and height as 32000x24000") from None
    if not (0 < width < float("inf") and 0 < height < float("inf")):
        raise ConfigurationError(option, text, "width and height above 0")
    return width, height


@click.command("phantom", short_help="Compose a slide with its truth (drawn, or of real fields).")
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--size", metavar="WxH", help="Size in pixels, as 32000x24000.")
@click.option("--mm", metavar="WxH", help="Size in millimeters, as 8x6 (the default).")
@click.option("--mpp", type=float, help="µm per pixel [default: 0.25 drawn, 0.5 of fields].")
@click.option(
    "--tissue", type=float, default=0.28, show_default=True, help="Share of the slide that is tissue."
)
@click.option(
    "--tumor", type=float, default=0.2, show_default=True, help="Share of the tissue that is tumor."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed, another slide.")
@click.option("--artifacts/--no-artifacts", default=True, help="Pen, fold, blur, dust, unscanned glass.")
@click.option("--nuclei", is_flag=True, help="Also write every nucleus (drawn slides).")
@click.option("--compact", is_flag=True, help="Store repeated tiles once: same pixels, much smaller file.")
@click.option(
    "--fields",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of real field images.",
)
@click.option(
    "--labels",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV (file,label) of the fields to use [default: labels.csv in --fields].",
)
@click.option("--fields-mpp", type=float, default=0.84, show_default=True, help="µm per pixel of the fields.")
@click.option("--workers", type=int, help="Threads [default: the cores granted].")
@click.option("--quiet", is_flag=True, help="Print nothing.")
def phantom(
    out: Path,
    size: str | None,
    mm: str | None,
    mpp: float | None,
    tissue: float,
    tumor: float,
    seed: int,
    artifacts: bool,
    nuclei: bool,
    compact: bool,
    fields: Path | None,
    labels: Path | None,
    fields_mpp: float,
    workers: int | None,
    quiet: bool,
) -> None:
    """Composes the slide OUT (.tif, .tiff or .svs) and writes its truth beside it.

    Tissue is drawn (ducts, lobules, stroma, fat, carcinoma), or with --fields is a patchwork of real fields
    of which the carcinoma lies in the tumor regions. The same options give the same bytes.
    """
    import time

    from lobule.phantom import PhantomSpec, read_field_labels, write_phantom
    from lobule.phantom.spec import MAX_SIDE_PX, MIN_SIDE_PX
    from lobule.progress import reporter_for

    if size is not None and mm is not None:
        raise ConfigurationError("--size", f"{size} with --mm {mm}", "give one of them")
    if labels is not None and fields is None:
        raise ConfigurationError("--labels", str(labels), "only with --fields")
    mpp = (0.5 if fields is not None else 0.25) if mpp is None else mpp
    if not 0.1 <= mpp <= 2:
        raise ConfigurationError("--mpp", mpp, "µm per pixel from 0.1 to 2")
    if size is not None:
        width, height = _pair("--size", size)
        if width % 1 or height % 1:
            raise ConfigurationError("--size", size, "whole pixels")
    else:
        width_mm, height_mm = _pair("--mm", mm or "8x6")
        width, height = width_mm * 1000 / mpp, height_mm * 1000 / mpp
        if not all(MIN_SIDE_PX <= round(side) <= MAX_SIDE_PX for side in (width, height)):
            limits = " to ".join(f"{side * mpp / 1000:g}" for side in (MIN_SIDE_PX, MAX_SIDE_PX))
            raise ConfigurationError("--mm", mm, f"sides of {limits} mm at {mpp:g} µm per pixel")
    images = (
        None if fields is None else read_field_labels(fields, labels or fields / "labels.csv", fields_mpp)
    )
    spec = PhantomSpec(
        size=(round(width), round(height)),
        mpp=mpp,
        seed=seed,
        tissue_share=tissue,
        tumor_share=tumor,
        artifacts=artifacts,
        nuclei=nuclei,
        compact=compact,
        fields=images,
    )
    reporter = reporter_for(quiet=quiet)
    started = time.monotonic()
    truth = write_phantom(out, spec, workers=workers, progress=reporter)
    megabytes = out.stat().st_size / 1e6
    reporter.say(
        f"{truth.slide}: {spec.size[0]} x {spec.size[1]} px at {spec.mpp:g} µm, {megabytes:.0f} MB, "
        f"{time.monotonic() - started:.1f} s"
    )
    reporter.say(
        f"{truth.regions}: " + ", ".join(f"{name} {area:.2f} mm²" for name, area in truth.area_mm2.items())
    )
    if truth.nuclei is not None:
        reporter.say(f"{truth.nuclei}: {truth.nucleus_count} nuclei")
