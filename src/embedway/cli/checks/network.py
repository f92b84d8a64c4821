"""Network: proxies, certificates and the hub. The network is used only with `--online`."""

from __future__ import annotations

import ssl
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from embedway.cli.checks.base import Finding, Findings
from embedway.config.certificates import BUNDLES, OPENSSL, authorities, why_unusable
from embedway.config.proxies import parse_proxy
from embedway.config.variables import OTHERS_CERTIFICATES, PROXIES, set_variables
from embedway.text import count_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedway.cli.checks.base import Setup
    from embedway.config import Config
    from embedway.config.certificates import Authorities

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
    has_own = "HTTPS_PROXY" in {name.upper() for name in found}
    lines = []
    for name, value in found.items():
        if name.upper() == "NO_PROXY":
            lines.append(Finding(name, "ok", f"{value}: reached without a proxy"))
        else:
            lines.append(_judge_proxy(name, value, has_own=has_own))
    return Findings(tuple(lines))


def _judge_proxy(name: str, value: str, *, has_own: bool) -> Finding:
    """Return the finding for a proxy, as `config.proxies` and urllib use it. `has_own`: HTTPS_PROXY is set."""
    like = f"set {name} to a URL such as http://proxy.example.com:3128"
    kind = name.upper()
    is_used = kind != "ALL_PROXY" or not has_own
    uses = {
        "HTTPS_PROXY": "used for services and for downloads over https",
        "HTTP_PROXY": "used only for downloads over http; services without https get no proxy",
        "ALL_PROXY": "used for services over https, not for downloads" if is_used else "not used: HTTPS_PROXY is set",
    }
    try:
        proxy = parse_proxy(name, value)
    except ValueError as error:
        if not is_used:
            return Finding(name, "ok", uses[kind])
        return Finding(name, "warning", f"{error}, so requests through it fail", like)
    shown = _redact(proxy.url, secret=bool(proxy.headers))
    if proxy.url.startswith("https:") and kind != "ALL_PROXY":
        return Finding(name, "warning", f"{shown}: used for services; downloads fail with proxies over https", like)
    return Finding(name, "ok", f"{shown}: {uses[kind]}")


def _redact(address: str, *, secret: bool) -> str:
    """Return a URL, with `***` if a user and a password were before its host."""
    parts = urlsplit(address)
    return parts._replace(netloc=f"***@{parts.netloc}" if secret else parts.netloc).geturl()


def check_tls(setup: Setup) -> Findings:
    """Report OpenSSL, and which of the certificates that variables name are used for services."""
    del setup
    used = authorities()
    named = set_variables((*OPENSSL, *BUNDLES, *OTHERS_CERTIFICATES))
    lines = [_judge_certificates(name, value, used) for name, value in named.items()]
    if not used.source and not _has_authorities():
        detail = f"{ssl.OPENSSL_VERSION} finds no certificates, so no https server is trusted"
        lines.append(Finding("tls", "warning", detail, f"install ca-certificates, or {_CERTIFICATES_REMEDY}"))
    else:
        lines.append(Finding("tls", "ok", ssl.OPENSSL_VERSION))
    return Findings(tuple(lines))


def _judge_certificates(name: str, value: str, used: Authorities) -> Finding:
    if name in OTHERS_CERTIFICATES:
        return Finding(name, "ok", f"{value}: only pip uses it")
    if name in OPENSSL:
        effect = "used for services and downloads"
    elif name == used.source:
        effect = "used for services; downloads use only SSL_CERT_FILE and SSL_CERT_DIR"
    else:
        return Finding(
            name, "ok", f"{value}: not used, because {used.source} {'are' if ' ' in used.source else 'is'} set"
        )
    one = authorities(environ={name: value})
    problem = why_unusable(one)
    if problem:
        return Finding(name, "warning", f"{problem}, so no service over https can be used", f"correct or unset {name}")
    if not one.file:
        return Finding(name, "ok", f"{value}: {effect}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=one.file)
    count = context.cert_store_stats()["x509"]
    return Finding(name, "ok", f"{value}, {count_of(count, 'certificate')}: {effect}")


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
