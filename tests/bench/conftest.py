"""The benchmark's modules are plain files of one folder; here they are found like its own commands find them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "bench"))
