"""Compiled networks are kept between runs: the same bits, and never anything else than what was asked for."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from drawn_models import darkness_model, redness_model

from lobule.models.zoo import Model, load_model, select_models
from lobule.runtimes import Runtime, compiled, open_runtime
from lobule.runtimes.openvino_runtime import OpenVinoRuntime
from lobule.strict import changed


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for compiled networks."""
    monkeypatch.setenv("LOBULE_CACHE", str(tmp_path / "kept"))
    return tmp_path / "kept"


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes that were really compiled for."""
    sizes: list[int] = []
    compile_network = OpenVinoRuntime._compile

    def counted(self: OpenVinoRuntime, core: object, side: int) -> object:
        sizes.append(side)
        return compile_network(self, core, side)  # type: ignore[arg-type]

    monkeypatch.setattr(OpenVinoRuntime, "_compile", counted)
    return sizes


def _open(model: Model, role: str, workers: int = 1, precision: str = "float32") -> Runtime:
    graph = model.card.graph(role)
    assert graph is not None
    path = model.file(graph, precision)  # type: ignore[arg-type]
    return open_runtime("openvino", model.name, path, graph, workers=workers, precision=precision)  # type: ignore[arg-type]


def _red_share(runtime: Runtime) -> float:
    tile = np.full((1, 64, 64, 3), 200, np.uint8)
    tile[0, :16, :, 2] = 20
    return float(runtime.run({"pixels": tile})["probabilities"][0, 0])


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_kept_network_gives_the_bits_of_the_compiled_one(precision: str, compilations: list[int]) -> None:
    """In the usual size of a tile and in another."""
    model = select_models()["nuclei"]
    graph = model.card.graph("segment")
    assert graph is not None
    random = np.random.default_rng(0)
    tiles = [random.integers(0, 256, (1, side, side, 3), np.uint8) for side in (graph.tile_px, 256)]
    found = []
    for _ in range(2):
        runtime = _open(model, "segment", precision=precision)
        found.append([runtime.run({"pixels": tile})[graph.outputs[0].name] for tile in tiles])
        runtime.close()
    assert compilations == [graph.tile_px, -1], "the second runtime compiled nothing"
    for first, second in zip(*found, strict=True):
        np.testing.assert_array_equal(first, second)


def test_what_differs_is_compiled_for_itself(tmp_path: Path, folder: Path, compilations: list[int]) -> None:
    """Another file, other numbers of threads, another card of the same file."""
    model = load_model(redness_model(tmp_path / "m"))
    assert _red_share(_open(model, "patch")) == pytest.approx(0.75, abs=1e-6)
    assert len(list(folder.glob("*.network"))) == 1
    _open(model, "patch", workers=2)
    _open(load_model(darkness_model(tmp_path / "n")), "segment")
    graph = model.card.graph("patch")
    assert graph is not None
    other = changed(graph, color_order="BGR" if graph.color_order == "RGB" else "RGB")
    swapped = open_runtime("openvino", model.name, model.file(graph), other, workers=1)
    assert _red_share(swapped) != pytest.approx(0.75, abs=1e-3)
    assert len(compilations) == len(list(folder.glob("*.network"))) == 4


@pytest.mark.parametrize("harm", ["cut", "changed", "emptied", "another's"])
def test_a_damaged_file_is_compiled_anew(
    harm: str, tmp_path: Path, folder: Path, compilations: list[int]
) -> None:
    model = load_model(redness_model(tmp_path / "m"))
    _open(model, "patch")
    (kept,) = folder.glob("*.network")
    whole = kept.read_bytes()
    if harm == "another's":
        # whole by its own digest, and nothing that OpenVINO knows
        compiled.keep_compiled(kept.stem, b"not a network")
    else:
        middle = len(whole) // 2
        changed = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        kept.write_bytes({"cut": whole[:middle], "changed": changed, "emptied": b""}[harm])
    assert _red_share(_open(model, "patch")) == pytest.approx(0.75, abs=1e-6)
    assert len(compilations) == 2
    assert _red_share(_open(model, "patch")) == pytest.approx(0.75, abs=1e-6)
    assert len(compilations) == 2, "and kept again"


def test_a_folder_that_cannot_be_written_costs_time_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compilations: list[int]
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("LOBULE_CACHE", str(tmp_path / "file"))
    model = load_model(redness_model(tmp_path / "m"))
    for _ in range(2):
        assert _red_share(_open(model, "patch")) == pytest.approx(0.75, abs=1e-6)
    assert len(compilations) == 2


def test_those_not_used_for_longest_go(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_MOST_FILES", 3)
    for number, key in enumerate("abc"):
        compiled.keep_compiled(key, key.encode())
        os.utime(folder / f"{key}.network", (number, number))
    assert compiled.kept_compiled("a") == b"a"
    compiled.keep_compiled("d", b"d")
    assert {path.stem for path in folder.iterdir()} == {"a", "c", "d"}
    assert compiled.kept_compiled("b") is None


def test_the_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LOBULE_CACHE")
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compiled.compiled_folder() == tmp_path / "lobule"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert compiled.compiled_folder() == tmp_path / ".cache" / "lobule"


def test_a_user_without_a_home_folder_compiles_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compilations: list[int]
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("LOBULE_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert compiled.compiled_folder() is None
    model = load_model(redness_model(tmp_path / "m"))
    for _ in range(2):
        assert _red_share(_open(model, "patch")) == pytest.approx(0.75, abs=1e-6)
    assert len(compilations) == 2


def test_a_folder_that_can_only_be_read_is_of_use(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled.keep_compiled("a", b"network")

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "utime", refuse)
    assert compiled.kept_compiled("a") == b"network"


def test_what_killed_runs_left_half_written_goes(folder: Path) -> None:
    """What another run is writing at this moment stays."""
    folder.mkdir()
    left, growing = folder / ".a.network.1.part", folder / ".a.network.2.part"
    for part in (left, growing):
        part.write_bytes(b"half")
    os.utime(left, (0, 0))
    compiled.keep_compiled("a", b"network")
    assert set(folder.iterdir()) == {growing, folder / "a.network"}
