"""Cases of the fuzz harness, and the verdict on each: nothing but errors of `embedway.errors` leaves a public call.

Two marks are planted in each process: a secret (in keys, tokens and URLs) and a long text of a user. Neither may appear
in an error, its chain as Python prints it, or a log record.
"""

import logging
import resource
import secrets
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from embedway.errors import EmbedwayError

SECRET = f"sk-{secrets.token_hex(12)}"
TEXT = f"confidential minutes {secrets.token_hex(12)} of a long meeting that no log may repeat"
#: Parts of `TEXT` and `SECRET` that no message contains by chance.
MARKS = {"secret": SECRET[3:], "text": TEXT.split()[2]}


class CallersError(Exception):
    """Error of an object that the caller passed. From the iteration of texts, it reaches the caller unchanged."""


class WrongResultError(Exception):
    """A call succeeded with a wrong result, such as another row."""


@dataclass(frozen=True)
class Case:
    """One call. `entry` groups cases in the report; `allowed` are errors that a protocol of Python requires."""

    entry: str
    what: str
    run: Callable[[], object]
    allowed: tuple[type[BaseException], ...] = ()
    #: Whether an error may repeat the argument: the value of a setting, or an error of numpy.
    repeats: bool = False

    @property
    def name(self):
        return f"{self.entry}: {self.what}"


@dataclass(frozen=True)
class Verdict:
    """Outcome of a case; `faults` maps each kind of fault to what was seen."""

    entry: str
    name: str
    outcome: str
    faults: dict[str, str]
    seconds: float
    peak_mb: float


class LogRecords(logging.Handler):
    """Collects the text of all log records, with their chained errors."""

    def __init__(self):
        super().__init__()
        self.lines = []
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record):
        self.lines.append(self.format(record))


def judge(case, records):
    """Run a case and return its verdict."""
    records.lines.clear()
    started, outcome, faults, shown = time.monotonic(), "ok", {}, ""
    try:
        case.run()
    except BaseException as error:
        outcome = type(error).__name__
        shown = "".join(traceback.format_exception(error)) + repr(error)
        if isinstance(error, WrongResultError):
            faults["wrong"] = place_of(error)
        elif not isinstance(error, (EmbedwayError, *case.allowed)):
            faults["outside"] = place_of(error)
        if len(str(error)) > 5000 and not case.repeats:
            faults["long"] = f"{len(str(error))} characters"
    shown += "\n".join(records.lines)
    faults |= {
        kind: case.name for kind, mark in MARKS.items() if mark in shown and not (kind == "text" and case.repeats)
    }
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Verdict(case.entry, case.name, outcome, faults, time.monotonic() - started, peak_mb)


def place_of(error):
    """Return the class of an error, and the innermost line of embedway that it passed."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "embedway" in frame.filename and "/tests/" not in frame.filename]
    where = f"{own[-1].filename.rsplit('embedway/', 1)[-1]}:{own[-1].lineno}" if own else "outside embedway"
    notes = " ".join(getattr(error, "__notes__", ()))
    return f"{type(error).__module__}.{type(error).__qualname__} at {where}: {str(error)[:160]} {notes}"
