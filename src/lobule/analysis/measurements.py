"""Outcomes become measurements, warnings and sentences; the numbers of the report come from here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lobule.analysis.stages import TissueOutcome, mirrored_share
from lobule.analysis.tumor_stage import TumorOutcome
from lobule.families.neighbors import mean_nearest_um
from lobule.families.tumor import cell_areas_mm2, least_region_mm2, parts_on_slide, tumor_mask
from lobule.findings.maps import TumorRegion
from lobule.findings.schema import Bounds, Measurement, Notice, RegionFinding, Stage
from lobule.geometry import Mpp
from lobule.models.zoo import Model, shipped_models
from lobule.strict import changed
from lobule.tiles import tile_shares

if TYPE_CHECKING:
    from lobule.analysis.nuclei_stage import NucleiOutcome
    from lobule.analysis.single import Prepared

__all__ = [
    "TILES_FOR_INTERVAL",
    "differences",
    "nuclei_measurements",
    "nuclei_notices",
    "region_findings",
    "tissue_measurements",
    "tissue_notices",
    "tumor_measurements",
    "tumor_notices",
]

THRESHOLD_ODDS = 2.0
"""The tumor area's bounds are those at the threshold's odds times and over this."""
TILES_FOR_INTERVAL = 3
"""Fewer do not tell by how much tiles differ in nuclei."""
BLURRED_NOTICE_SHARE = 0.1
COLOR_NOTICE_SD = 3.0
MIRRORED_NOTICE_SHARE = 0.1
"""Of a tile that the slide does not fill."""
UNJUDGED_NOTICE_SHARE = 0.2
"""Of the tissue: what lies in tiles along its edge alone stays below."""
NUCLEUS_DIAMETER_UM = (4.0, 14.0)
"""Between these lies the median nuclear diameter of a slide whose mpp is right."""
LARGE_NUCLEUS_TIMES = 2.0


def _rounded(value: float | None, digits: int = 6) -> float | None:
    # ten significant digits would only be noise of the arithmetic
    return None if value is None or not np.isfinite(value) else float(f"{value:.{digits}g}")


def tissue_measurements(seen: TissueOutcome) -> list[Measurement]:
    """Areas and shares on the overview."""
    mask = seen.tissue.mask
    found = np.count_nonzero(mask)
    rows = [("tissue_area", "Tissue area", seen.area_mm2, "mm²", f"tissue found by {seen.source}")]
    for name, label, artifact in (
        ("pen_share", "Pen marks, share of the slide", seen.tissue.pen),
        ("unscanned_share", "Unscanned glass, share of the slide", seen.tissue.unscanned),
    ):
        rows.append((name, label, np.count_nonzero(artifact) / artifact.size, "", "seen on the overview"))
    if found:
        rows.append(
            (
                "fold_share",
                "Folds, share of the tissue",
                np.count_nonzero(seen.tissue.fold & mask) / found,
                "",
                "dark saturated bands on the overview",
            )
        )
    return [
        Measurement(stage="tissue", name=name, label=label, value=_rounded(value), unit=unit, how=how)
        for name, label, value, unit, how in rows
    ]


def tissue_notices(prepared: Prepared, seen: TissueOutcome) -> list[Notice]:
    """What a user should know of the slide and its tissue."""
    notices = [Notice(code="slide", message=text) for text in prepared.slide.properties.warnings]
    notices += [Notice(code=warning.code, message=_sentence(warning.text)) for warning in seen.warnings]
    if seen.stain.kind != "he":
        what = {"ihc": "looks like immunohistochemistry"}.get(seen.stain.kind, "does not look like H&E")
        notices.append(
            Notice(code="stain", message=f"The slide {what} ({seen.stain.reason}); the models know H&E only.")
        )
    if prepared.identity.method == "sha256-sampled":
        notices.append(
            Notice(
                code="identity",
                message="The slide is large: its identity was taken from its size and sampled blocks, not every byte.",
            )
        )
    return notices


def _sentence(text: str) -> str:
    """A warning as it stands among others; one that begins with a file's name is left as it is."""
    first = text.split(" ", 1)[0]
    named = "/" in first or ("." in first and not first[0].isdecimal())
    return text if named else f"{text[:1].upper()}{text[1:].rstrip('.')}."


