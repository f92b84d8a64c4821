"""Child processes and imports that run no code from the working directory.

The working directory may be an untrusted repository. Python searches it first for modules when it runs
`python -m NAME` or `python -c CODE`, and pip treats a folder there as the index of the same name.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from embedway import unfinished

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence

#: Variables of pip and TLS that contain paths; several paths are separated by white space.
_PATHS = (
    "PIP_BUILD_CONSTRAINT",
    "PIP_CACHE_DIR",
    "PIP_CERT",
    "PIP_CLIENT_CERT",
    "PIP_CONFIG_FILE",
    "PIP_CONSTRAINT",
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "PIP_INDEX_URL",
    "PIP_LOG",
    "CURL_CA_BUNDLE",
    "NETRC",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TEMP",
    "TMP",
    "TMPDIR",
)


def isolate_children() -> None:
    """Keep the working directory off the module path of Python child processes.

    Call it in programs, such as the command line: libraries start children too (the resource tracker of
    multiprocessing), and the variable reaches all of them. A value that the user has set is not changed.
    """
    os.environ.setdefault("PYTHONSAFEPATH", "1")


def run_module(module: str, arguments: Sequence[str], *, folder: Path) -> subprocess.CompletedProcess[bytes]:
    """Run `python -m MODULE` isolated (`-I`) in `folder`, without input, and wait. Raises OSError.

    The module comes only from the interpreter's own site-packages: not from the working directory, PYTHONPATH or the
    user's site-packages. Relative paths in the user's variables are made absolute.
    """
    import subprocess  # noqa: PLC0415  the command imports this module at its start

    command = [sys.executable, "-I", "-m", module, *arguments]
    # The arguments come from the caller; no shell is involved.
    with (
        subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env=_elsewhere(dict(os.environ), Path.cwd()),
        ) as process,
        unfinished.child(process),
    ):
        try:
            stdout, stderr = process.communicate()
        except BaseException:  # an interrupt
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def _elsewhere(environment: dict[str, str], here: Path) -> dict[str, str]:
    """Return the environment for a process in another folder: paths relative to `here` become absolute.

    URLs are not changed: a folder `https:/host/simple` in the working directory is not an index.
    """
    for name in _PATHS:
        value = environment.get(name, "")
        environment[name] = re.sub(r"\S+", lambda word: _absolute(word[0], here), value)
        if not value:
            environment.pop(name)
    return environment


def _absolute(word: str, here: Path) -> str:
    if "://" in word or word.startswith(("~", "file:")):
        return word
    return str(here / word) if (here / word).exists() else word
