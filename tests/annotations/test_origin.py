"""GeoJSON counts from the corner of a slide's bounds, as QuPath does: what is written comes back where it was."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import shapely

from lobule.annotations import read_regions, tissue_from_file
from lobule.errors import AnnotationError
from lobule.export.geojson import write_regions
from lobule.findings.maps import TumorRegion
from lobule.findings.schema import Frame
from lobule.geometry import Mpp, WorkingFrame

SQUARE = shapely.box(400, 300, 600, 500)
FRAME = WorkingFrame((1000, 800), Mpp(0.5, 0.5), Mpp(2.0, 2.0))


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """The square, as lobule writes it for a slide whose bounds begin at (300, 200)."""
    path = tmp_path / "regions.geojson"
    frame = Frame(
        size_px=(1000, 800),
        mpp_um_per_px=(0.5, 0.5),
        bounds_px=(300, 200, 500, 500),
        geojson_offset_px=(300, 200),
    )
    write_regions(path, [TumorRegion("a", SQUARE, 0.01, 0.4, 0.14, 0.9, None)], frame, "slide")
    return path


@pytest.mark.parametrize("origin", [(0, 0), (300, 200), (7, 9)])
def test_what_lobule_wrote_is_placed_by_what_it_says(written: Path, origin: tuple[int, int]) -> None:
    (region,) = read_regions(written, geojson_origin_px=origin)
    assert region.geometry.equals(SQUARE)


def test_what_another_program_wrote_counts_from_the_corner_that_is_given(tmp_path: Path) -> None:
    path = tmp_path / "drawn.geojson"
    path.write_text(json.dumps(shapely.geometry.mapping(shapely.box(100, 100, 300, 300))))
    mask = tissue_from_file(path, FRAME, geojson_origin_px=(300, 200))
    rows, columns = np.nonzero(mask)
    assert (columns.min() * 4, rows.min() * 4) == (400, 300)
    assert mask.sum() == 50 * 50
    (plain,) = read_regions(path)
    assert plain.geometry.bounds == (100, 100, 300, 300)


def test_xml_counts_from_the_canvas(tmp_path: Path) -> None:
    path = tmp_path / "drawn.xml"
    corners = "".join(
        f'<Coordinate Order="{k}" X="{x}" Y="{y}"/>'
        for k, (x, y) in enumerate([(100, 100), (300, 100), (300, 300), (100, 300)])
    )
    path.write_text(
        "<ASAP_Annotations><Annotations><Annotation Name='a' Type='Polygon' PartOfGroup='None'>"
        f"<Coordinates>{corners}</Coordinates></Annotation></Annotations></ASAP_Annotations>"
    )
    (region,) = read_regions(path, geojson_origin_px=(300, 200))
    assert region.geometry.bounds == (100, 100, 300, 300)


def test_a_stated_origin_that_is_no_number_is_told(tmp_path: Path) -> None:
    path = tmp_path / "odd.geojson"
    square = json.dumps(shapely.geometry.mapping(shapely.box(0, 0, 9, 9)))
    path.write_text('{"lobule": {"frame": {"geojson_offset_px": [1e999, 0]}}, ' + square[1:])
    with pytest.raises(AnnotationError, match="geojson_offset_px"):
        read_regions(path, geojson_origin_px=(3, 4))
