"""A key in an environment variable that the user names, for a server that no settings describe."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from embedway.config.request_headers import check_key
from embedway.errors import UsageError
from embedway.text import shown_name

if TYPE_CHECKING:
    from collections.abc import Mapping


def read_key(name: str, *, option: str, environ: Mapping[str, str] | None = None) -> str:
    """Return the key in the variable `name`. Raises UsageError, which names the option and contains no value."""
    given = os.environ if environ is None else environ
    try:
        key = check_key(given.get(name, ""))
    except ValueError as error:
        reason = str(error)
    else:
        if key:
            return key
        reason = "is not set; set it to the key"
    # Outside of `except`: a chained error could contain the key.
    raise UsageError(f"{option}: the variable {shown_name(name)} {reason}")
