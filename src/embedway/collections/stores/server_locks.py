"""Lock of a collection on a server that has no locks: processes on one machine exclude each other."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from embedway.collections.stores.locks import exclusive

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


def server_lock(key: str, *, destination: str) -> AbstractContextManager[None]:
    """Lock the collection `key` for processes of this user on this machine.

    The lock of a killed process is free at once. Messages name the destination.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    name = hashlib.blake2b(key.encode(), digest_size=12).hexdigest()
    return exclusive(Path(tempfile.gettempdir()) / f"embedway-{user}-{name}", destination=destination)
