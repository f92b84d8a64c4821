"""Opt-out of the telemetry of the libraries that embedway imports.

docs/privacy.md lists the reports and files of each library, and the settings that stop them.
"""

from __future__ import annotations

import os
import sys
from typing import Any, cast

#: Environment variables of other libraries, with the value that disables reports. Libraries read them on import.
VARIABLES = {
    # On import, ONNX Runtime writes a device id and a database of events under the home folder, and uploads the events;
    # its function disable_telemetry_events() is too late for the files.
    "ORT_DISABLE_TELEMETRY": "1",
    # huggingface_hub, transformers, sentence-transformers and hf_xet: usage in the user agent, reports of transfers,
    # and a list of coding agents that is fetched once a day.
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # transformers asks a public service to convert weights that are not safetensors, and sends it the hub's token.
    "DISABLE_SAFETENSORS_CONVERSION": "1",
    # chromadb: events to PostHog.
    "ANONYMIZED_TELEMETRY": "False",
}


def opt_out_of_telemetry() -> None:
    """Disable the telemetry of other libraries. Call it before each import of one of them.

    A variable that is already set keeps its value, so users can opt in. Child processes inherit the variables.
    OpenVINO has no variable: on import it sends an event to Google Analytics from a forked process and stores counts in
    `~/intel` (openvino_telemetry/main.py), but it works without that package. So the package is blocked from import,
    unless it is already imported.
    """
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    cast("dict[str, Any]", sys.modules).setdefault("openvino_telemetry", None)