def tumor_measurements(tumor: TumorOutcome, seen: TissueOutcome, model: Model) -> list[Measurement]:
    """Area and share of the tumor region, with what a shifted threshold would give."""
    patch_threshold = model.card.thresholds["patch"]
    area = sum(region.area_mm2 for region in tumor.regions)
    cells_mm2 = cell_areas_mm2(tumor.decided_on)

    def area_of(mask: NDArray[np.bool_]) -> float:
        if tumor.within is None:
            return float(cells_mm2[mask].sum())
        from lobule.annotations import polygons_from_mask

        frame = tumor.decided_on.frame
        found = (
            part for one in polygons_from_mask(mask) for part in parts_on_slide(one, frame, tumor.within)
        )
        return float(sum(part.area for part in found) * frame.slide_mpp.pixel_area_um2 / 1e6)

    odds = tumor.threshold / (1 - tumor.threshold)
    strict, lax = (times * odds / (1 + times * odds) for times in (THRESHOLD_ODDS, 1 / THRESHOLD_ODDS))
    fewer, more = (tumor_mask(tumor.decided_on, threshold) for threshold in (strict, lax))
    least, most = min(area, area_of(fewer)), max(area, area_of(more))
    swing = f"bounds: at thresholds {strict:.2g} and {lax:.2g} instead of {tumor.threshold:.2g}"
    judged = np.isfinite(tumor.heatmap.values)
    rows = [
        Measurement(
            stage="tumor",
            name="tumor_area",
            label="Tumor region, area",
            value=_rounded(area),
            unit="mm²",
            low=_rounded(least),
            high=_rounded(most),
            bounds="other thresholds",
            how=f"within the regions' outlines, glass there included; {swing}",
        ),
        Measurement(
            stage="tumor",
            name="tumor_regions",
            label="Tumor regions",
            value=len(tumor.regions),
            unit="",
            how=f"connected parts of at least {least_region_mm2(tumor.frame):.2g} mm²",
        ),
    ]
    if not seen.tissue.empty:
        share, narrow, wide = (_share_of_tissue(mask, tumor, seen) for mask in (tumor.mask, fewer, more))
        rows.append(
            Measurement(
                stage="tumor",
                name="tumor_share",
                label="Tumor region, share of the tissue",
                value=_rounded(share),
                unit="",
                low=_rounded(min(share, narrow)),
                high=_rounded(max(share, wide)),
                bounds="other thresholds",
                how=f"the tissue within the regions' outlines over all tissue; {swing}",
            )
        )
    if not tumor.tiles:
        # that nothing was judged is not that nothing was found
        nothing = {"value": None, "low": None, "high": None, "bounds": None}
        why = "no tile held enough tissue to be judged"
        return [changed(row, **nothing, how=why) for row in rows]
    if judged.any():
        rows.append(
            Measurement(
                stage="tumor",
                name="positive_tiles",
                label="Tiles called tumor by the first stage alone",
                value=_rounded(float((tumor.heatmap.values[judged] >= patch_threshold).mean())),
                unit="",
                how=f"share among {int(judged.sum())} tiles with tissue; at the model's threshold, {patch_threshold:g}",
            )
        )
    focus = np.isfinite(tumor.blurred.values)
    if focus.any():
        rows.append(
            Measurement(
                stage="tumor",
                name="blurred_tiles",
                label="Tiles out of focus",
                value=_rounded(float(tumor.blurred.values[focus].mean())),
                unit="",
                how=f"among {int(focus.sum())} tiles with enough structure to judge",
            )
        )
    if on_blurred := _blurred_share(tumor):
        rows.append(on_blurred)
    return rows


def _blurred_share(tumor: TumorOutcome) -> Measurement | None:
    weighted = [(r.area_mm2, r.blurred_share) for r in tumor.regions if r.blurred_share is not None]
    total = sum(area for area, _ in weighted)
    if not total:
        return None
    return Measurement(
        stage="tumor",
        name="tumor_blurred_share",
        label="Tumor region on blurred tissue",
        value=_rounded(sum(area * share for area, share in weighted) / total),
        unit="",
        how="share of the region's area, by tiles out of focus",
    )


def _share_of_tissue(mask: NDArray[np.bool_], tumor: TumorOutcome, seen: TissueOutcome) -> float:
    """The share of the tissue, by the centers of the overview's pixels, within the mask that regions come from."""
    tissue, cells = seen.tissue.mask, tumor.decided_on.frame
    rows, columns = (
        np.minimum(
            ((np.arange(tissue.shape[axis]) + 0.5) * (seen.frame.scale[1 - axis] / cells.scale[1 - axis])),
            mask.shape[axis] - 1,
        ).astype(np.intp)
        for axis in (0, 1)
    )
    within = mask.take(rows, axis=0).take(columns, axis=1)
    within &= tissue
    return np.count_nonzero(within) / np.count_nonzero(tissue)


