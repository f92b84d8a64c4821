"""Certificates of trusted authorities: their sources, and the TLS settings for connections to services.

The first source that is set is used: a route's `ca_file`; `SSL_CERT_FILE` and `SSL_CERT_DIR`, which OpenSSL reads;
`REQUESTS_CA_BUNDLE`; `CURL_CA_BUNDLE`. Without any, the authorities of the system are trusted.
"""

from __future__ import annotations

import functools
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from embedway.errors import ConfigError
from embedway.files import open_regular

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Variables that OpenSSL reads: a file, and a list of folders.
OPENSSL = ("SSL_CERT_FILE", "SSL_CERT_DIR")
#: Variables of other programs: a file, or a folder. They are used if OpenSSL's are unset.
BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@dataclass(frozen=True, slots=True)
class Authorities:
    """Source of the trusted certificates: its name, and its file or folders. Without any, those of the system."""

    source: str = ""
    file: str = ""
    folders: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The source in words, for an error."""
        files = os.pathsep.join((self.file, *self.folders)).strip(os.pathsep)
        return f"in {self.source} = {files}" if self.source else "of the system"


def authorities(ca_file: Path | None = None, environ: Mapping[str, str] | None = None) -> Authorities:
    """Return the certificates that are trusted, from a route's file or the environment. Nothing is read."""
    if ca_file is not None:
        return Authorities("ca_file", str(ca_file))
    given = os.environ if environ is None else environ
    file, folder = (given.get(name, "").strip() for name in OPENSSL)
    if file or folder:
        named = " and ".join(name for name, value in zip(OPENSSL, (file, folder), strict=True) if value)
        return Authorities(named, file, tuple(part for part in folder.split(os.pathsep) if part))
    for name in BUNDLES:
        if value := given.get(name, "").strip():
            return Authorities(name, "", (value,)) if os.path.isdir(value) else Authorities(name, value)  # noqa: PTH112
    return Authorities()


def tls_context(trusted: Authorities, *, where: str = "") -> ssl.SSLContext:
    """Return TLS settings that trust these certificates. Raises ConfigError, which names the variable or the setting.

    `where` is the route of a `ca_file`. Contexts are shared while the files are unchanged.
    """
    stamps = tuple(_stamp(path) for path in (trusted.file, *trusted.folders) if path)
    problem = why_unusable(trusted)
    if problem:
        is_setting = trusted.source == "ca_file"
        raise ConfigError(problem, where=where if is_setting else trusted.source, key="ca_file" if is_setting else "")
    return _context(trusted, stamps)


def why_unusable(trusted: Authorities) -> str:
    """Return the reason why the certificates cannot be used; empty if they can be."""
    missing = next((folder for folder in trusted.folders if not Path(folder).is_dir()), None)
    if missing is not None:
        return f"{missing} is not a folder"
    if not trusted.file:
        return ""
    try:
        os.close(open_regular(Path(trusted.file)))  # OpenSSL would wait for a pipe, and read a device without end
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=trusted.file)
    except ssl.SSLError:
        return f"{trusted.file} contains no certificates in PEM format"
    except (OSError, ValueError) as error:
        return f"{trusted.file} cannot be read: {getattr(error, 'strerror', None) or 'the path is invalid'}"
    return ""


@functools.lru_cache(maxsize=16)
def _context(trusted: Authorities, stamps: tuple[object, ...]) -> ssl.SSLContext:
    del stamps  # a changed file is loaded again
    if not trusted.source:
        return ssl.create_default_context()
    if trusted.source in {"ca_file", *BUNDLES}:
        return ssl.create_default_context(cafile=trusted.file or None, capath=next(iter(trusted.folders), None))
    # As OpenSSL does: a variable replaces the file or the folder, and the other one keeps its default.
    defaults = ssl.get_default_verify_paths()
    context = ssl.create_default_context(cafile=trusted.file or _existing(defaults.openssl_cafile))
    for folder in trusted.folders or (defaults.openssl_capath,):
        if Path(folder).is_dir():
            context.load_verify_locations(capath=folder)
    return context


def _existing(path: str) -> str | None:
    return path if path and Path(path).is_file() else None


def _stamp(path: str) -> object:
    try:
        found = os.stat(path)  # noqa: PTH116  accepts any text
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
