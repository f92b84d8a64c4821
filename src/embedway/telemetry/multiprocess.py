"""prometheus-client's multiprocess mode: its folder, and the gauges of processes that have ended."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from embedway.errors import ConfigError

#: Names of the variable of the environment. prometheus-client still reads the second, older one.
_VARIABLES = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")


def is_multiprocess() -> bool:
    """Return whether metrics are in files. It is decided when prometheus-client is imported."""
    values: Any = sys.modules.get("prometheus_client.values")
    if values is None:
        return any(name in os.environ for name in _VARIABLES)
    return bool(values.ValueClass._multiprocess)  # noqa: SLF001  it has no public function


def share_in(folder: Path) -> None:
    """Let this process and those that are forked from it share their metrics in a new folder, unless the user set one.

    Call it before prometheus-client is imported.
    """
    if not any(name in os.environ for name in _VARIABLES):
        folder.mkdir()
        os.environ[_VARIABLES[0]] = str(folder)


def continue_files(name: str, folder: Path) -> None:
    """Let this process continue the files of an ended one with the same name, so that restarts add no files.

    Counts go on, and gauges begin anew. Nothing is done if the files are not in this folder, that of `share_in`.
    Call it before the first metric is made. The name has no underscore; no other running process has it.
    """
    if os.environ.get(_VARIABLES[0]) != str(folder):
        return
    from prometheus_client import values  # noqa: PLC0415  only in processes with metrics

    for file in folder.glob(f"gauge_live*_{name}.db"):
        _remove(file)
    values.ValueClass = values.MultiProcessValue(lambda: name)  # type: ignore[no-untyped-call, misc, unused-ignore]


def checked_folder() -> Path:
    """Return the folder of the files. Raises ConfigError if it cannot be used."""
    variable = next((name for name in _VARIABLES if name in os.environ), _VARIABLES[0])
    value = os.environ.get(variable, "")
    if not value:
        reason = "it is empty or was removed; name a folder for the files of prometheus-client before Python starts"
    elif not Path(value).is_dir():
        reason = f"{value} is not an existing folder; create it before Python starts"
    elif not os.access(value, os.R_OK | os.X_OK) or not _is_writable(value):
        reason = f"{value} is a folder that you may not read and write; change its rights"
    else:
        return Path(value)
    raise ConfigError(
        f"{reason}, or unset {variable}, or set telemetry.prometheus to false", where="environment", key=variable
    )


def _is_writable(folder: str) -> bool:
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def drop_ended(folder: Path) -> None:
    """Remove the gauges of ended processes from the files, except those with the mode `mostrecent`.

    A process of another pid namespace, such as another container, looks as if it had ended. So do processes whose files
    are not named by their pid (`process_identifier` of prometheus-client); then nothing is removed.
    """
    if os.name != "posix" or not (folder / f"gauge_livesum_{os.getpid()}.db").exists():
        return
    ended: dict[str, bool] = {}
    for file in folder.glob("gauge_live*_*.db"):
        pid = file.stem.rpartition("_")[2]
        if pid not in ended:
            ended[pid] = _has_ended(pid)
        if ended[pid]:
            _remove(file)


def leave() -> None:
    """Remove the gauges of this process at its end."""
    for name in _VARIABLES:
        for file in Path(os.environ.get(name) or os.devnull).glob(f"gauge_live*_{os.getpid()}.db"):
            _remove(file)


def _has_ended(pid: str) -> bool:
    if not pid.isdecimal() or int(pid) == 0:  # 0 is this process' group
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # it exists and belongs to another user, or is no pid
        return False
    return False


def _remove(file: Path) -> None:
    """Remove a file. Another process may have done it, and a foreign file stays."""
    with contextlib.suppress(OSError):
        file.unlink()
