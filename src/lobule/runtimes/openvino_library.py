"""OpenVINO, imported as lobule needs it: without its converter of other formats.

On import the converter would report OpenVINO's use over the network (openvino_telemetry, from a forked process), and
with what it needs for that it takes as long as a third of the rest. lobule makes no connection. OpenVINO takes a
converter that is not there for one that was not installed; who wants it may import ``openvino.tools.ovc`` afterwards.
"""

from __future__ import annotations

import sys

__all__ = ["openvino"]

_CONVERTER = "openvino.tools.ovc"

_absent = _CONVERTER not in sys.modules
if _absent:
    sys.modules[_CONVERTER] = None  # type: ignore[assignment]
try:
    import openvino
finally:
    if _absent:
        del sys.modules[_CONVERTER]
