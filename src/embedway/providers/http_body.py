"""Reading of HTTP answers: decompression, cut answers, and JSON as careless servers write it.

An answer that the connection cut is used if it is complete JSON: its rows are right, and paid. Nothing of a body is in
an error.
"""

from __future__ import annotations

import asyncio
import json
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson

from embedway.errors import ProtocolError, UnavailableError

if TYPE_CHECKING:
    from embedway.errors import UpstreamError

#: Maximum size of an answer. 2,048 vectors of 4,096 numbers as JSON text are about 180 MB.
_MAX_BODY_BYTES = 400_000_000
#: Compressed size above which a thread decompresses.
_LARGE_COMPRESSED_BYTES = 65_536
#: Maximum members of a gzip answer; each costs a copy of the rest.
_MOST_MEMBERS = 100
#: Encodings that we accept: those of the standard library.
ACCEPT_ENCODING = "gzip, deflate"
_GZIP = b"\x1f\x8b"
#: NaN and infinity as C, C++ and Go print them: `nan`, `-nan(ind)`, `inf`, `+Inf`, `1.#QNAN`.
_BARE_NAN = re.compile(
    r"(?<=[\[,:\s])[-+]?(?:nan(?:\([a-z]*\))?|inf(?:inity)?|1\.#(?:qnan|ind|inf)\d*)(?=\s*[\],}])", re.IGNORECASE
)
_HTML = re.compile(rb"<(?:!doctype html|html|head|body|title|script|meta|center|h1|p|div|pre)\b")
_LENIENT = json.JSONDecoder(strict=False)

CUT = "the answer is incomplete: it was cut off"
CORRUPT = "the answer's compression is corrupt"
UNKNOWN_ENCODING = "the answer is compressed in a way that was not requested"
EMPTY = "the answer is empty"
XML = "the answer is XML, not JSON; check base_url"
PAGE = "a web page answered, not the API; check base_url, proxies, firewalls and login pages"
STREAM = "the answer is a stream of events, not one JSON document"
SEVERAL = "the answer has more data after its JSON document"
INVALID = "the answer is not valid JSON"
NOT_JSON = "the answer is not JSON; check base_url"


class TooLargeError(Exception):
    """The answer exceeds the maximum size."""


@dataclass(frozen=True, slots=True)
class Body:
    """Bytes of an answer, decompressed; `problem` says why they are not complete, and is empty if they are."""

    content: bytes
    problem: str = ""
    #: Whether the answer declared its end: by a length or by chunks.
    has_end: bool = True


@dataclass(frozen=True, slots=True)
class Parsed:
    """Value of an answer; `problem` says why it is not JSON, and is empty if it is."""

    value: Any = None
    problem: str = ""

    def error(self, *, route: str, status: int) -> UpstreamError:
        """Return the error for the problem. The answer was sent, so the request may be billed."""
        kind = UnavailableError if self.problem == CUT else ProtocolError
        return kind(self.problem, route=route, status=status, billed=True)


async def read_body(response: aiohttp.ClientResponse) -> Body:
    """Read an answer with `auto_decompress=False`. Raises TooLargeError, and TimeoutError."""
    chunks: list[bytes] = []
    size, problem = response.content_length or 0, ""
    try:
        if size > _MAX_BODY_BYTES:
            raise TooLargeError
        size = 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > _MAX_BODY_BYTES:
                raise TooLargeError
            chunks.append(chunk)
    except TimeoutError:
        raise
    except (aiohttp.ClientError, ConnectionError):
        problem = CUT
    content = b"".join(chunks)
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    for _ in range(2):  # some proxies compress twice
        if not content.startswith(_GZIP) and (encoding in {"", "identity"} or not content or _is_text(content)):
            break
        large = len(content) > _LARGE_COMPRESSED_BYTES
        unpack = asyncio.to_thread(_unpacked, content, encoding) if large else None
        content, found = await unpack if unpack else _unpacked(content, encoding)
        encoding, problem = "", found or problem
    has_end = response.content_length is not None or "Transfer-Encoding" in response.headers
    return Body(content, problem, has_end)


def parse(body: Body) -> Parsed:
    """Parse an answer as JSON; of equal keys, the last counts.

    Numbers that are not finite become NaN or infinity, which row checks reject.
    """
    try:
        return Parsed(orjson.loads(body.content))
    except orjson.JSONDecodeError:
        pass
    content = body.content
    if not content.strip(b" \t\r\n\0"):
        return Parsed(problem=body.problem or EMPTY)
    text = content.decode(json.detect_encoding(content), "replace").strip("\ufeff \t\r\n\0")
    parsed = _parse_text(text)
    if parsed.problem and body.problem and parsed.problem != PAGE:
        return Parsed(parsed.value, body.problem)
    if parsed.problem == INVALID and not body.has_end:
        return Parsed(problem=CUT)
    return parsed


def is_page(content: bytes, content_type: str) -> bool:
    """Return whether an answer is HTML, or is not JSON and has this type."""
    start = content[:2000].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"<"):
        return content_type == "text/html" or _HTML.search(start) is not None
    return content_type == "text/html" and not start.startswith((b"{", b"["))


def _is_text(content: bytes) -> bool:
    """Return whether a body that is declared as compressed is text: no compressed one begins like this."""
    return content[:64].lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in {b"{", b"[", b"<"}


def _unpacked(content: bytes, encoding: str) -> tuple[bytes, str]:
    """Decompress gzip or deflate, and return the problem, if any. Raises TooLargeError."""
    if content.startswith(_GZIP):
        windows = [zlib.MAX_WBITS | 16]
    elif encoding == "deflate":
        windows = [zlib.MAX_WBITS, -zlib.MAX_WBITS]  # some servers omit the header (RFC 9110 8.4.1.2)
    elif encoding in {"gzip", "x-gzip"}:
        return b"", CORRUPT
    else:
        return b"", UNKNOWN_ENCODING
    for window in windows:
        parts: list[bytes] = []
        left, size = content, 0
        try:
            while left and len(parts) < _MOST_MEMBERS:
                stream = zlib.decompressobj(window)
                part = stream.decompress(left, _MAX_BODY_BYTES - size + 1)
                size += len(part)
                if size > _MAX_BODY_BYTES:
                    raise TooLargeError
                parts.append(part)
                if not stream.eof:
                    return b"".join(parts), CUT
                left = stream.unused_data if stream.unused_data.startswith(_GZIP) else b""
            return b"".join(parts), CORRUPT if left else ""
        except zlib.error:
            continue
    return b"", CORRUPT


def _parse_text(text: str) -> Parsed:
    if text.startswith("<"):
        return Parsed(problem=PAGE if is_page(text[:2000].encode("utf-8", "replace"), "") else XML)
    if text.startswith(("data:", "event:", "id:", "retry:", ": ")):
        events = [line.removeprefix("data:").strip() for line in text.splitlines() if line.startswith("data:")]
        return Parsed(_lenient(events[0]).value if events else None, STREAM)
    return _lenient(text)


def _with_plain_nan(text: str) -> str:
    return _BARE_NAN.sub("NaN", text)


def _lenient(text: str) -> Parsed:
    """Parse JSON with literals and characters that the standard excludes."""
    for clean in (str, _with_plain_nan):
        document = clean(text)
        try:
            value, end = _LENIENT.raw_decode(document)
        except (ValueError, RecursionError):
            continue
        return Parsed(value, SEVERAL if document[end:].strip() else "")
    return Parsed(problem=INVALID if text[:1] in {"{", "["} else NOT_JSON)
