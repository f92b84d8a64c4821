"""Settings of the gateway: what `embedway serve` would refuse, and who may use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.cli.checks.base import Finding, Findings
from embedway.cli.checks.libraries import EXTRAS, version_of
from embedway.errors import EmbedwayError
from embedway.server.access import is_public, needs_keys
from embedway.server.start_checks import check_settings
from embedway.server.unserved import without_route
from embedway.text import shown_name

if TYPE_CHECKING:
    from embedway.cli.checks.base import Setup

_NAME = "gateway"


def check_gateway(setup: Setup) -> Findings:
    """Report the address of the gateway, whether it needs keys, and settings that it refuses or that lack a key.

    Nothing is started.
    """
    config = setup.config
    settings = config.server
    if any(version_of(package) is None for package in EXTRAS["server"]):
        detail = "the extra server is not installed"
        return Findings((Finding(_NAME, "skipped", detail, "pip install 'embedway[server]'"),))
    try:
        check_settings(config)
    except EmbedwayError as error:
        return Findings((Finding(_NAME, "warning", f"embedway serve would refuse to start: {error}"),))
    scheme = "https" if settings.tls_certificate else "http"
    place = "the ledger's server" if config.ledger.backend == "redis" else settings.state_directory
    keys = "API keys required" if needs_keys(settings) else "no API keys required"
    detail = f"{scheme} on {settings.host} port {settings.port}, {keys}, batches in {place}"
    gaps = tuple(
        Finding(_NAME, "warning", f"server.models: {shown_name(name)} cannot answer: {lacks}")
        for name, lacks in without_route(config)
    )
    if is_public(settings):
        remedy = "set server.auth to 'auto', and create keys with `embedway keys create NAME`"
        return Findings(
            (Finding(_NAME, "warning", f"{detail}: everyone who can reach it can spend money", remedy), *gaps)
        )
    return Findings((Finding(_NAME, "ok", detail), *gaps))
