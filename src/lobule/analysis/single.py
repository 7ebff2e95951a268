"""One slide: plan, stages, findings, files."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lobule import __version__
from lobule.analysis.clock import Clock
from lobule.analysis.measurements import (
    differences,
    nuclei_measurements,
    nuclei_notices,
    region_findings,
    tissue_measurements,
    tissue_notices,
    tumor_measurements,
    tumor_notices,
)
from lobule.analysis.memory import fit_workers, peak_memory_bytes, read_bytes
from lobule.analysis.networks import Networks, precisions_of, start_tumor_networks
from lobule.analysis.options import Options
from lobule.analysis.results import holds_files_of, name_of, results_in
from lobule.analysis.stages import (
    TissueOutcome,
    look_at_slide,
    look_for_tissue,
    overview_frame,
    too_coarse,
    too_small,
)
from lobule.analysis.tumor_stage import TumorOutcome, TumorPass, find_tumor
from lobule.analysis.work import WORK, FolderWork, MemoryWork, Work, digest
from lobule.errors import ResultWriteError, WrongStainError
from lobule.findings.schema import (
    Findings,
    Frame,
    Measurement,
    ModelUse,
    Notice,
    OutputFile,
    Run,
    SlideFinding,
    Stage,
)
from lobule.geometry import Mpp
from lobule.models.zoo import Model, select_models
from lobule.progress import QuietReporter, Reporter
from lobule.provenance import SlideIdentity, slide_identity
from lobule.runtimes import Precision, choose_runtime
from lobule.slides import Slide, require_mpp

if TYPE_CHECKING:
    from lobule.analysis.nuclei_stage import NucleiOutcome, Place

__all__ = ["Prepared", "Result", "analyze", "prepare", "run_stages"]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A slide with everything decided before the first tile; ``plan_sha256`` names it."""

    slide: Slide
    slide_id: str
    mpp: Mpp
    identity: SlideIdentity
    models: Mapping[str, Model]
    options: Options
    runtime: str
    runtime_reason: str
    precisions: Mapping[str, Mapping[str, Precision]]
    """Family → role → what that graph runs in."""
    plan_sha256: str

    def stage_plan(self, *families: str, place: str = "") -> str:
        """The digest of what a stage's tiles depend on: slide, these families' models, the options that matter.

        ``place``: the digest of where on the slide it looks, for a stage that keeps only what lies there.
        """
        return digest(
            {
                "place": place,
                **_common_plan(self.slide_id, self.mpp, self.identity, self.runtime),
                "models": {
                    name: _model_plan(self.models[name], self.precisions[name])
                    for name in families
                    if name in self.models
                },
                "thorough": self.options.thorough,
                "tissue": [self.options.tissue_method, self.options.deterministic()["tissue_mask_sha256"]],
            }
        )


def _common_plan(slide_id: str, mpp: Mpp, identity: SlideIdentity, runtime: str) -> dict[str, Any]:
    return {
        "lobule": __version__,
        "slide_id": slide_id,
        "slide": [identity.sha256, identity.method],
        "mpp": [mpp.x, mpp.y],
        "runtime": runtime,
    }


def _model_plan(model: Model, precisions: Mapping[str, str]) -> list[str]:
    graphs = (
        f"{graph.file_in(precisions[graph.role])[1]} {precisions[graph.role]}" for graph in model.card.graphs
    )
    return [model.name, model.card_sha256, *graphs]


def prepare(
    slide: Slide, slide_id: str, options: Options, models: Mapping[str, Model] | None = None
) -> Prepared:
    """Decides everything that needs no pixels. Raises MissingResolutionError, ModelError, ConfigurationError."""
    mpp = require_mpp(slide)
    models = select_models(options.models, thorough=options.thorough) if models is None else models
    runtime, reason = choose_runtime(options.runtime)
    precisions: dict[str, dict[str, Precision]] = {
        family: precisions_of(runtime, options.precision if family in options.only else "auto", model)
        for family, model in models.items()
    }
    identity = slide_identity(slide.files()) if slide.path is not None else _array_identity(slide)
    plan = digest(
        {
            **_common_plan(slide_id, mpp, identity, runtime),
            "file": slide.path.name if slide.path else "",
            "models": {family: _model_plan(model, precisions[family]) for family, model in models.items()},
            "options": dict(options.deterministic()),
        }
    )
    return Prepared(slide, slide_id, mpp, identity, models, options, runtime, reason, precisions, plan)


