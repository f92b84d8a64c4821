"""Headers of requests to a service: fixed ones, those whose values are in files, and a token that expires."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from embedway.config.request_headers import check_header_value, check_key
from embedway.config.secret_files import SecretFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from embedway.providers.base import Endpoint


class Token(Protocol):
    """Bearer token that expires."""

    async def current(self) -> str:
        """Return a valid token. Raises UpstreamError."""

    async def renewed(self, refused: str) -> str:
        """Return a token in place of one that the service refused. Raises UpstreamError."""


@dataclass(frozen=True, slots=True)
class _FileHeader:
    file: SecretFile
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class RequestHeaders:
    """Headers of a service's requests, by lower-case name. Values are in no repr."""

    fixed: Mapping[str, str] = field(repr=False)
    files: Mapping[str, _FileHeader] = field(default_factory=dict, repr=False)
    token: Token | None = field(default=None, repr=False)

    async def current(self) -> dict[str, str]:
        """Return the headers of the next request, from files as they are now."""
        headers = dict(self.fixed)
        for name, header in self.files.items():
            headers[name] = header.prefix + header.file.current()
        if self.token is not None:
            headers["authorization"] = f"Bearer {await self.token.current()}"
        return headers

    async def renewed(self, refused: Mapping[str, str], *, expired: bool) -> dict[str, str] | None:
        """Return other headers after a service refused these ones; None if there are no others.

        Files are read again, even if they look unchanged. A token is renewed if it may have `expired`.
        """
        headers = dict(refused)
        for name, header in self.files.items():
            headers[name] = header.prefix + header.file.read_again()
        if self.token is not None and expired:
            token = await self.token.renewed(refused["authorization"].removeprefix("Bearer "))
            headers["authorization"] = f"Bearer {token}"
        return headers if headers != refused else None


def headers_of(endpoint: Endpoint, key_header: str, token: Token | None = None) -> RequestHeaders:
    """Return the headers of an endpoint: its own, and its key in `key_header`, unless they contain it already."""
    fixed = {name.casefold(): value for name, value in endpoint.headers.items()}
    prefix = "Bearer " if key_header == "authorization" else ""
    files = {}
    for name, path in endpoint.files.items():
        if name:
            files[name] = _FileHeader(SecretFile(path, fixed.get(name, ""), check_header_value))
    if endpoint.secret and key_header not in fixed:
        fixed[key_header] = prefix + endpoint.secret
        if "" in endpoint.files:
            files[key_header] = _FileHeader(SecretFile(endpoint.files[""], endpoint.secret, check_key), prefix)
    return RequestHeaders(fixed, files, token)
