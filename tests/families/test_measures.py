"""Measures of shapes whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from lobule.families.chromatin import LEVEL_OD, co_occurrence
from lobule.families.nuclei import describe_instances
from lobule.findings.nuclei import Nuclei
from lobule.geometry import Box, Mpp, WorkingFrame
from lobule.stain import haematoxylin

MPP = 0.25
SIDE_PX = 200


def measured(mask: np.ndarray, pixels: np.ndarray | None = None) -> dict[str, float]:
    """The measures of the one nucleus that ``mask`` is."""
    height, width = mask.shape
    box = Box(0, 0, width, height)
    frame = WorkingFrame((width, height), Mpp(MPP, MPP), Mpp(MPP, MPP))
    if pixels is None:
        pixels = np.full((height, width, 3), 100, np.uint8)
    nuclei = describe_instances(
        mask.astype(np.int32), mask.astype(np.float32), pixels, read=box, kept=box, frame=frame
    )
    assert len(nuclei) == 1
    return {name: float(nuclei.measure(name)[0]) for name in columns()}


def columns() -> list[str]:
    from lobule.findings.nuclei import MEASURES

    return list(MEASURES)


def grid() -> tuple[np.ndarray, np.ndarray]:
    """x and y of pixel centers, from the middle of the field."""
    rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX]
    return columns + 0.5 - SIDE_PX / 2, rows + 0.5 - SIDE_PX / 2


def test_a_disk() -> None:
    x, y = grid()
    found = measured(np.hypot(x, y) < 40)
    assert found["area_um2"] == pytest.approx(np.pi * 100, rel=0.003)
    assert found["equivalent_diameter_um"] == pytest.approx(20, rel=0.002)
    assert found["major_axis_um"] == pytest.approx(20, rel=0.003)
    assert found["minor_axis_um"] == pytest.approx(20, rel=0.003)
    assert found["perimeter_um"] == pytest.approx(np.pi * 20, rel=0.05)
    assert found["eccentricity"] < 0.05
    assert found["solidity"] > 0.98 and found["circularity"] > 0.9
    assert found["orientation_deg"] == 0
    assert found["touches_border"] == 0


@pytest.mark.parametrize("degrees", [0, 30, 45, 90, -60])
def test_an_ellipse_at_any_angle(degrees: float) -> None:
    x, y = grid()
    angle = np.radians(degrees)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    found = measured((along / 60) ** 2 + (across / 30) ** 2 < 1)
    assert found["area_um2"] == pytest.approx(np.pi * 60 * 30 * MPP**2, rel=0.004)
    assert found["major_axis_um"] == pytest.approx(30, rel=0.004)
    assert found["minor_axis_um"] == pytest.approx(15, rel=0.006)
    assert found["eccentricity"] == pytest.approx(np.sqrt(1 - 0.25), abs=0.003)
    assert found["solidity"] > 0.97
    # Ramanujan's perimeter
    a, b = 15, 7.5
    h = ((a - b) / (a + b)) ** 2
    round_ = np.pi * (a + b) * (1 + 3 * h / (10 + np.sqrt(4 - 3 * h)))
    assert found["perimeter_um"] == pytest.approx(round_, rel=0.05)
    assert found["circularity"] == pytest.approx(4 * np.pi * found["area_um2"] / round_**2, rel=0.09)
    assert abs((found["orientation_deg"] - degrees + 90) % 180 - 90) < 0.5


def test_a_square() -> None:
    x, y = grid()
    found = measured((abs(x) < 32) & (abs(y) < 32))
    assert found["area_um2"] == (64 * MPP) ** 2
    # the corners are rounded by less than a pixel each
    assert found["perimeter_um"] == pytest.approx(4 * 64 * MPP, rel=0.01)
    assert found["solidity"] == pytest.approx(1, abs=2e-3)
    assert found["circularity"] == pytest.approx(np.pi / 4, rel=0.02)
    # the ellipse with a square's second moments
    assert found["major_axis_um"] == pytest.approx(64 * MPP * 2 / np.sqrt(3), rel=1e-6)


def test_a_crescent_is_not_solid() -> None:
    x, y = grid()
    found = measured((np.hypot(x, y) < 60) & (np.hypot(x - 30, y) >= 50))
    assert found["solidity"] < 0.75 and found["circularity"] < 0.5


def test_even_chromatin_has_no_contrast_and_no_entropy() -> None:
    x, y = grid()
    found = measured(np.hypot(x, y) < 30)
    assert found["chromatin_contrast"] == 0 and found["chromatin_entropy_bits"] == 0
    assert found["haematoxylin_od_sd"] == pytest.approx(0, abs=1e-6)


def test_a_checkerboard_of_chromatin() -> None:
    """Right and down every pair differs, on the diagonals none does: half of the pairs differ, in three cells of p."""
    rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX]
    board = (rows + columns) % 2
    pixels = np.where(board[..., None] == 1, np.uint8(150), np.uint8(60)) * np.ones(3, np.uint8)
    dark, light = (int(haematoxylin(np.full((1, 3), v, np.uint8))[0] / LEVEL_OD) for v in (60, 150))
    mask = np.zeros((SIDE_PX, SIDE_PX), bool)
    side = 100
    mask[50 : 50 + side, 50 : 50 + side] = True
    found = measured(mask, pixels)
    straight, diagonal = 2 * side * (side - 1), 2 * (side - 1) ** 2
    apart = straight / (straight + diagonal)
    assert found["chromatin_contrast"] == pytest.approx(apart * (dark - light) ** 2, rel=1e-5)
    # half of the pairs that differ go from dark to light; of the others half are dark
    p = np.array([apart / 2, apart / 2, (1 - apart) / 2, (1 - apart) / 2])
    assert found["chromatin_entropy_bits"] == pytest.approx(-(p * np.log2(p)).sum(), rel=1e-4)


def test_stripes_and_one_nucleus_beside_another_do_not_mix() -> None:
    density = np.tile(np.array([0.05, 0.35], np.float32), 20).reshape(2, 20)
    places = np.arange(40)
    owner = np.repeat([0, 1], 20)
    contrast, entropy = co_occurrence(places, owner, density.reshape(-1), count=2, shape=(2, 20))
    # each row is its own nucleus, so only pairs along the row count, and all differ by 3 levels
    np.testing.assert_allclose(contrast, 9)
    np.testing.assert_allclose(entropy, 1)


def test_a_nucleus_of_one_pixel_has_no_texture() -> None:
    contrast, entropy = co_occurrence(
        np.array([5]), np.array([0]), np.array([0.4], np.float32), count=1, shape=(4, 4)
    )
    assert contrast.tolist() == entropy.tolist() == [0]


def test_what_reaches_the_edge_of_the_slide_or_of_the_tile_touches_the_border() -> None:
    labels = np.zeros((60, 80), np.int32)
    boxes = [(0, 20, 5, 30), (10, 10, 20, 20), (40, 0, 50, 5), (70, 30, 80, 40), (30, 50, 40, 60)]
    for label, (x0, y0, x1, y1) in enumerate(boxes, 1):
        labels[y0:y1, x0:x1] = label
    pixels = np.zeros((60, 80, 3), np.uint8)

    def touching(size: tuple[int, int], read: Box) -> list[float]:
        frame = WorkingFrame(size, Mpp(MPP, MPP), Mpp(MPP, MPP))
        nuclei = describe_instances(
            labels, labels.astype(np.float32), pixels, read=read, kept=read, frame=frame, seen=read
        )
        found: Nuclei = nuclei
        return found.measure("touches_border").tolist()

    assert touching((80, 60), Box(0, 0, 80, 60)) == [1, 0, 1, 1, 1]
    # in the middle of a large slide the tile's own edge is where knowledge ends
    assert touching((800, 600), Box(100, 100, 180, 160)) == [1, 0, 1, 1, 1]
