"""A screen sees the patch network's tiles, imitates it, and its thresholds stop where regions would change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lobule
from lobule.evaluation.pixels import MaskCounts
from lobule.models.card import Score, read_card
from lobule.strict import changed
from lobule.training.augment import pale_tile
from lobule.training.bach import FieldImage
from lobule.training.cards import screen_graph, screened_card
from lobule.training.recipe import ScreenRecipe, read_recipe
from lobule.training.screen_agreement import (
    Agreement,
    ScreenedSlide,
    agreement_scores,
    choose_thresholds,
    compare,
    compose_screened,
    odds,
    recalibrated,
)
from lobule.training.screen_tiles import draw_texture, halve, make_tiles, principal_axes

RECIPE = read_recipe(Path(__file__).resolve().parents[2] / "recipes" / "tumor-breast-lite0-screen.toml")
assert isinstance(RECIPE, ScreenRecipe)
ZOO = Path(lobule.__file__).parent / "zoo" / "tumor-breast-lite0"
SMALL = changed(
    RECIPE,
    slides=3,
    mix=changed(RECIPE.mix, shards=2, shard=16, phantom=0.0),
    compose=changed(RECIPE.compose, side_mm=(1.0, 2.0), field_share=0.0),
)
THRESHOLDS = {"patch": 0.4, "refine": 0.5}


def draw_fields() -> list[FieldImage]:
    rng = np.random.default_rng(0)
    fields = []
    for label, spread in (("normal", 2), ("benign", 4), ("invasive", 30)):
        for order in range(2):
            pixels = np.clip(rng.normal((200, 120, 170), spread, (500, 700, 3)), 0, 255).astype(np.uint8)
            fields.append(FieldImage(f"{label}{order}", label, order, pixels))
    return fields


class FakeTeacher:
    """Calls rough tiles tumor; its features are the tile's mean colors, 8 × 8."""

    features = np.zeros((40, 8, 8), np.float32)

    def judge(self, tile: np.ndarray) -> float:
        rng = np.random.default_rng(int(tile[:8, :8].sum()))
        self.features = rng.normal(size=(40, 8, 8)).astype(np.float32)
        return float(np.abs(np.diff(tile[..., 1].astype(float), axis=1)).mean() > 10)


def rough(tiles: np.ndarray) -> np.ndarray:
    return np.array([FakeTeacher().judge(tile) for tile in tiles], np.float32)


def test_halving_is_the_mean_of_four_rounded_half_up() -> None:
    tiles = np.random.default_rng(1).integers(0, 256, (2, 6, 8, 3), dtype=np.uint8)
    slow = np.zeros((2, 3, 4, 3), np.uint8)
    for n, y, x, c in np.ndindex(slow.shape):
        slow[n, y, x, c] = int(tiles[n, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2, c].sum() / 4 + 0.5)
    np.testing.assert_array_equal(halve(tiles), slow)


