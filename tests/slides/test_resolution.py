"""Micrometers per pixel: right to 1 %, or none with a reason."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slides.painted import Picture, write_dicom, write_pyramid

from lobule.errors import ConfigurationError, MissingResolutionError
from lobule.geometry import Mpp
from lobule.slides import ArraySlide, open_slide, read_mpp_csv, require_mpp
from lobule.slides.ome_metadata import read_ome_image
from lobule.slides.resolution import judge_mpp, magnification, mpp_from_resolution_tag, parse_number


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.25", 0.25), ("0,25", 0.25), (" 0.25\0", 0.25), ("2.5e-1", 0.25), (0.25, 0.25), ("", None),
     ("abc", None), ("1,2,3", None), (None, None), ("1_0", None), ("1.000,5", None)],
)  # fmt: skip
def test_numbers_are_read_as_vendors_write_them(text: object, value: float | None) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize(
    ("stated", "power"), [("40", 40.0), ("NaN", None), ("inf", None), (0, None), (None, None)]
)
def test_a_power_is_a_finite_number(stated: object, power: float | None) -> None:
    assert magnification(stated) == power


def test_who_gives_the_mpp_is_not_asked_to_give_it(picture: Picture, tmp_path: Path) -> None:
    write_pyramid(tmp_path / "a.svs", picture, 0.5, kind="aperio", power="40")
    with open_slide(tmp_path / "a.svs") as asked:
        assert any(line.endswith("with --mpp") for line in asked.properties.warnings)
    with open_slide(tmp_path / "a.svs", mpp=Mpp(0.25, 0.25)) as given:
        assert not any(line.endswith("with --mpp") for line in given.properties.warnings)
        assert any("overrides the file's 0.5" in line for line in given.properties.warnings)


@pytest.mark.parametrize(
    "stated",
    [0, "0", -0.25, "nan", "inf", "-inf", 1e9, 1e-9, 352.8, 264.6, 169.3, 84.7, 80.9, 1000, 0.025, 16.783,
     124.2, "rubbish", ""],
)  # fmt: skip
def test_nonsense_is_not_believed(stated: object) -> None:
    judged = judge_mpp(stated, stated, "file")
    assert judged.mpp is None and judged.source is None and judged.problem


@given(st.floats(0.05, 10.0), st.floats(0.05, 10.0))
def test_what_is_believed_is_believed_exactly(x: float, y: float) -> None:
    judged = judge_mpp(repr(x), repr(y).replace(".", ","), "file")
    if max(x, y) / min(x, y) <= 4:
        assert judged.mpp == Mpp(x, y) and judged.problem is None
    else:
        assert judged.mpp is None and "four-fold" in str(judged.problem)


@pytest.mark.parametrize(("mpp", "power", "believed"), [
    (0.25, 40, True), (0.5, 20, True), (0.243, 20, True), (0.5, 40, True), (1.0, 10, True), (0.12, 40, True),
    (2.5, 40, False), (5.0, 20, False), (0.05, 20, False), (10.0, 10, False), (0.25, 0, True),
    (0.25, math.nan, True), (4.99, 20, False),
])  # fmt: skip
def test_a_tenfold_slip_contradicts_the_objective(mpp: float, power: float, believed: bool) -> None:
    judged = judge_mpp(mpp, mpp, "file", objective_power=power)
    assert (judged.mpp is not None) is believed
    if not believed:
        assert "objective" in str(judged.problem)


def test_a_twofold_difference_from_the_objective_is_a_warning() -> None:
    assert "--mpp" in judge_mpp(0.5, 0.5, "file", objective_power=40).warnings[0]


def test_a_slide_longer_than_any_glass_is_not_believed() -> None:
    assert judge_mpp(9.0, 9.0, "file", size=(100_000, 80_000)).mpp is None
    assert judge_mpp(0.25, 0.25, "file", size=(228_816, 113_501)).mpp is not None


@pytest.mark.parametrize(
    ("per_unit", "unit", "mpp"),
    [(40_000, "centimeter", 0.25), (101_600, "inch", 0.25), (4, "micrometer", 0.25), (72, "inch", None),
     (40_000, None, None), (0, "inch", None), (math.inf, "inch", None), (10, "centimeter", None)],
)  # fmt: skip
def test_resolution_tags_are_believed_where_plausible(
    per_unit: float, unit: str | None, mpp: float | None
) -> None:
    judged = mpp_from_resolution_tag(per_unit, per_unit, unit)
    if mpp is None:
        assert judged.mpp is None and judged.problem
    else:
        assert judged.mpp is not None and judged.source == "resolution-tag"
        assert (judged.mpp.x, judged.mpp.y) == pytest.approx((mpp, mpp))


def test_a_missing_axis_is_not_guessed() -> None:
    assert "axis" in str(judge_mpp(0.25, None, "file").problem)


@pytest.mark.parametrize("kind", ["generic", "ome"])
@pytest.mark.parametrize("pair", [(0.25, 0.5), (0.4961, 0.4961), (1.0, 1.0)])
def test_files_give_the_mpp_written_into_them(
    kind: str, pair: tuple[float, float], picture: Picture, tmp_path: Path
) -> None:
    write_pyramid(tmp_path / "a.tif", picture, pair, kind=kind)
    with open_slide(tmp_path / "a.tif") as slide:
        mpp = require_mpp(slide)
    assert mpp.x == pytest.approx(pair[0], rel=0.01) and mpp.y == pytest.approx(pair[1], rel=0.01)


@pytest.mark.parametrize(("text", "mpp"), [("0.25", 0.25), ("0,25", 0.25), ("2.5", None), ("0", None),
                                           ("nan", None), ("1e9", None), ("x", None)])  # fmt: skip
def test_an_aperio_description_is_right_or_refused(
    text: str, mpp: float | None, picture: Picture, tmp_path: Path
) -> None:
    description = f"Aperio Image Library v12\r\n251x199 (64x64) none|AppMag = 40|MPP = {text}"
    write_pyramid(tmp_path / "a.svs", picture, kind="aperio", description=description)
    with open_slide(tmp_path / "a.svs") as slide:
        if mpp is not None:
            assert require_mpp(slide) == Mpp(mpp, mpp)
            return
        assert slide.properties.mpp is None and slide.properties.mpp_problem
        with pytest.raises(MissingResolutionError, match=r"--mpp 0\.25 or in a CSV") as caught:
            require_mpp(slide)
        assert str(caught.value).startswith(str(tmp_path)) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("size", "unit", "mpp"),
    [("250", "nm", 0.25), ("0.00025", "mm", 0.25), ("0.25", "µm", 0.25), ("0.25", "pixel", None),
     ("0.25", "reference frame", None), ("0.25", "mm", None)],
)  # fmt: skip
def test_units_of_ome_are_heeded(
    size: str, unit: str, mpp: float | None, picture: Picture, tmp_path: Path
) -> None:
    description = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0"><Pixels SizeC="3" SizeZ="1" SizeT="1" '
        f'PhysicalSizeX="{size}" PhysicalSizeXUnit="{unit}" '
        f'PhysicalSizeY="{size}" PhysicalSizeYUnit="{unit}">'
        '<Channel SamplesPerPixel="3"/></Pixels></Image></OME>'
    )
    write_pyramid(tmp_path / "a.tif", picture, kind="ome", description=description.encode())  # type: ignore[arg-type]
    with open_slide(tmp_path / "a.tif") as slide:
        found = slide.properties.mpp
        assert (found is None) == (mpp is None)
        if mpp is not None:
            assert found is not None and found.x == pytest.approx(mpp)


@pytest.mark.parametrize(
    ("objectives", "settings", "power"),
    [((5, 20, 40), "Objective:2", 40.0), ((5, 20, 40), "Objective:0", 5.0), ((5, 20, 40), None, None),
     ((20,), None, 20.0), ((5, 20), "Objective:9", None), ((), "Objective:0", None)],
)  # fmt: skip
def test_of_a_turret_the_objective_that_was_used_counts(
    objectives: tuple[int, ...], settings: str | None, power: float | None
) -> None:
    turret = "".join(
        f'<Objective ID="Objective:{index}" NominalMagnification="{value}"/>'
        for index, value in enumerate(objectives)
    )
    used = "" if settings is None else f'<ObjectiveSettings ID="{settings}"/>'
    found = read_ome_image(
        f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Instrument ID="I">{turret}</Instrument>'
        f'<Image ID="a">{used}<Pixels SizeC="3"/></Image>'
        '<Image ID="b"><ObjectiveSettings ID="Objective:1"/><Pixels SizeC="3"/></Image></OME>'
    )
    assert found is not None and found.objective_power == power


def test_imagej_states_micrometers_in_its_own_way(picture: Picture, tmp_path: Path) -> None:
    write_pyramid(
        tmp_path / "a.tif", picture, None, description="ImageJ=1.54\nunit=micron\n", resolution=(4.0, 2.0),
        resolutionunit="NONE",
    )  # fmt: skip
    with open_slide(tmp_path / "a.tif") as slide:
        assert slide.properties.mpp == Mpp(0.25, 0.5)


@pytest.mark.parametrize("mpp", [0.25, 0.5])
def test_dicom_spacing_is_in_millimeters(mpp: float, picture: Picture, tmp_path: Path) -> None:
    for series, photometric in (("1.2.3", "RGB"), ("1.2.4", "YBR_FULL_422")):
        write_dicom(tmp_path / f"{photometric}.dcm", picture, mpp=mpp, photometric=photometric, series=series)
        with open_slide(tmp_path / f"{photometric}.dcm") as slide:
            own = require_mpp(slide)
            assert (own.x, own.y) == pytest.approx((mpp, mpp)) and slide.properties.mpp_source == "file"


def test_the_users_mpp_overrides_the_files_and_says_so(picture: Picture, tmp_path: Path) -> None:
    write_pyramid(tmp_path / "a.svs", picture, 0.25, kind="aperio")
    with open_slide(tmp_path / "a.svs", mpp=0.5) as slide:
        assert slide.properties.mpp == Mpp(0.5, 0.5) and slide.properties.mpp_source == "option"
        assert any("overrides" in warning for warning in slide.properties.warnings)
    with open_slide(tmp_path / "a.svs", mpp=Mpp(0.26, 0.25), mpp_source="csv") as slide:
        assert slide.properties.mpp == Mpp(0.26, 0.25) and slide.properties.mpp_source == "csv"
        assert not slide.properties.warnings


@pytest.mark.parametrize("mpp", [0, -1, math.nan, math.inf, 1e9, 1e-9])
def test_an_impossible_mpp_from_the_user_is_refused(mpp: float, picture: Picture) -> None:
    with pytest.raises(ConfigurationError, match="--mpp"):
        open_slide(picture, mpp=mpp)


@pytest.mark.parametrize("mpp", ["x", {}, (0.25,), [0.25, 0.25, 0.25], (0.25, "x"), (0.25, -1)])
def test_an_mpp_that_is_no_number_nor_pair_is_refused(mpp: Any, picture: Picture) -> None:
    with pytest.raises(ConfigurationError, match="--mpp"):
        open_slide(picture, mpp=mpp)


def test_an_mpp_is_one_number_or_a_pair(picture: Picture) -> None:
    assert require_mpp(open_slide(picture, mpp=(0.25, 0.26))) == Mpp(0.25, 0.26)
    assert require_mpp(open_slide(picture, mpp=[0.25, 0.26])) == Mpp(0.25, 0.26)
    assert require_mpp(open_slide(picture, mpp=0.25)) == Mpp(0.25, 0.25)


def test_an_array_without_mpp_asks_for_it(picture: Picture) -> None:
    with pytest.raises(MissingResolutionError, match="--mpp"):
        require_mpp(ArraySlide(picture))


@pytest.mark.parametrize(
    "text",
    [
        "slide,mpp\na.svs,0.25\nb.svs,0.5\n",
        "\ufeffslide,mpp\r\na.svs,0.25\r\n\r\nb.svs,0.5\r\n",
        "slide;mpp\na.svs;0,25\nb.svs;0,5\n",
        'slide,mpp\na.svs,"0,25"\nb.svs,0.5',
        "slide,mpp\na.svs,0,25\nb.svs,0,5\n",
        "mpp_x\tSlide\tmpp_y\n0.25\ta.svs\t0.25\n0.5\tb.svs\t0.5\n",
        "slide, note, mpp\na.svs, x, 0.25\nb.svs, y, 0.5\n",
    ],
)
def test_a_table_of_mpp_is_read_as_people_write_it(text: str, tmp_path: Path) -> None:
    (tmp_path / "mpp.csv").write_bytes(text.encode())
    assert read_mpp_csv(tmp_path / "mpp.csv") == {"a.svs": Mpp(0.25, 0.25), "b.svs": Mpp(0.5, 0.5)}


@pytest.mark.parametrize(
    ("text", "place"),
    [("", "empty"), ("name,size\na,1\n", "line 1"), ("slide,mpp\na.svs,x\n", "line 2"),
     ("slide,mpp\na.svs,0.25\nb.svs,0\n", "line 3"), ("slide,mpp\na.svs\n", "line 2"),
     ("slide,mpp\n,0.25\n", "line 2"), ("slide,mpp\na,nan\n", "line 2"), ("slide,mpp\na,1e9\n", "line 2"),
     ("slide,mpp\na,0.25\na,0.5\n", "line 3"), ("slide,mpp_x\na,0.25\n", "line 1"),
     ('slide,mpp\n"a,0.25\n', "CSV"), ("slide,mpp\na,0.25,0.25,0.25\n", "line 2")],
)  # fmt: skip
def test_a_bad_line_of_the_table_is_named(text: str, place: str, tmp_path: Path) -> None:
    (tmp_path / "mpp.csv").write_text(text)
    with pytest.raises(ConfigurationError, match=place):
        read_mpp_csv(tmp_path / "mpp.csv")


def test_a_table_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mpp.csv").write_bytes(b"slide,mpp\n\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="UTF-8"):
        read_mpp_csv(tmp_path / "mpp.csv")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_mpp_csv(tmp_path / "absent.csv")