def _unjudged_share(tumor: TumorOutcome, seen: TissueOutcome) -> float:
    """The share of the tissue that lies in tiles which hold too little of it to be judged."""
    shares = tile_shares(tumor.grid, seen.tissue.mask, seen.frame, tumor.frame)
    tissue = shares * cell_areas_mm2(tumor.heatmap)
    total = float(tissue.sum())
    return float(tissue[np.isnan(tumor.heatmap.values)].sum()) / total if total else 0.0


def tumor_notices(tumor: TumorOutcome, model: Model, seen: TissueOutcome) -> list[Notice]:
    """Warnings that the tumor stage gives rise to."""
    notices = []
    if (unjudged := _unjudged_share(tumor, seen)) > UNJUDGED_NOTICE_SHARE:
        notices.append(
            Notice(
                code="unjudged",
                message=f"{unjudged:.0%} of the tissue lies in tiles that hold a quarter of tissue or less; the tumor "
                "model's first stage does not judge these.",
            )
        )
    focus = np.isfinite(tumor.blurred.values)
    if focus.any() and (share := float(tumor.blurred.values[focus].mean())) > BLURRED_NOTICE_SHARE:
        notices.append(
            Notice(
                code="blur",
                message=f"{share:.0%} of the judged tiles are out of focus; results there are unsure.",
            )
        )
    z = _color_distance(tumor, seen, model)
    if z is not None and np.abs(z).max() > COLOR_NOTICE_SD:
        notices.append(
            Notice(
                code="color",
                message=f"The tissue's mean color lies {np.abs(z).max():.1f} SDs from what the tumor model was "
                "trained on; its results are unsure here.",
            )
        )
    graph = model.card.graph("patch")
    assert graph is not None
    mirrored = mirrored_share(tumor.frame.slide_size, tumor.frame.slide_mpp, graph)
    if tumor.tiles and mirrored > MIRRORED_NOTICE_SHARE:
        notices.append(
            Notice(
                code="small-field",
                message=f"The image is smaller than the tumor model's tile: {mirrored:.0%} of what the model saw is "
                "mirror image, so that its answer is unsure.",
            )
        )
    if tumor.tiles and min(tumor.frame.scale) < 0.999:
        notices.append(_enlarged("tumor", tumor.frame.slide_mpp, tumor.frame.mpp))
    return notices


def _color_distance(tumor: TumorOutcome, seen: TissueOutcome, model: Model) -> NDArray[np.float64] | None:
    """Mean color of the tissue, in SDs of the training tiles', R G B; None where no tile was looked at."""
    if not tumor.tiles or seen.mean_rgb is None:
        return None
    z: NDArray[np.float64] = (seen.mean_rgb - model.card.pixel_mean) / np.asarray(model.card.pixel_std)
    return z


def _told(mpp: Mpp) -> str:
    same = abs(mpp.x - mpp.y) <= 0.01 * mpp.mean
    return f"{mpp.mean:.3g}" if same else f"{mpp.x:.3g} across and {mpp.y:.3g} down"


def _enlarged(stage: str, slide: Mpp, model: Mpp) -> Notice:
    return Notice(
        code="enlarged",
        message=f"The {stage} model works at {model.mean:.3g} µm/px and the slide has {_told(slide)}: "
        "its pixels were enlarged, small structures may be missed"
        + (", and texture is smoother than on finer slides." if stage == "nuclei" else "."),
    )


def _density(nuclei: NucleiOutcome) -> tuple[float | None, float | None, float | None]:
    """Nuclei per mm² with a 95 % interval of the ratio estimate over tiles (Cochran's linearized variance).

    Student's t, since tiles are often few. No interval where there are fewer than three, or none with a nucleus: such
    tiles do not tell by how much tiles differ.
    """
    area, counts = nuclei.tile_area_mm2, nuclei.tile_counts
    total = float(area.sum())
    if total <= 0:
        return None, None, None
    density = float(counts.sum()) / total
    if len(area) < TILES_FOR_INTERVAL or not counts.any():
        return density, None, None
    from scipy.special import stdtrit

    residual = counts - density * area
    error = float(np.sqrt(len(area) / (len(area) - 1) * (residual**2).sum()) / total)
    reach = float(stdtrit(len(area) - 1, 0.975)) * error
    return density, max(0.0, density - reach), density + reach


