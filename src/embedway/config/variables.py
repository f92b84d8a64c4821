"""Names of environment variables that are not settings: proxies, certificates, and secrets.

Only `embedway doctor` uses this file. `proxies.py` and `certificates.py` read the variables for services.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: Variables of proxies; programs also read them in lower case.
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
#: Variable of certificates that only pip reads.
OTHERS_CERTIFICATES = ("PIP_CERT",)

#: Names of variables, settings and options whose value may be a secret.
_SECRET_NAME = re.compile(
    r"KEY|TOKEN(?!S|IZ|_BUDGET)|SECRET|PASSW|PASSPHRASE|.PWD$|CREDENTIAL|AUTH(?!OR)|AUTHORIZATION|COOKIE|BEARER"
    r"|SIGNATURE|HEADER|WEBHOOK|PRIVATE",
    re.IGNORECASE,
)
#: Names that the pattern above matches although their values are paths or names of variables.
_PLAIN_NAME = re.compile(r"(_FILE|_PATH|_SOCK|_DIR|_ENV|^OLDPWD)$", re.IGNORECASE)


def set_variables(names: Iterable[str], environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables with these names that are set and not empty."""
    given = os.environ if environ is None else environ
    return {name: given[name] for name in names if given.get(name, "").strip()}


def all_variables() -> dict[str, str]:
    """Return a copy of the environment."""
    return dict(os.environ)


def may_be_secret(name: str) -> bool:
    """Return whether the value of a variable, a setting or an option with this name may be a secret."""
    return bool(_SECRET_NAME.search(name)) and not _PLAIN_NAME.search(name)
