"""Checks of the settings of a gateway before its start, also for `embedway doctor`. Nothing is started."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING

from embedway.config.local_models import AUTO
from embedway.errors import ConfigError, EmbedwayError, MissingExtraError, UsageError
from embedway.providers.names import full_name
from embedway.server.access import needs_keys, no_store_of_keys

if TYPE_CHECKING:
    from embedway.config import Config
    from embedway.config.server import ServerSettings


def check_settings(config: Config) -> None:
    """Check whether a gateway can start with its settings on this system.

    Raises UsageError without fork, MissingExtraError, and ConfigError for a setting.
    """
    if not hasattr(os, "fork"):
        raise UsageError("embedway serve needs fork, which this system does not have; on Windows, use WSL")
    _check_extra()
    if needs_keys(config.server) and config.ledger.backend == "none":
        raise no_store_of_keys()
    _check_certificate(config.server)
    _check_models(config)


def _check_models(config: Config) -> None:
    """Raise ConfigError if the settings of the gateway name a model that does not exist."""
    named = {"server.models": config.server.models, "server.warm": config.server.warm}
    for key, names in named.items():
        for name in names or ():
            if name == AUTO:
                continue
            try:
                full_name(name, config)
            except EmbedwayError as error:
                raise ConfigError(str(error), key=key) from None


def _check_certificate(settings: ServerSettings) -> None:
    """Raise ConfigError if the certificate and the key cannot be used."""
    if settings.tls_certificate is None or settings.tls_key is None:
        return
    import ssl  # noqa: PLC0415  not needed without TLS

    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(settings.tls_certificate, settings.tls_key)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
        raise ConfigError(
            f"{settings.tls_certificate} and {settings.tls_key} are no certificate chain and its key in PEM, without a "
            f"password: {reason}",
            key="server.tls_certificate",
        ) from None


def _check_extra() -> None:
    """Raise MissingExtraError if a library of the extra is not installed."""
    for package in ("httptools", "python_multipart", "starlette", "uvicorn", "uvloop"):
        if find_spec(package) is None:
            raise MissingExtraError("embedway serve", extra="server", package=package)
