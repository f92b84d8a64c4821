"""Metrics of a command that is a job: in a file at its end, and at the push gateway."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from embedway.cli.options import metrics_file
from embedway.telemetry.run_metrics import Run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedway.config import Config


@contextlib.contextmanager
def job_metrics(config: "Config", path: Path | None) -> "Iterator[Run]":
    """Report the end of the block as the end of a job, if there is a metrics file or a push gateway."""
    telemetry = config.telemetry
    pushes = telemetry.prometheus and telemetry.push_gateway is not None
    run = Run(telemetry.push_job if path is None else path.stem)
    if path is None and not pushes:
        yield run
        return
    try:
        with metrics_file(path), run:
            yield run
    finally:
        if pushes:
            # Embedders pushed when they were closed; the job had not ended then.
            from embedway.telemetry.push_gateway import push_all

            push_all()
