"""OpenVINO without its telemetry."""

from __future__ import annotations

import sys
from typing import Any, cast


def silence_openvino() -> None:
    """Keep the `openvino` package from reporting its use; call it before the package is imported.

    On import it sends an event to Google Analytics from a forked process, and keeps counts in `~/intel`
    (openvino_telemetry/main.py), unless the user opted out. Texts and machines of ours are nobody's affair: where the
    telemetry package cannot be imported, OpenVINO does without. One that somebody imported before is left as it is.
    """
    modules = cast("dict[str, Any]", sys.modules)
    modules.setdefault("openvino_telemetry", None)
