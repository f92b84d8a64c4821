"""Exposition of the metrics: as text (format 0.0.4), and in a file for node_exporter's textfile collector."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Any

from embedway.errors import UsageError
from embedway.files import is_special, private_temporary, put_in_place
from embedway.telemetry.names import METRICS
from embedway.telemetry.resident import resident_bytes
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

    In prometheus-client's multiprocess mode, they are those of all processes that use the same folder.
    """
    from prometheus_client import REGISTRY, generate_latest  # noqa: PLC0415  not without metrics

    _refresh()
    return generate_latest(_all_processes() if _is_multiprocess() else REGISTRY)


def own_exposition() -> bytes:
    """Return only the metrics of embedway, without the times at which they were created.

    A file or push gateway may contain `process_` metrics of another program, which must not be there twice.
    """
    from prometheus_client import generate_latest  # noqa: PLC0415  as above

    _refresh()
    return generate_latest(_OwnMetrics())


class _OwnMetrics:
    """Collector of the metrics of the table."""

    def collect(self) -> Iterator[Any]:
        from embedway.telemetry.metrics import process_metrics  # noqa: PLC0415  as above

        names = {metric.name for metric in METRICS}
        source: Any = _all_processes() if _is_multiprocess() else process_metrics()
        for family in source.collect():
            if family.name in names:
                family.samples = [one for one in family.samples if not one.name.endswith("_created")]
                yield family


def _refresh() -> None:
    """Measure the memory now."""
    from embedway.telemetry import names  # noqa: PLC0415  as above
    from embedway.telemetry.metrics import lock, process_metrics  # noqa: PLC0415  as above

    memory, metrics = resident_bytes(), process_metrics()
    if memory is not None:
        with lock:
            metrics.child(names.MEMORY).set(memory)


def _is_multiprocess() -> bool:
    """Return whether metrics are in files. It is decided when prometheus-client is imported."""
    from prometheus_client import values  # noqa: PLC0415  as above

    return bool(values.ValueClass._multiprocess)  # noqa: SLF001  it has no public function


def _all_processes() -> Any:
    from prometheus_client import CollectorRegistry  # noqa: PLC0415  as above
    from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415  as above

    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


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

    Raises OSError.
    """
    path = path.resolve()
    if is_special(path):
        raise OSError(errno.EINVAL, "it is a device, a pipe or a socket")
    data = own_exposition()
    temporary = private_temporary(path)
    try:
        temporary.write_bytes(data)
        temporary.chmod(_MODE)
        put_in_place(temporary, path, overwrite=True)
    finally:
        remove(temporary)