def nuclei_measurements(nuclei: NucleiOutcome) -> list[Measurement]:
    """Counts, density, sizes, shapes and distances over the looked-at part of the region."""
    looked_mm2 = float(nuclei.tile_area_mm2.sum())
    density, low, high = _density(nuclei)
    rows = [
        _nuclear(
            "nuclei_counted",
            "Nuclei counted",
            int(nuclei.tile_counts.sum()),
            how=f"in {len(nuclei.indices)} of {nuclei.candidates} tiles of the {nuclei.where}",
        ),
        _nuclear(
            "looked_at_area",
            "Area looked at",
            looked_mm2,
            "mm²",
            how=f"tissue of the {nuclei.where} within those tiles"
            if nuclei.where != "tissue"
            else "the part of the tissue within those tiles",
        ),
        _nuclear(
            "nuclear_density",
            "Nuclei per mm² of tissue",
            density,
            "1/mm²",
            low,
            high,
            bounds="95 % interval",
            how="of these tiles; the model's own error is not in it"
            if low is None
            else "bounds: 95 % interval over the tiles; the model's own error is not in it",
        ),
    ]
    if not len(nuclei.columns.area_um2):
        return rows
    rows += _sizes(nuclei)
    known = int(np.isfinite(nuclei.columns.nearest_um).sum())
    rows.append(
        _nuclear(
            "nearest_nucleus_mean",
            "Distance to the nearest nucleus, mean",
            mean_nearest_um(nuclei.columns.nearest_um, nuclei.columns.seen_um),
            "µm",
            how=f"center to center, of {known} nuclei; the others lie nearer to the edge of what was looked at than to "
            "any nucleus, which the mean allows for (Hanisch's weights)",
        )
    )
    if nuclei.elsewhere is not None and len(nuclei.elsewhere.area_um2):
        other = nuclei.elsewhere
        low, median, high = np.percentile(other.area_um2.astype(np.float64), [25, 50, 75]).tolist()
        rows.append(
            _nuclear(
                "nuclear_area_median_elsewhere",
                f"Nuclear area, median, {other.name}",
                median,
                "µm²",
                low,
                high,
                bounds="quartiles",
                how=f"{len(other.area_um2)} nuclei of every kind in {other.tiles} tiles; bounds: the quartiles",
            )
        )
    return rows


