"""Opt-out of the telemetry of the libraries that embedway imports.

docs/privacy.md lists what each library would report or write, and what stops it.
"""

from __future__ import annotations

import os
import sys
from typing import Any, cast

#: Variables of other libraries, each with the value that stops a report. A library reads them when it is imported.
VARIABLES = {
    # ONNX Runtime writes a device id and a database of events under the home folder on import, and uploads the events;
    # its function disable_telemetry_events() comes too late for the files.
    "ORT_DISABLE_TELEMETRY": "1",
    # huggingface_hub, transformers, sentence-transformers and hf_xet: usage in the user agent, reports of transfers,
    # and a list of coding agents that is fetched once a day.
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # transformers asks a public service to convert weights that are no safetensors, and sends it the hub's token.
    "DISABLE_SAFETENSORS_CONVERSION": "1",
}


def opt_out_of_telemetry() -> None:
    """Keep other libraries from reporting their use. Call it before each import of one of them.

    A variable that is set already keeps its value, so a user who wants a report can have it. Child processes inherit
    the variables. OpenVINO has no variable: on import it sends an event to Google Analytics from a forked process and
    keeps counts in `~/intel` (openvino_telemetry/main.py), but it does without where that package cannot be imported.
    A telemetry package that somebody imported before is left as it is.
    """
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    cast("dict[str, Any]", sys.modules).setdefault("openvino_telemetry", None)
