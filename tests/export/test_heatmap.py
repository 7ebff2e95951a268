from __future__ import annotations

import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import tifffile

from lobule.errors import ResultWriteError
from lobule.export.heatmap import write_heatmap
from lobule.findings.maps import ScalarMap
from lobule.geometry import Mpp, WorkingFrame

OME = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"


def scalar_map(cells: tuple[int, int], cell_um: float = 256.0, seed: int = 0) -> ScalarMap:
    width, height = cells
    frame = WorkingFrame(
        (width * 512, height * 512), Mpp(cell_um / 512, cell_um / 512), Mpp(cell_um, cell_um)
    )
    values = np.random.default_rng(seed).random((height, width)).astype(np.float32)
    values[::3, ::2] = np.nan
    return ScalarMap(values, frame)


def test_each_map_reopens_with_its_name_values_size_and_place(tmp_path: Path) -> None:
    first, second = scalar_map((700, 411)), scalar_map((37, 23), 1000.0, 1)
    path = tmp_path / "heatmap.ome.tif"
    write_heatmap(path, [("Tumor probability", first), ("Refined <&> µ", second)])
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome
        assert [series.name for series in tiff.series] == ["Tumor probability", "Refined <&> µ"]
        for series, expected in zip(tiff.series, (first, second), strict=True):
            np.testing.assert_array_equal(series.asarray(), expected.values)
            assert series.dtype == np.float32
            assert len(series.levels) >= 2
        assert [level.shape for level in tiff.series[0].levels] == [(411, 700), (206, 350), (103, 175)]
        root = ElementTree.fromstring(tiff.ome_metadata or "")
    pixels = root.findall(f"{OME}Image/{OME}Pixels")
    assert [float(p.attrib["PhysicalSizeX"]) for p in pixels] == [256.0, 1000.0]
    assert [float(p.attrib["PhysicalSizeY"]) for p in pixels] == [256.0, 1000.0]
    assert {p.get("PhysicalSizeXUnit", "µm") for p in pixels} == {"µm"}
    for plane in root.iter(f"{OME}Plane"):
        assert (float(plane.attrib["PositionX"]), float(plane.attrib["PositionY"])) == (0.0, 0.0)
        assert plane.attrib["PositionXUnit"] == plane.attrib["PositionYUnit"] == "µm"
    assert len(list(root.iter(f"{OME}Plane"))) == 2


def test_a_level_is_the_mean_of_the_judged_cells_below(tmp_path: Path) -> None:
    map_ = scalar_map((9, 7))
    write_heatmap(tmp_path / "h.ome.tif", [("a", map_)])
    with tifffile.TiffFile(tmp_path / "h.ome.tif") as tiff:
        half = tiff.series[0].levels[1].asarray()
    assert half.shape == (4, 5)
    for row in range(4):
        for column in range(5):
            block = map_.values[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            judged = [float(value) for value in block.ravel() if not np.isnan(value)]
            if judged:
                assert half[row, column] == pytest.approx(sum(judged) / len(judged), rel=1e-6)
            else:
                assert np.isnan(half[row, column])


@pytest.mark.parametrize("cells", [(1, 1), (2, 1), (1, 300), (256, 256), (257, 1)])
def test_odd_and_tiny_maps_have_two_levels_and_keep_their_values(
    tmp_path: Path, cells: tuple[int, int]
) -> None:
    map_ = scalar_map(cells)
    write_heatmap(tmp_path / "h.ome.tif", [("a", map_)])
    with tifffile.TiffFile(tmp_path / "h.ome.tif") as tiff:
        assert len(tiff.series[0].levels) >= 2
        np.testing.assert_array_equal(tiff.series[0].asarray().reshape(map_.values.shape), map_.values)


def test_equal_maps_give_equal_bytes_at_another_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    map_ = scalar_map((300, 200))
    write_heatmap(tmp_path / "a.tif", [("x", map_)])
    monkeypatch.setattr(time, "time", lambda: 1.0)
    # another NaN (sign bit set) means the same
    other = map_.values.copy()
    other[np.isnan(other)] = -np.float32(np.nan)
    write_heatmap(tmp_path / "b.tif", [("x", ScalarMap(other, map_.frame))])
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_an_anisotropic_frame_keeps_both_sizes(tmp_path: Path) -> None:
    frame = WorkingFrame((100, 100), Mpp(0.25, 0.5), Mpp(2.5, 5.0))
    write_heatmap(tmp_path / "h.ome.tif", [("a", ScalarMap(np.zeros((10, 10), np.float32), frame))])
    with tifffile.TiffFile(tmp_path / "h.ome.tif") as tiff:
        root = ElementTree.fromstring(tiff.ome_metadata or "")
        x, y = tiff.pages[0].tags["XResolution"].value, tiff.pages[0].tags["YResolution"].value
    (pixels,) = root.iter(f"{OME}Pixels")
    assert (pixels.attrib["PhysicalSizeX"], pixels.attrib["PhysicalSizeY"]) == ("2.5", "5.0")
    assert (x[0] / x[1], y[0] / y[1]) == pytest.approx((4000, 2000))


def test_no_maps_and_no_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one map"):
        write_heatmap(tmp_path / "h.tif", [])
    with pytest.raises(ResultWriteError):
        write_heatmap(tmp_path / "absent" / "h.tif", [("a", scalar_map((3, 3)))])
    assert list(tmp_path.iterdir()) == []
