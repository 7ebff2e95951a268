"""Every code block of the documentation runs, or says why it does not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.M | re.S)


def _blocks(page: Path) -> list[tuple[str, str, str]]:
    return [(match[1], match[2].strip(), match[3]) for match in BLOCK.finditer(page.read_text("utf-8"))]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the examples name."""
    import numpy as np
    from PIL import Image

    folder = tmp_path_factory.mktemp("docs")
    (folder / "slides").mkdir()
    lobule = [sys.executable, "-c", "from lobule.cli import main; main()"]
    command = [*lobule, "phantom", str(folder / "my.svs"), "--mm", "1.6x1.2", "--mpp", "0.5", "--seed", "3"]
    subprocess.run(command, check=True, capture_output=True)
    (folder / "slides" / "my.svs").write_bytes((folder / "my.svs").read_bytes())
    y, x = np.mgrid[:512, :512]
    spots = (np.hypot(x % 64 - 32, y % 64 - 32) < 12)[..., None]
    field = np.where(spots, (90, 60, 140), (225, 170, 205)).astype(np.uint8)
    Image.fromarray(field).save(folder / "field.png")
    square = "[[[100,100],[2000,100],[2000,1500],[100,1500],[100,100]]]"
    (folder / "tissue.geojson").write_text(f'{{"type": "Polygon", "coordinates": {square}}}')
    bin_ = folder / "bin"
    bin_.mkdir()
    (bin_ / "lobule").write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'from lobule.cli import main; main()' \"$@\"\n"
    )
    (bin_ / "lobule").chmod(0o755)
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_code_blocks_of_a_page_run(page: Path, bench: Path) -> None:
    environment = {**os.environ, "PATH": f"{bench / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    for language, info, code in _blocks(page):
        assert language in ("sh", "python", "json", "toml", "text"), f"{page}: a block of {language}"
        if language not in ("sh", "python") or info.startswith("no-run"):
            assert info in ("",) or re.fullmatch(r"no-run: .{5,}", info), f"{page}: {info!r} gives no reason"
            continue
        command = ["sh", "-e", "-c", code] if language == "sh" else [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=bench, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{page}\n{code}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page}: {target}"