def _array_identity(slide: Slide) -> SlideIdentity:
    import hashlib

    pixels = slide.read_level(0, (0, 0), slide.size)
    head = f"{pixels.shape}".encode()
    return SlideIdentity(hashlib.sha256(head + pixels.tobytes()).hexdigest(), "sha256", pixels.nbytes)


@dataclass(frozen=True, eq=False)
class Result:
    """What was found on one slide; `write` makes the files."""

    prepared: Prepared
    tissue: TissueOutcome
    tumor: TumorOutcome | None
    nuclei: NucleiOutcome | None
    stages: tuple[Stage, ...]
    measurements: tuple[Measurement, ...]
    warnings: tuple[Notice, ...]
    frame: Frame
    clock: Clock
    work: Work
    workers: int
    started: datetime
    started_seconds: float

    @property
    def slide_id(self) -> str:
        """The name of the slide's results folder."""
        return self.prepared.slide_id

    def write(self, out: str | Path) -> Path:
        """Writes every file into ``out/<slide id>/``, findings.json last, each whole or not at all.

        The report shows places of the slide: it must still be open. Raises SlideReadError, ResultLockedError where
        another run is writing there, and ResultWriteError also where another slide's results or this slide's own
        files lie there: `analyze` takes a ``slide_id`` to tell them apart by.
        """
        from lobule.analysis.files import write_result

        folder = Path(out) / self.slide_id
        if holds_files_of(self.prepared.slide, folder):
            raise ResultWriteError(
                folder, "holds the slide's own files; give it another slide_id or another folder"
            )
        earlier = results_in(folder)
        if earlier is not None and earlier.slide.identity != self.prepared.identity.sha256:
            raise ResultWriteError(
                folder, "holds the results of another slide; give this one another slide_id or another folder"
            )
        if isinstance(self.work, FolderWork) and self.work.of(folder):
            return write_result(self, folder)
        with FolderWork(folder / WORK):
            return write_result(self, folder)

    def findings(self, files: Sequence[OutputFile]) -> Findings:
        """The findings, with the files that were written beside them."""
        prepared, slide = self.prepared, self.prepared.slide
        properties = slide.properties
        return Findings(
            lobule_version=__version__,
            plan_sha256=prepared.plan_sha256,
            slide=SlideFinding(
                id=prepared.slide_id,
                file=slide.path.name if slide.path else "(array)",
                format=properties.format,
                reader=properties.reader,
                identity=prepared.identity.sha256,
                identity_method=prepared.identity.method,
                size_bytes=prepared.identity.size_bytes,
                size_px=slide.size,
                level_sizes_px=tuple(level.size for level in slide.levels),
                mpp_source=properties.mpp_source or "option",
                objective_power=properties.objective_power,
                stain=f"{self.tissue.stain.kind}: {self.tissue.stain.reason}",
                has_icc_profile=properties.icc_profile is not None,
            ),
            frame=self.frame,
            options=dict(prepared.options.deterministic()),
            stages=self.stages,
            models=tuple(
                _model_use(prepared.models[stage.name])
                for stage in self.stages
                if stage.model is not None and stage.name in prepared.models
            ),
            measurements=self.measurements,
            regions=() if self.tumor is None else region_findings(self.tumor.regions),
            warnings=self.warnings,
            files=tuple(files),
            run=self._run(),
        )

    def _run(self) -> Run:
        from importlib.metadata import version

        packages = ("numpy", "onnxruntime", "openslide-bin", "openvino", "pillow", "scipy", "tifffile")
        return Run(
            lobule_version=__version__,
            started=self.started.isoformat(timespec="seconds"),
            host=platform.node(),
            platform=platform.platform(),
            python=sys.version.split()[0],
            packages={name: found for name in packages if (found := _version(version, name))},
            workers=self.workers,
            seconds=self.clock.seconds(),
            seconds_total=round(time.perf_counter() - self.started_seconds, 3),
            tiles_resumed=sum(stage.resumed for stage in (self.tumor, self.nuclei) if stage is not None),
            read_bytes=read_bytes(),
            peak_memory_bytes=peak_memory_bytes(),
        )

    def differences(self) -> tuple[str, ...]:
        """How this slide differs from what the models in use were trained on, a line each."""
        return differences(self.prepared, self.stages, self.tissue, self.tumor)

    def close(self) -> None:
        """Frees the records."""
        self.work.close()


