"""Network: proxies, certificates and the hub. The network is used only with `--online`."""

from __future__ import annotations

import os
import ssl
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from embedway.cli.checks.base import Finding, Findings
from embedway.config.addresses import redact_address
from embedway.config.variables import CERTIFICATES, OTHERS_CERTIFICATES, PROXIES, set_variables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedway.cli.checks.base import Setup
    from embedway.config import Config

#: Timeout of a request to the hub, in seconds.
HUB_TIMEOUT_S = 5.0
_CERTIFICATES_REMEDY = "set SSL_CERT_FILE to the file of your CA's certificates"


@dataclass(frozen=True, slots=True)
class Hub:
    """State of the hub. `reachable` is None if it was not checked."""

    endpoint: str
    offline: bool
    reachable: bool | None
    why_not: str | None


def check_proxies(setup: Setup) -> Findings:
    """Report the variables of proxies, without credentials, and whether embedway uses them."""
    del setup
    found = set_variables([spelling for name in PROXIES for spelling in (name, name.lower())])
    if not found:
        return Findings((Finding("proxy", "ok", "no variable sets one"),))
    lines = []
    for name, value in found.items():
        if name.upper() == "NO_PROXY":
            lines.append(Finding(name, "ok", f"{value}: reached without a proxy"))
        elif name.upper() == "ALL_PROXY":
            lines.append(Finding(name, "ok", "not used: embedway reads HTTPS_PROXY and HTTP_PROXY"))
        else:
            lines.append(_judge_proxy(name, value))
    return Findings(tuple(lines))


def _judge_proxy(name: str, value: str) -> Finding:
    """Return the finding for a proxy, as `providers.http` and urllib use it."""
    address = value if "://" in value else f"http://{value}"
    like = f"set {name} to a URL such as http://proxy.example.com:3128"
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host:
        return Finding(name, "warning", "malformed, so requests through it fail", like)
    shown = _redact(address)
    if parts.scheme != "http":
        why = "proxies over https are not supported" if parts.scheme == "https" else f"{parts.scheme} is not supported"
        return Finding(name, "warning", f"{shown}: {why}", like)
    uses = {
        "HTTPS_PROXY": "used for services and for downloads over https",
        "HTTP_PROXY": "used only for downloads over http; services without https get no proxy",
    }
    return Finding(name, "ok", f"{shown}: {uses[name.upper()]}")


def _redact(address: str) -> str:
    """Return a URL with `***` instead of its user and password."""
    parts = urlsplit(redact_address(address))
    secret = "@" in urlsplit(address).netloc
    return parts._replace(netloc=f"***@{parts.netloc}" if secret else parts.netloc).geturl()


def check_tls(setup: Setup) -> Findings:
    """Report OpenSSL, and whether the files of certificates that variables name can be used."""
    del setup
    named = set_variables((*CERTIFICATES, *OTHERS_CERTIFICATES))
    lines = [_judge_certificates(name, value) for name, value in named.items()]
    if not any(name in CERTIFICATES for name in named) and not _has_authorities():
        detail = f"{ssl.OPENSSL_VERSION} finds no certificates, so no https server is trusted"
        lines.append(Finding("tls", "warning", detail, f"install ca-certificates, or {_CERTIFICATES_REMEDY}"))
    else:
        lines.append(Finding("tls", "ok", ssl.OPENSSL_VERSION))
    return Findings(tuple(lines))


def _judge_certificates(name: str, value: str) -> Finding:
    unset = f"correct or unset {name}"
    path = Path(value)
    effect = "" if name in CERTIFICATES else "; only pip and other programs use it"
    try:
        if name == "SSL_CERT_DIR":
            folders = [Path(part) for part in value.split(os.pathsep) if part]
            missing = next((folder for folder in folders if not folder.is_dir()), None)
            if missing is not None:
                return Finding(name, "warning", f"{missing} is not a folder", unset)
            return Finding(name, "ok", value)
        if path.is_dir() and name in OTHERS_CERTIFICATES:
            return Finding(name, "ok", f"{value}{effect}")
        with path.open("rb"):
            pass
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cafile=value)
    except ssl.SSLError:
        return Finding(name, "warning", f"{value} contains no certificates{effect}", unset)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the path is invalid"
        return Finding(name, "warning", f"{value} cannot be read: {reason}{effect}", unset)
    count = context.cert_store_stats()["x509"]
    return Finding(name, "ok", f"{value}, {count} certificate{'s' if count != 1 else ''}{effect}")


def _has_authorities() -> bool:
    """Return whether OpenSSL finds certificates: in its file, or in its folder, which it reads when it needs one."""
    context = ssl.create_default_context()
    folder = ssl.get_default_verify_paths().capath
    return context.cert_store_stats()["x509"] > 0 or (folder is not None and any(Path(folder).glob("*.0")))


def check_hub(setup: Setup) -> Findings:
    """Report the hub; with `--online`, whether it answers."""
    hub = ask_hub(setup.config, online=setup.online)
    return Findings(tuple(_judge_hub(hub)), {"hub": asdict(hub)})


def _judge_hub(hub: Hub) -> Iterator[Finding]:
    if hub.offline:
        yield Finding("hub", "ok", f"{hub.endpoint}: offline by setting")
    elif hub.reachable is None:
        yield Finding("hub", "skipped", f"{hub.endpoint}: not checked", "use --online to check")
    elif hub.reachable:
        yield Finding("hub", "ok", f"{hub.endpoint}: reachable")
    else:
        certificate = "certificate" in (hub.why_not or "").lower()
        remedy = _CERTIFICATES_REMEDY if certificate else "check network and proxy"
        detail = f"{hub.endpoint}: the hub is unreachable: {hub.why_not}"
        yield Finding("hub", "warning", detail, f"{remedy}; models come from the other sources in weights.places")


def ask_hub(config: Config, *, online: bool) -> Hub:
    """Ask the hub for one model, if `online`. No token is sent."""
    endpoint, offline = config.weights.hub_endpoint, config.weights.offline
    if not online or offline:
        return Hub(endpoint, offline, None, None)
    from urllib import error, request

    try:
        # The endpoint's scheme was checked when the settings were loaded.
        with request.urlopen(f"{endpoint}/api/models?limit=1", timeout=HUB_TIMEOUT_S) as answer:  # noqa: S310
            return Hub(endpoint, offline, answer.status == 200, None)
    except error.HTTPError as problem:
        return Hub(endpoint, offline, reachable=False, why_not=f"HTTP {problem.code}")
    except error.URLError as problem:
        return Hub(endpoint, offline, reachable=False, why_not=str(problem.reason))
    except (OSError, ValueError) as problem:
        return Hub(endpoint, offline, reachable=False, why_not=str(problem) or type(problem).__name__)
