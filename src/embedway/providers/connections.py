"""Errors of connections to services: certificates, TLS, proxies and unreachable hosts, each named with its remedy.

No error contains a header or a URL's user and password. The libraries' own errors do, so they are never chained.
"""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp

from embedway.errors import AuthenticationError, ProtocolError, UnavailableError, UpstreamError

if TYPE_CHECKING:
    from embedway.config.certificates import Authorities
    from embedway.config.proxies import Proxy

#: Reasons for which OpenSSL refuses a certificate, by their number (openssl/x509_vfy.h), and what to do.
_CERTIFICATES = {
    9: "is not valid yet: check this machine's clock",
    10: "has expired: renew it on the server, or check this machine's clock",
    18: "is self-signed",
    19: "is signed by an unknown authority",
    20: "is signed by an unknown authority",
    21: "is signed by an unknown authority",
    23: "is revoked",
    62: "is for another host name: check base_url",
    63: "is for another host name: check base_url",
    64: "is for another address: write the host's name in base_url",
}
_UNKNOWN = frozenset({18, 19, 20, 21})
#: OpenSSL's reasons if the other side does not answer with TLS.
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"})
_PROBE_S = 2.0
#: Beginnings of aiohttp's messages for headers above its limits.
_TOO_LARGE = ("Got more than", "Too many")
#: Reasons for which a connection is not opened, by the system's number.
_REASONS = {
    errno.ECONNREFUSED: "refuses the connection",
    errno.ENETUNREACH: "is in a network that cannot be reached",
    errno.EHOSTUNREACH: "cannot be reached through the network",
    errno.ETIMEDOUT: "does not answer",
}


@dataclass(frozen=True, slots=True)
class Way:
    """Way to a service: its host and port, the proxy, and the trusted certificates."""

    route: str
    host: str
    port: int
    proxy: Proxy | None = None
    trusted: Authorities | None = None

    @property
    def place(self) -> str:
        """Host and port."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class TlsQuestion:
    """Finds out, once, whether a server that is asked in plain http expects TLS, so that base_url is wrong."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._answer: bool | None = None

    async def is_expected(self, way: Way) -> bool:
        """Return whether the server completes a TLS handshake."""
        async with self._lock:
            if self._answer is None:
                self._answer = await _speaks_tls(way)
            return self._answer


async def failure_of(
    error: Exception, way: Way, *, may_have_begun: bool, tls: TlsQuestion | None = None
) -> UpstreamError:
    """Return the error for a request without an answer. It may be billed if the request may have begun.

    `tls` is asked if the connection is lost; None if the URL's scheme is known to be right.
    """
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return _refused_by_proxy(error.status, way)
    if isinstance(error, aiohttp.ClientConnectorError):
        return _not_connected(error, way)
    if not may_have_begun:
        return _lost_on_the_way(error, way)
    is_large = isinstance(error, aiohttp.ClientResponseError) and error.message.startswith(_TOO_LARGE)
    may_want_tls = not isinstance(error, TimeoutError) and not is_large
    if tls is not None and may_want_tls and await tls.is_expected(way):
        return _wants_tls(way)
    if isinstance(error, aiohttp.ClientResponseError):
        # The parser refused the head of the answer. Its message may repeat the answer.
        fault = "the headers of the answer are too large" if is_large else "the server does not answer in HTTP"
        return ProtocolError(f"{fault}; check base_url, and proxies in front of it", route=way.route, billed=True)
    late = isinstance(error, TimeoutError)
    reason = "no answer in time" if late else f"the connection was lost ({type(error).__name__})"
    return UnavailableError(reason, route=way.route, billed=True)


def _not_connected(error: aiohttp.ClientConnectorError, way: Way) -> UpstreamError:
    at_proxy = way.proxy is not None and (error.host, error.port) == (way.proxy.host, way.proxy.port)
    which = f"the proxy in {way.proxy.variable}" if at_proxy and way.proxy is not None else f"the server {way.place}"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return _refused_certificate(error.certificate_error, which, way)
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return _failed_tls(getattr(error.os_error, "reason", None), which, way, at_proxy=at_proxy)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return _unknown_host(error.os_error, way, at_proxy=at_proxy)
    if not error.strerror:
        return UnavailableError(f"the connection to {way.place} was lost before it was ready", route=way.route)
    through = way.proxy is not None and (at_proxy or isinstance(error, aiohttp.ClientProxyConnectionError))
    named, place = "the service", way.place
    if through and way.proxy is not None:
        named, place = f"the proxy in {way.proxy.variable}", f"{way.proxy.host}:{way.proxy.port}"
    # asyncio joins the errors of several addresses of a host into one without a number.
    numbers = [error.os_error.errno, *map(int, re.findall(r"\[Errno (\d+)\]", error.strerror))]
    reason = next((f"{place} {_REASONS[number]}" for number in numbers if number in _REASONS), error.strerror)
    return UnavailableError(f"{named} is unreachable: {reason}", route=way.route)