def test_a_texture_is_the_same_for_a_seed_and_another_for_another() -> None:
    one, same, other = (draw_texture(64, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert one.shape == (64, 64, 3) and one.dtype == np.uint8
    np.testing.assert_array_equal(one, same)
    assert np.abs(one.astype(int) - other).mean() > 5


def test_principal_axes_give_unit_spread_and_the_largest_directions() -> None:
    rng = np.random.default_rng(0)
    strong = rng.normal(size=(500, 1)) * 10 @ np.ones((1, 6)) / 6**0.5
    features = (strong + rng.normal(size=(500, 6)) * 0.1 + 3).astype(np.float32)
    mean, axes = principal_axes(features, 2)
    got = (features - mean) @ axes
    np.testing.assert_allclose(got.std(axis=0), 1, rtol=1e-3)
    assert abs(np.corrcoef(got[:, 0], strong[:, 0])[0, 1]) > 0.999


def test_tiles_are_kept_and_a_cut_off_part_is_made_again(tmp_path: Path) -> None:
    said: list[str] = []
    teacher: Any = FakeTeacher()
    basis = (np.zeros(40, np.float32), np.eye(40, 32, dtype=np.float32))
    made = make_tiles(draw_fields(), teacher, basis, SMALL, SMALL.mix, tmp_path, said.append)
    assert made.tiles.shape == (32, 128, 128, 3) and made.features.shape == (32, 8, 8, 32)
    assert len(said) == 2
    (tmp_path / "001.npz").write_bytes((tmp_path / "001.npz").read_bytes()[:200])
    again = make_tiles(draw_fields(), teacher, basis, SMALL, SMALL.mix, tmp_path, said.append)
    assert len(said) == 3
    np.testing.assert_array_equal(made.tiles, again.tiles)
    np.testing.assert_array_equal(made.probability, again.probability)


def test_recalibrating_scales_and_shifts_the_log_odds() -> None:
    p = np.array([0.01, 0.3, 0.5, 0.99], np.float32)
    np.testing.assert_allclose(recalibrated(p, 1.0, 0.0), p, rtol=1e-5)
    np.testing.assert_allclose(odds(recalibrated(p, 2.0, 0.5)), 2 * odds(p) + 0.5, rtol=1e-4)


def refine_as_it_is(frame: Any) -> np.ndarray:
    return frame.heatmap


def test_a_screen_that_says_the_same_changes_no_region() -> None:
    slides = compose_screened(SMALL, draw_fields(), rough, rough, 256, 1)
    assert slides and all(isinstance(slide, ScreenedSlide) for slide in slides)
    plain = [slide.regions(slide.patch, refine_as_it_is, THRESHOLDS, 256) for slide in slides]
    assert any(mask.any() for mask in plain)
    for slide, mask in zip(slides, plain, strict=True):
        assert mask.shape == slide.frame.truth.shape
    one = compare(slides, plain, refine_as_it_is, THRESHOLDS, 256, 0.0, 1.0)
    assert one.share(one.all) == one.sides(one.all) == one.pooled(one.all) == one.mean(one.all) == 1.0


def test_a_screen_that_is_wrong_costs_its_own_tiles_only() -> None:
    slides = compose_screened(SMALL, draw_fields(), rough, lambda tiles: 1 - rough(tiles), 256, 1)
    plain = [slide.regions(slide.patch, refine_as_it_is, THRESHOLDS, 256) for slide in slides]
    none = compare(slides, plain, refine_as_it_is, THRESHOLDS, 256, -1.0, 2.0)
    assert none.share(none.all) == 0 and none.pooled(none.all) == 1
    wrong = compare(slides, plain, refine_as_it_is, THRESHOLDS, 256, 0.0, 2.0)
    assert 0 < wrong.share(wrong.all) < 1
    assert wrong.sides(wrong.all) == 0 and wrong.pooled(wrong.all) < 0.9


def made_up(low: float, high: float, good: bool) -> Agreement:
    settled = np.array([int(100 * low + 100 * (1 - high))] * 6)
    wrong = 0 if good else 20
    counts = tuple(MaskCounts(100, wrong, wrong, 100) for _ in range(6))
    return Agreement(low, high, np.full(6, 200), settled, settled, counts)


def test_thresholds_move_while_regions_stay_and_stop_at_the_patch_threshold() -> None:
    *_, free = choose_thresholds(lambda low, high: made_up(low, high, True), 0.99, 0.4)
    assert (free.low, free.high) == (0.3, 0.55)
    *tried, bound = choose_thresholds(
        lambda low, high: made_up(low, high, low <= 0.1 and high >= 0.8), 0.99, 0.4
    )
    assert (bound.low, bound.high) == (0.1, 0.8)
    assert any(one.pooled(one.all) < 0.99 for one in tried)


def test_scores_of_a_screen_have_intervals() -> None:
    scores = agreement_scores(made_up(0.2, 0.8, False), "six slides")
    assert [score.value for score in scores] == [0.2, 1.0, 0.8333, 0.8333]
    assert all(score.low is not None and score.low <= score.value for score in scores)


def test_a_card_takes_a_screen_once_however_often_it_is_made(tmp_path: Path) -> None:
    card = read_card(ZOO / "card.json")
    patch = card.graph("patch")
    assert patch is not None
    (tmp_path / "screen.onnx").write_bytes(b"a graph")
    graph = screen_graph(tmp_path / "screen.onnx", patch)
    scores = [Score(name="screen: share of tiles settled", value=0.8, low=0.7, high=0.9, on="x", how="y")]
    once = screened_card(card, RECIPE, graph, 0.1, 0.8, scores, "made once")
    twice = screened_card(once, RECIPE, graph, 0.1, 0.8, scores, "made once")
    assert once == twice
    assert once.thresholds == card.thresholds | {"screen_low": 0.1, "screen_high": 0.8}
    assert once.graph("refine") == card.graph("refine")
    assert once.scores[-1] == scores[0] and "made once" in once.made_by


def test_the_shipped_screen_follows_its_patch_network_on_drawn_tiles() -> None:
    import onnxruntime

    card = read_card(ZOO / "card.json")
    screen, patch = card.graph("screen"), card.graph("patch")
    assert screen is not None and patch is not None
    assert (ZOO / screen.file).stat().st_size < 1_500_000
    sessions = [
        onnxruntime.InferenceSession(str(ZOO / graph.file), providers=["CPUExecutionProvider"])
        for graph in (screen, patch)
    ]
    rng = np.random.default_rng(12)
    tiles = [draw_texture(256, rng) for _ in range(20)] + [pale_tile(256, rng) for _ in range(10)]
    own, wanted = (
        np.array([session.run(None, {"pixels": tile[None]})[0][0, 1] for tile in tiles])
        for session in sessions
    )
    assert np.corrcoef(own, wanted)[0, 1] > 0.8
    easy = (own <= card.thresholds["screen_low"]) | (own >= card.thresholds["screen_high"])
    assert easy.any()
    called = wanted >= card.thresholds["patch"]
    assert (called == (own >= card.thresholds["patch"]))[easy].mean() >= 0.9


def test_the_exported_screen_computes_on_whole_pixels_what_was_learned_on_halved_ones(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'lobule[train]')")
    from lobule.training.export import ScreenGraph
    from lobule.training.screen import build_screen, calibrate, screen_loss

    torch.manual_seed(0)
    network = build_screen(RECIPE.network)
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 64, (8, 128, 128, 3)).repeat(2, axis=1).repeat(2, axis=2).astype(np.uint8) * 4
    halved = torch.from_numpy(halve(whole))
    wanted = torch.tensor([0.1, 0.9, 0.2, 0.7, 0.0, 1.0, 0.5, 0.3])
    features = torch.zeros(8, RECIPE.network.features, 8, 8)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        loss = screen_loss(network(halved), wanted, features, 0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    network.eval()
    with torch.no_grad():
        own = torch.softmax(network(halved)[0], 1)
        graph = ScreenGraph(network)
        for k, tile in enumerate(whole):
            np.testing.assert_allclose(graph(torch.from_numpy(tile[None]))[0], own[k], atol=1e-5)
        before = own[:, 1].numpy()
        scale, shift = calibrate(network, before, wanted.numpy())
        after = torch.softmax(network(halved)[0], 1)[:, 1].numpy()
    np.testing.assert_allclose(after, recalibrated(before, scale, shift), atol=1e-5)
    assert ((after - wanted.numpy()) ** 2).sum() <= ((before - wanted.numpy()) ** 2).sum() + 1e-6


def test_a_screen_starts_as_the_patch_networks_own_stages() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'lobule[train]')")
    import onnx

    from lobule.errors import ModelOutputError
    from lobule.training.screen import build_screen, start_from

    network = build_screen(RECIPE.network)
    tiles = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    start_from(network, ZOO / "model.onnx", tiles)
    graph = onnx.load(str(ZOO / "model.onnx")).graph
    arrays = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    shifts = {node.input[1]: arrays[node.input[2]] for node in graph.node if node.op_type == "Conv"}
    seen = []

    def look(layer: Any, inputs: Any, output: Any) -> None:
        # what was folded into the convolution is undone: a normalization only adds the folded shift
        apart = output if isinstance(layer.act, torch.nn.Identity) else None
        if apart is not None:
            seen.append((apart - inputs[0]).mean(dim=(0, 2, 3)).numpy())

    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.register_forward_hook(look)
    network.eval()
    with torch.no_grad():
        network(torch.from_numpy(tiles))
    wanted = [
        shift for name, shift in shifts.items() if name.endswith(("conv_pwl.weight", "0.0.conv_pw.weight"))
    ]
    assert seen
    for got, shift in zip(seen, wanted, strict=False):
        np.testing.assert_allclose(got, shift, atol=1e-2)
    with pytest.raises(ModelOutputError, match="no convolution"):
        start_from(network, ZOO / "refine.onnx", tiles)