def _version(version: Any, name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError

    try:
        return str(version(name))
    except PackageNotFoundError:
        return None


def _model_use(model: Model) -> ModelUse:
    return ModelUse(
        name=model.name,
        version=model.card.version,
        family=model.card.family,
        files_sha256={
            entry.file if entry.of is None else f"{entry.of}/{entry.file}": entry.sha256
            for entry in model.card.files()
        },
        card_sha256=model.card_sha256,
        terms=model.card.terms,
        intended_use=model.card.intended_use,
    )


def _frame(slide: Slide, mpp: Mpp) -> Frame:
    bounds = slide.properties.bounds
    return Frame(
        size_px=slide.size,
        mpp_um_per_px=(mpp.x, mpp.y),
        bounds_px=None if bounds is None else (bounds.x0, bounds.y0, bounds.width, bounds.height),
        geojson_offset_px=(0, 0) if bounds is None else (bounds.x0, bounds.y0),
    )


def run_stages(prepared: Prepared, work: Work, reporter: Reporter, networks: Networks) -> Result:
    """Runs every stage that is asked for and has a model; says aloud which are skipped and why."""
    started, started_seconds = datetime.now(UTC), time.perf_counter()
    slide, options, clock = prepared.slide, prepared.options, Clock()
    width, height = overview_frame(slide, prepared.mpp).size
    workers = fit_workers(options, prepared.models, width * height, slide.held_bytes)
    over, begun = None, {}
    with ThreadPoolExecutor(2, thread_name_prefix="lobule-ahead") as ahead:
        will_find_tumor = _why_skip_unseen("tumor", prepared) is None
        if will_find_tumor:
            start_tumor_networks(networks, prepared.models["tumor"], workers, thorough=options.thorough)
        overview, frame = look_at_slide(slide, prepared.mpp, workers, clock)
        looking = ahead.submit(
            look_for_tissue,
            overview,
            frame,
            options.tissue_method,
            options.tissue,
            slide.properties.bounds,
            clock,
        )
        ahead.submit(_load_what_ends_a_run)
        if will_find_tumor:
            over = TumorPass(
                slide, prepared.models["tumor"], networks, workers, thorough=options.thorough, clock=clock
            )
            if options.tissue is None:
                begun = over.begin(overview, frame, until=looking.done)
        seen = looking.result()
    if seen.stain.kind == "fluorescence":
        raise WrongStainError(
            slide.path, f"not a brightfield slide ({seen.stain.reason}); lobule's models read H&E only"
        )
    stages = [Stage(name="tissue", status="done", reason=seen.source)]
    notices = [*tissue_notices(prepared, seen)]
    measured = [*tissue_measurements(seen)]

    tumor = None
    skip = _why_skip("tumor", prepared, seen)
    if skip is None and over is not None:
        import shapely

        tumor = find_tumor(
            slide,
            prepared.slide_id,
            seen,
            over,
            begun,
            networks,
            within=None if options.tissue is None else shapely.union_all(seen.polygons),
            records=work.records("tumor", prepared.stage_plan("tumor")),
            clock=clock,
            reporter=reporter,
        )
        stages.append(_done("tumor", over.model, tumor))
        measured += tumor_measurements(tumor, seen, over.model)
        notices += tumor_notices(tumor, over.model, seen)
    else:
        stages.append(Stage(name="tumor", status="skipped", reason=skip))
        reporter.say(f"{prepared.slide_id}: tumor stage skipped: {skip}")

    nuclei = None
    skip = _why_skip("nuclei", prepared, seen)
    if skip is None:
        from lobule.analysis.nuclei_stage import measure_nuclei

        model = prepared.models["nuclei"]
        networks.start(model, "segment", workers)
        place = _where(seen, tumor)
        nuclei = measure_nuclei(
            slide,
            prepared.slide_id,
            place,
            model,
            networks,
            workers,
            limit=options.nuclei_tiles,
            thorough=options.thorough,
            records=work.records("nuclei", prepared.stage_plan("nuclei", place=place.sha256)),
            clock=clock,
            reporter=reporter,
        )
        stages.append(_done("nuclei", model, nuclei, thorough=options.thorough))
        measured += nuclei_measurements(nuclei)
        notices += nuclei_notices(nuclei, prepared)
    else:
        stages.append(Stage(name="nuclei", status="skipped", reason=skip))
        reporter.say(f"{prepared.slide_id}: nuclei stage skipped: {skip}")

    return Result(
        prepared=prepared,
        tissue=seen,
        tumor=tumor,
        nuclei=nuclei,
        stages=tuple(stages),
        measurements=tuple(measured),
        warnings=tuple(notices),
        frame=_frame(slide, prepared.mpp),
        clock=clock,
        work=work,
        workers=workers,
        started=started,
        started_seconds=started_seconds,
    )


def _load_what_ends_a_run() -> None:
    """Imports what the report and the files need while the networks keep the cores busy outside Python's lock."""
    for name in ("lobule.analysis.files", "PIL.Image", "PIL.ImageFilter", "shapely", "tifffile"):
        import_module(name)
    from lobule.report import page_template

    page_template()


def _why_skip(family: Literal["tumor", "nuclei"], prepared: Prepared, seen: TissueOutcome) -> str | None:
    skip = _why_skip_unseen(family, prepared)
    return "no tissue was found" if skip is None and not seen.tissue.mask.any() else skip


def _why_skip_unseen(family: Literal["tumor", "nuclei"], prepared: Prepared) -> str | None:
    """Why a stage is skipped whatever the slide shows, or None."""
    if family not in prepared.options.only:
        return "not asked for"
    if family == "tumor" and prepared.options.specimen == "node":
        return "a lymph node needs a model of the metastasis family; none is there"
    model = prepared.models.get(family)
    if model is None:
        return f"no model of the {family} family is there; give one with --models"
    graph = model.card.graph("patch" if family == "tumor" else "segment")
    if graph is None or graph.mpp is None:
        return None
    if why := too_coarse(family, prepared.mpp, graph.mpp):
        return why
    return too_small(prepared.slide.size, prepared.mpp, graph) if family == "tumor" else None


def _where(seen: TissueOutcome, tumor: TumorOutcome | None) -> Place:
    """The tumor region with the other tissue beside it, or the tissue where there is no such region."""
    import shapely

    from lobule.analysis.nuclei_stage import Place

    tissue = seen.polygons
    if tumor is None or not tumor.regions:
        return Place(tissue, "tissue", tissue)
    regions = tuple(region.polygon for region in tumor.regions)
    rest = shapely.union_all(tissue).difference(shapely.union_all(regions))
    others = tuple(part for part in shapely.get_parts(rest) if part.geom_type == "Polygon" and part.area > 0)
    return Place(regions, "tumor region", tissue, others, "tissue outside the tumor region")


def _done(
    name: Literal["tumor", "nuclei"],
    model: Model,
    outcome: TumorOutcome | NucleiOutcome,
    *,
    thorough: bool = False,
) -> Stage:
    if isinstance(outcome, TumorOutcome):
        tiles, reason = outcome.tiles, outcome.note
    else:
        tiles = len(outcome.indices)
        part = "all" if tiles == outcome.candidates else f"{tiles} of the {outcome.candidates} tiles"
        reason = f"{part} of the {outcome.where}"
        if outcome.where == "tissue":
            reason += ", because no tumor region is known"
        if thorough:
            reason += "; each seen turned and mirrored in all eight ways"
    return Stage(
        name=name,
        status="done",
        reason=reason,
        model=model.name,
        runtime=outcome.runtime,
        working_mpp=(outcome.frame.mpp.x, outcome.frame.mpp.y),
        tiles=tiles,
    )


def analyze(
    slide: Slide,
    *,
    only: Iterable[str] | None = None,
    options: Options | None = None,
    slide_id: str | None = None,
    work: Work | None = None,
    reporter: Reporter | None = None,
) -> Result:
    """Analyzes one open slide and returns what was found; ``Result.write`` makes the files.

    ``only`` names stages (tumor, nuclei; tissue alone) and overrides ``options.only``. ``work`` keeps tile results for
    a later run; without it they live in memory. Raises SlideError, ModelError, ConfigurationError, InferenceError.
    """
    options = options or Options()
    if only is not None:
        options = replace(options, only=tuple(only))
    name = slide_id or (name_of(slide.path) if slide.path else "slide")
    prepared = prepare(slide, name, options)
    with Networks(prepared.runtime, options.precision) as networks:
        return run_stages(prepared, work or MemoryWork(), reporter or QuietReporter(), networks)