def _unknown_host(error: OSError, way: Way, *, at_proxy: bool) -> UpstreamError:
    host = f"the host {way.host}"
    if at_proxy and way.proxy is not None:
        host = f"the host of the proxy in {way.proxy.variable}, {way.proxy.host},"
    if error.errno == socket.EAI_AGAIN:
        return UnavailableError(f"{host} cannot be looked up now: check the network and its DNS", route=way.route)
    return UnavailableError(f"{host} is unknown: check its spelling, and the network's DNS", route=way.route)


def _lost_on_the_way(error: Exception, way: Way) -> UpstreamError:
    """Return the error for a connection that was lost before the request was sent: during TLS, or by the proxy."""
    if isinstance(error, TimeoutError):
        through = f" through the proxy in {way.proxy.variable}" if way.proxy is not None else ""
        return UnavailableError(f"no connection to {way.place}{through} in time", route=way.route)
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, ssl.SSLError):
        inner = inner.__cause__ or inner.__context__
    if isinstance(inner, ssl.SSLCertVerificationError):
        return _refused_certificate(inner, f"the server {way.place}", way)
    if isinstance(inner, ssl.SSLError):
        return _failed_tls(inner.reason, f"the server {way.place}", way, at_proxy=False)
    if way.proxy is None:
        return UnavailableError(f"the connection to {way.place} was lost before it was ready", route=way.route)
    if isinstance(error, aiohttp.ClientResponseError):
        advice = "check its URL, and that it is an HTTP proxy"
        return ProtocolError(f"the proxy in {way.proxy.variable} does not answer in HTTP: {advice}", route=way.route)
    return UnavailableError(
        f"the proxy in {way.proxy.variable} ended the connection to {way.place} before it was ready", route=way.route
    )


def _refused_certificate(error: Exception, which: str, way: Way) -> UpstreamError:
    number = getattr(error, "verify_code", 0)
    reason = _CERTIFICATES.get(number, f"is not valid (OpenSSL's reason {number}): check the server")
    if number in _UNKNOWN:
        shown = way.trusted.shown if way.trusted is not None else "of the system"
        reason += (
            f" (trusted are the authorities {shown}): set SSL_CERT_FILE, or ca_file of the route, to the file of your "
            "CA's certificates"
        )
    return ProtocolError(f"the certificate of {which} {reason}", route=way.route)


def _failed_tls(reason: str | None, which: str, way: Way, *, at_proxy: bool) -> UpstreamError:
    if reason in _NO_TLS:
        advice = "write http:// in its URL" if at_proxy else "check the port, or whether base_url must be http://"
        return ProtocolError(f"{which} does not speak TLS on this port: {advice}", route=way.route)
    if reason is None or "EOF" in reason:
        return UnavailableError(f"{which} ended the connection during the TLS handshake", route=way.route)
    return ProtocolError(f"the TLS handshake with {which} failed ({reason})", route=way.route)


def _refused_by_proxy(status: int, way: Way) -> UpstreamError:
    variable = way.proxy.variable if way.proxy is not None else "HTTPS_PROXY"
    proxy = f"the proxy in {variable}"
    if status == 407:
        missing = way.proxy is not None and not way.proxy.headers
        reason = "requires a user and a password" if missing else "refused the user or the password in its URL"
        advice = f"write {variable} as http://USER:PASSWORD@HOST:PORT, with special characters percent-encoded"
        return AuthenticationError(f"{proxy} {reason}: {advice}", route=way.route, status=status)
    if status in {408, 429, 500, 502, 503, 504}:
        return UnavailableError(f"{proxy} could not connect to {way.place}", route=way.route, status=status)
    if status in {401, 403}:
        advice = f"allow {way.host} there, or add it to NO_PROXY"
        return ProtocolError(f"{proxy} refuses connections to {way.place}: {advice}", route=way.route, status=status)
    advice = "check that it is an HTTP proxy that supports CONNECT"
    return ProtocolError(f"{proxy} did not connect to {way.place}: {advice}", route=way.route, status=status)


def _wants_tls(way: Way) -> UpstreamError:
    """Return the error for a service that was asked in plain http and expects TLS."""
    return ProtocolError(f"the server {way.place} expects TLS: write https:// in base_url", route=way.route)


async def _speaks_tls(way: Way) -> bool:
    """Return whether a server completes a TLS handshake. No data is sent, so its certificate is not checked."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        async with asyncio.timeout(_PROBE_S):
            _, writer = await asyncio.open_connection(way.host, way.port, ssl=context)
            writer.close()
    except (OSError, TimeoutError):  # ssl.SSLError is an OSError
        return False
    return True
