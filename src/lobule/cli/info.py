"""``lobule info``."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["info"]


@click.command()
@click.argument("slide", type=click.Path(path_type=Path))
@click.option("--mpp", help="Micrometers per pixel, or a CSV table 'slide,mpp'.")
@click.option("--raw", is_flag=True, help="Show every property that the file holds.")
def info(slide: Path, mpp: str | None, raw: bool) -> int:
    """Show what SLIDE is: format, size, levels, mpp and where it came from, and what is wrong with it."""
    from lobule.analysis.given_mpp import open_with_mpp
    from lobule.cli.analyze import parse_mpp
    from lobule.provenance import slide_identity

    with open_with_mpp(slide, parse_mpp(mpp)) as opened:
        properties = opened.properties
        width, height = opened.size
        identity = slide_identity(opened.files())
        rows = [
            ("slide", str(slide)),
            ("format", f"{properties.format}, read by {properties.reader}"),
            ("size", f"{width} × {height} px ({width * height / 1e9:.4g} gigapixels)"),
        ]
        if properties.mpp is not None:
            x, y = properties.mpp.x, properties.mpp.y
            pair = f"{x:g}" if x == y else f"{x:g} × {y:g}"
            source = "table" if properties.mpp_source == "csv" else properties.mpp_source
            rows.append(("mpp", f"{pair} µm/px, from the {source}"))
            rows.append(("extent", f"{width * x / 1000:.3g} × {height * y / 1000:.3g} mm"))
        else:
            rows.append(("mpp", f"unknown: {properties.mpp_problem}; give it with --mpp"))
        if properties.objective_power is not None:
            rows.append(("objective", f"×{properties.objective_power:g}"))
        for number, level in enumerate(opened.levels):
            down = level.downsample[0] if level.downsample[0] == level.downsample[1] else level.downsample
            tiles = f", tiles {level.tile_size[0]} × {level.tile_size[1]}" if level.tile_size else ""
            shown = f"1/{down:g}" if isinstance(down, float) else f"1/{down[0]:g} × 1/{down[1]:g}"
            rows.append((f"level {number}", f"{level.size[0]} × {level.size[1]} px, {shown}{tiles}"))
        if properties.bounds is not None:
            b = properties.bounds
            rows.append(("bounds", f"{b.width} × {b.height} px at ({b.x0}, {b.y0}); QuPath shows this part"))
        rows.append(("associated", ", ".join(opened.associated_images()) or "none"))
        rows.append(("ICC profile", "yes" if properties.icc_profile else "no"))
        rows.append(("identity", f"{identity.method} {identity.sha256}"))
        rows.append(("on disk", f"{identity.size_bytes / 1e6:.4g} MB in {len(opened.files())} file(s)"))
        rows += [("warning", text) for text in properties.warnings]
        if raw:
            rows += sorted(properties.raw.items())
    for name, text in rows:
        click.echo(f"{name:12} {text}")
    return 0
