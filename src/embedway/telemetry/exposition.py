"""Exposition of the metrics: as text (format 0.0.4), and in a file for node_exporter's textfile collector."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Any

from embedway.errors import ConfigError, UsageError
from embedway.files import is_special, private_temporary, put_in_place
from embedway.telemetry.multiprocess import checked_folder, drop_ended, is_multiprocess
from embedway.telemetry.names import METRICS
from embedway.telemetry.run_metrics import end_unfinished_run, run_label
from embedway.text import shown_name
from embedway.unfinished import remove

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Content type of the exposition.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: Other users may read the file: node_exporter is one.
_MODE = stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP | stat.S_IROTH


def exposition() -> bytes:
    """Return the metrics of this process as text, with those of other libraries in the default registry.

    In prometheus-client's multiprocess mode, they are those of all processes that use the same folder. Raises
    ConfigError if that folder is missing or contains files that cannot be read.
    """
    from prometheus_client import REGISTRY, generate_latest  # noqa: PLC0415  not without metrics

    _refresh()
    return generate_latest(_AllProcesses() if is_multiprocess() else REGISTRY)


def own_exposition(*, run: str | None = None) -> bytes:
    """Return only the metrics of embedway, without the times at which they were created.

    With `run`, each series has this label: the files of several jobs must not contain the same series. A file or push
    gateway may contain `process_` metrics of another program, which must not be there twice. Raises ConfigError as
    `exposition`.
    """
    from prometheus_client import generate_latest  # noqa: PLC0415  as above

    _refresh()
    return generate_latest(_OwnMetrics(run))


class _OwnMetrics:
    """Collector of the metrics of the table, with the label `run` if it is given."""

    def __init__(self, run: str | None) -> None:
        self._labels = {} if run is None else {"run": run}

    def collect(self) -> Iterator[Any]:
        from embedway.telemetry.metrics import process_metrics  # noqa: PLC0415  as above

        names = {metric.name for metric in METRICS}
        source: Any = _AllProcesses() if is_multiprocess() else process_metrics()
        for family in source.collect():
            if family.name in names:
                family.samples = [
                    one._replace(labels={**self._labels, **one.labels})
                    for one in family.samples
                    if not one.name.endswith("_created")
                ]
                yield family


def _refresh() -> None:
    """Measure the memory now, and forget processes that have ended."""
    from embedway.telemetry.metrics import lock, process_metrics  # noqa: PLC0415  as above

    folder = checked_folder() if is_multiprocess() else None
    metrics = process_metrics()
    with lock:
        metrics.measure_memory()
    if folder is not None:
        drop_ended(folder)


class _AllProcesses:
    """Collector of the metrics in the files of all processes."""

    def collect(self) -> Iterator[Any]:
        from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415  as above

        folder = checked_folder()
        try:
            collector = MultiProcessCollector(None, str(folder))  # type: ignore[no-untyped-call]
            yield from collector.collect()  # type: ignore[no-untyped-call]
        # A damaged file raises errors of many kinds.
        except Exception as error:
            raise ConfigError(
                f"{folder} contains files of prometheus-client that cannot be read ({type(error).__name__}); stop the "
                "processes that use it, and empty it",
                where="environment",
                key="PROMETHEUS_MULTIPROC_DIR",
            ) from error


def check_metrics_file(path: Path) -> None:
    """Raise UsageError if a file for metrics cannot be written, before the work."""
    shown = shown_name(str(path))
    if not path.parent.is_dir():
        raise UsageError(f"--metrics-file {shown}: its folder does not exist; create it first")
    if is_special(path) or is_special(path.resolve()):
        raise UsageError(f"--metrics-file {shown} is a device, a pipe or a socket; name a file, such as embedway.prom")
    path = path.resolve()
    if not path.parent.is_dir():
        raise UsageError(f"--metrics-file {shown}: it is a link into a folder that does not exist")
    if path.is_dir():
        raise UsageError(f"--metrics-file {shown} is a folder; name a file in it, such as embedway.prom")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"--metrics-file {shown}: you may not write to its folder")


def write_metrics_file(path: Path) -> None:
    """Write the metrics to a file, atomically, readable by all users. A link stays: its target is written.

    Each series has the label `run`, the name of the file without its suffix. Raises OSError and ConfigError.
    """
    end_unfinished_run()
    run, path = run_label(path.stem), path.resolve()
    if is_special(path):
        raise OSError(errno.EINVAL, "it is a device, a pipe or a socket")
    data = own_exposition(run=run)
    temporary = private_temporary(path)
    try:
        temporary.write_bytes(data)
        temporary.chmod(_MODE)
        put_in_place(temporary, path, overwrite=True)
    finally:
        remove(temporary)