def _sizes(nuclei: NucleiOutcome) -> list[Measurement]:
    """Sizes and shapes."""
    # of one that the edge of what was looked at cuts, neither size nor shape is known
    whole = nuclei.columns.touches_border == 0
    area = nuclei.columns.area_um2[whole].astype(np.float64)
    if not len(area):
        return []
    low, median, high = np.percentile(area, [25, 50, 75]).tolist()
    smaller = np.sort(area)[: max(1, len(area) // 2)]
    limit = LARGE_NUCLEUS_TIMES * float(np.median(smaller))
    rows = [
        _nuclear(
            "nuclear_area_median",
            "Nuclear area, median",
            median,
            "µm²",
            low,
            high,
            bounds="quartiles",
            how=f"bounds: the quartiles; like all sizes and shapes of the {len(area)} nuclei seen whole",
        )
    ]
    for name, label, unit, values in (
        ("nuclear_area", "Nuclear area", "µm²", area),
        (
            "nuclear_circularity",
            "Nuclear circularity",
            "",
            nuclei.columns.circularity[whole].astype(np.float64),
        ),
    ):
        mean = float(values.mean())
        sd = float(values.std(ddof=1)) if len(values) > 1 else None
        how = "4π · area / perimeter²; 1 for a disk" if name == "nuclear_circularity" else None
        rows += [
            _nuclear(f"{name}_mean", f"{label}, mean", mean, unit, how=how),
            _nuclear(
                f"{name}_sd",
                f"{label}, standard deviation",
                sd,
                unit,
                how="of the sample (n - 1); none of fewer than two nuclei",
            ),
            _nuclear(
                f"{name}_cv",
                f"{label}, coefficient of variation",
                sd / mean if sd is not None and mean > 0 else None,
                how="standard deviation / mean",
            ),
        ]
    rows.append(
        _nuclear(
            "large_nuclei_share",
            "Large nuclei",
            float((area > limit).mean()),
            how=f"share above {limit:.1f} µm² = {LARGE_NUCLEUS_TIMES:g} × the median of the smaller half of the nuclei",
        )
    )
    return rows


def _nuclear(
    name: str,
    label: str,
    value: float | int | None,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    bounds: Bounds | None = None,
    how: str | None = None,
) -> Measurement:
    return Measurement(
        stage="nuclei",
        name=name,
        label=label,
        value=value if isinstance(value, int) else _rounded(value),
        unit=unit,
        low=_rounded(low),
        high=_rounded(high),
        bounds=None if low is None else bounds,
        how=how,
    )


def nuclei_notices(nuclei: NucleiOutcome, prepared: Prepared) -> list[Notice]:
    """Warnings that the nuclei stage gives rise to."""
    notices = []
    mpp = prepared.mpp
    if min(nuclei.frame.scale) < 0.999:
        notices.append(_enlarged("nuclei", mpp, nuclei.frame.mpp))
    cut, counted = int(np.count_nonzero(nuclei.columns.touches_border)), len(nuclei.columns.touches_border)
    if cut and 2 * cut >= counted:
        notices.append(
            Notice(
                code="cut-nuclei",
                message=f"{cut} of {counted} nuclei reach over the edge of the image or the region: it is too small "
                "or too narrow for their density, and their sizes are unknown.",
            )
        )
    if len(nuclei.columns.area_um2) >= 50:
        median = float(np.sqrt(4 * np.median(nuclei.columns.area_um2) / np.pi))
        low, high = NUCLEUS_DIAMETER_UM
        if not low <= median <= high:
            advice = {
                "option": "check the --mpp given",
                "csv": "check the table given with --mpp",
            }.get(prepared.slide.properties.mpp_source or "", "check it and give --mpp")
            if prepared.models["nuclei"].folder not in shipped_models().values():
                advice += ". Or the model, which is none of lobule's own, finds other things than nuclei"
            notices.append(
                Notice(
                    code="mpp-implausible",
                    message=f"The median nucleus measures {median:.1f} µm across; {low:g} to {high:g} is usual. "
                    f"The slide's {mpp.mean:.3g} µm/px may be wrong: {advice}.",
                )
            )
    if nuclei.where == "tissue" and "tumor" in prepared.options.only:
        notices.append(
            Notice(
                code="nuclei-in-tissue",
                message="No tumor region is known: nuclei were measured in the tissue as a whole.",
            )
        )
    return notices


def region_findings(regions: Sequence[TumorRegion]) -> tuple[RegionFinding, ...]:
    """The regions' rows."""
    rows = []
    for region in regions:
        x0, y0, x1, y1 = region.polygon.bounds
        left, top = int(np.floor(x0)), int(np.floor(y0))
        rows.append(
            RegionFinding(
                id=region.id,
                area_mm2=_rounded(region.area_mm2) or 0.0,
                perimeter_mm=_rounded(region.perimeter_mm) or 0.0,
                longest_diameter_mm=_rounded(region.longest_diameter_mm) or 0.0,
                mean_probability=_rounded(region.mean_probability),
                blurred_share=_rounded(region.blurred_share),
                box_px=(left, top, int(np.ceil(x1)) - left, int(np.ceil(y1)) - top),
            )
        )
    return tuple(rows)


def differences(
    prepared: Prepared, stages: Sequence[Stage], seen: TissueOutcome, tumor: TumorOutcome | None
) -> tuple[str, ...]:
    """How this slide differs from what the models saw, a sentence each; reassurance is stated too."""
    lines = []
    for stage in stages:
        model = prepared.models.get(stage.name) if stage.model else None
        if model is None or stage.working_mpp is None:
            continue
        graph = next(graph for graph in model.card.graphs if graph.mpp is not None)
        lines.append(
            f"{stage.name}: trained at {graph.mpp:g} µm/px; this slide has {prepared.mpp.mean:.4g} and was read at "
            f"{Mpp(*stage.working_mpp).mean:.4g}."
        )
    model = prepared.models.get("tumor")
    z = None if tumor is None or model is None else _color_distance(tumor, seen, model)
    if z is not None:
        worst = float(np.abs(z).max())
        verdict = "unlike what the model knows" if worst > COLOR_NOTICE_SD else "within what the model knows"
        channels = ", ".join(f"{name} {value:+.1f}" for name, value in zip("RGB", z, strict=True))
        lines.append(f"tumor: mean tissue color, in SDs of the training tiles: {channels}; {verdict}.")
    return tuple(lines)
