"""A check of `embedway doctor`: a function from the settings to findings. It runs in a thread, with a time limit."""

from __future__ import annotations

import threading
import time
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from embedway.config import Config

#: `problem` prevents embedding, `warning` does not. `failed` is a check that could not be completed. `skipped` means
#: that there is nothing to check, or that an option is needed.
Status: TypeAlias = Literal["ok", "warning", "problem", "failed", "skipped"]
#: Time limit of a check, in seconds. Most take some milliseconds.
LIMIT_S = 10.0
#: The same for a check that imports a large library, which may take long on a cold disk.
IMPORT_LIMIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `remedy` says what to do; it is empty if nothing needs to be done."""

    name: str
    status: Status
    detail: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Findings:
    """Result of a check: lines, and fields of the JSON document."""

    lines: tuple[Finding, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Setup:
    """Input of the checks. If the settings are invalid, `is_loaded` is false and `config` contains the defaults."""

    config: Config
    is_loaded: bool
    files: tuple[Path, ...] = ()
    online: bool = False


@dataclass(frozen=True, slots=True)
class Check:
    """A check. If an `essential` check fails, texts cannot be embedded."""

    name: str
    section: str
    #: Function from the setup to the findings. Without settings, its argument is None if it needs none.
    run: Callable[[Any], Findings]
    essential: bool = False
    needs_settings: bool = True
    limit_s: float = LIMIT_S
    #: Advice if the check itself fails.
    remedy: str = "run `embedway --traceback doctor` and report the traceback"


@dataclass(slots=True)
class Running:
    """A started check. It runs in a daemon thread, so that a check that hangs does not keep the process alive."""

    check: Check
    thread: threading.Thread
    until: float
    findings: Findings | None = None
    error: BaseException | None = None

    def result(self) -> Findings:
        """Wait for the findings, at most for the check's time limit. A check that fails has one line."""
        if self.thread.is_alive():
            self.thread.join(max(0.0, self.until - time.monotonic()))
        if self.findings is not None:
            return self.findings
        name, remedy = self.check.name, self.check.remedy
        if self.error is None and self.thread.is_alive():
            reason = f"no result within {self.check.limit_s:g} s"
        else:
            reason = describe(self.error)
        if isinstance(self.error, OSError) and self.error.filename is not None:
            remedy = "check that this path exists and that you may use it"
        return Findings((Finding(name, "failed", f"check {name} failed: {reason}", remedy),))

    @property
    def traceback(self) -> str:
        """Traceback of the check's error; empty if there is none."""
        return "" if self.error is None else "".join(traceback.format_exception(self.error))


def start(check: Check, setup: Setup | None) -> Running:
    """Start a check. Any error of it is recorded: a panic of a Rust library is not an `Exception`."""

    def work() -> None:
        try:
            running.findings = check.run(setup)
        except BaseException as error:  # noqa: BLE001  reported as a line, whatever it is
            running.error = error

    thread = threading.Thread(target=work, name=f"embedway-check-{check.name}", daemon=True)
    running = Running(check, thread, time.monotonic() + check.limit_s)
    try:
        thread.start()
    except RuntimeError:  # the system allows no more threads: the check runs here, without a time limit
        work()
    return running


def describe(error: BaseException | None) -> str:
    """Return the class and the message of an error; a message that cannot be formatted is left out."""
    if error is None:
        return "it ended without a result"
    name = type(error).__name__
    try:
        message = str(error)
    except BaseException:  # noqa: BLE001  a broken __str__ of a library must not end the report
        message = ""
    return f"{name}: {message}" if message else name
