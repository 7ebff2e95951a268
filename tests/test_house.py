"""The house of docs/architecture.md, held: imports go down the floors, and start-up loads nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "lobule"
FLOORS = {
    0: (
        "errors",
        "file_lock",
        "geometry",
        "machine",
        "progress",
        "provenance",
        "spreadsheet",
        "strict",
        "whole_file",
    ),
    1: ("slides", "annotations", "stain", "evaluation"),
    2: ("tissue", "tiles", "phantom"),
    3: ("models", "runtimes", "findings"),
    4: ("inference",),
    5: ("families",),
    6: ("export", "report"),
    7: ("analysis",),
    8: ("cli",),
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
# named exceptions to "never across": a runtime runs what a card describes; a mask in a TIFF is held against the
# one reader of TIFF directories; every floor 0 room may raise
ACROSS = {("runtimes", "models"), ("annotations", "slides")} | {
    (room, "errors") for room in ("provenance", "whole_file")
}
HEAVY = [
    "torch",
    "onnxruntime",
    "openvino",
    "matplotlib",
    "openslide",
    "tifffile",
    "scipy",
    "skimage",
    "shapely",
    "PIL",
    "pydicom",
    "numpy.random",
]


def _room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def _imports(path: Path) -> list[tuple[int, str]]:
    """(line, imported room) of every import in the file, late and type-checking ones included."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = (
                [node.module] if node.module != "lobule" else [f"lobule.{alias.name}" for alias in node.names]
            )
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
        found += [(node.lineno, name.split(".")[1]) for name in names if name.startswith("lobule.")]
    return found


def _allowed(room: str, imported: str) -> bool:
    if imported in ("__version__", room) or (room, imported) in ACROSS:
        return True
    if room == "training":
        return FLOOR.get(imported, 99) <= 5
    if imported == "training":
        return room == "cli"
    return imported in FLOOR and FLOOR[imported] < FLOOR[room]


def test_imports_go_down_the_floors() -> None:
    wrong = []
    for path in sorted(SOURCE.rglob("*.py")):
        room = _room(path)
        if room in ("__init__", "zoo"):
            continue
        assert room in FLOOR or room == "training", f"{room} has no floor"
        wrong += [
            f"{path}:{line}: {room} imports {to}" for line, to in _imports(path) if not _allowed(room, to)
        ]
    assert not wrong, "\n".join(wrong)


def test_except_exception_stands_in_one_place_only() -> None:
    places = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ExceptHandler):
                if isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None:
                    continue  # cleans up and lets the error go on
                names = (
                    []
                    if node.type is None
                    else [n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)]
                )
                if node.type is None or "Exception" in names or "BaseException" in names:
                    places.append(path.relative_to(SOURCE).as_posix())
    assert places == ["analysis/batch.py"]


@pytest.mark.parametrize(
    "start", ["import lobule", "import lobule.cli; lobule.cli.main(['--help'])"], ids=["import", "help"]
)
def test_start_up_loads_nothing_heavy(start: str) -> None:
    code = (
        "import sys\n"
        "try:\n"
        f"    {start}\n"
        "except SystemExit:\n"
        "    pass\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_the_public_names_are_those_promised() -> None:
    import lobule

    assert sorted(lobule.__all__) == ["__version__", "analyze", "open_slide"]
    for name in lobule.__all__:
        assert getattr(lobule, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lobule.nothing  # type: ignore[attr-defined]
