"""The scripts that the ledger and the pins run on the server, and the keys that they use.

`lua/check.lua` is put before each script, so that one atomic step checks the version of the keys and changes them.
"""

from __future__ import annotations

import re

from embedway.errors import LedgerError, newer_version
from embedway.files import read_package_text
from embedway.ledger.sqlite_formats import LEDGER_VERSION, PINS_VERSION

LEDGER_PREFIX = "{embedway:ledger}:"
LEDGER_KEYS = tuple(LEDGER_PREFIX + name for name in ("format", "open", "all", "accounts", "limits", "warned", "meta"))
#: Pins by collection, and until when the claims among them hold. Times are the server's own.
PINS_KEYS = ("{embedway:pins}:format", "{embedway:pins}", "{embedway:pins}:until")

_NEWER = re.compile(r"EMBEDWAYFORMAT (\w+)")


def failure(error: Exception, what: str, known: int, otherwise: str) -> LedgerError:
    """The error of a script: `what` is of a newer version, or `otherwise`."""
    newer = _NEWER.search(str(error))
    return LedgerError(f"{what} in Redis {newer_version(newer[1], known)}" if newer is not None else otherwise)


def _read(name: str) -> str:
    return read_package_text("embedway.ledger", f"lua/{name}.lua")


def _check(version: int) -> str:
    """The start of a script, whose first key is that of the stamp."""
    return f"local known = {version}\n{_read('check')}\n"


LEDGER_CHECK = _check(LEDGER_VERSION)
PINS_CHECK = _check(PINS_VERSION)
LEDGER_SCRIPT = LEDGER_CHECK + _read("ledger")
PINS_SCRIPT = PINS_CHECK + _read("pins")
