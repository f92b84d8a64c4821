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
import numpy as np
import orjson

from embedway.errors import ProtocolError, UnavailableError

if TYPE_CHECKING:
    from embedway.errors import UpstreamError

#: Maximum size of an answer. 2,048 vectors of 4,096 numbers as JSON text are about 180 MB.
_MAX_BODY_BYTES = 400_000_000
#: Size of an answer besides its rows, and of a row: 8,192 numbers of 25 characters.
_BASE_BYTES, _ROW_BYTES = 1_048_576, 204_800
#: Commas and opening brackets of an answer besides its rows, and of a row.
_BASE_VALUES, _ROW_VALUES, _ROW_BRACKETS = 10_000, 8_192, 16
#: Maximum size that is read of an error's body.
_MOST_ERROR_BYTES = 1_048_576
#: Compressed and decompressed sizes above which a thread decompresses, and the maximum ratio of the two.
_LARGE_COMPRESSED_BYTES, _LARGE_UNPACKED_BYTES, _MOST_RATIO = 65_536, 8_000_000, 1_032
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
class Bounds:
    """Maximum bytes, commas, and opening brackets of an answer: parsed values need up to 100 times their bytes."""

    content: int
    commas: int
    brackets: int

    @classmethod
    def of(cls, rows: int, request: int) -> Bounds:
        """Return what the answer to a request of this size can need. It may repeat the texts."""
        return cls(
            min(_MAX_BODY_BYTES, _BASE_BYTES + rows * _ROW_BYTES + 2 * request),
            _BASE_VALUES + rows * _ROW_VALUES + request,
            _BASE_VALUES + rows * _ROW_BRACKETS + request,
        )

    def check(self, content: bytes) -> None:
        """Raise TooLargeError for a document with more values."""
        commas = brackets = 0
        for start in range(0, len(content) if len(content) > self.brackets else 0, _BASE_BYTES):
            piece = np.frombuffer(content, np.uint8, min(_BASE_BYTES, len(content) - start), start)
            commas += int(np.count_nonzero(piece == ord(",")))
            brackets += int(np.count_nonzero(piece | 32 == ord("{")))  # also [
            if commas > self.commas or brackets > self.brackets:
                raise TooLargeError


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


async def read_body(response: aiohttp.ClientResponse, bounds: Bounds) -> Body:
    """Read an answer with `auto_decompress=False`; of an error, only the beginning.

    Raises TooLargeError, and TimeoutError.
    """
    chunks: list[bytes] = []
    is_error = response.status >= 300
    most, size, problem = _MOST_ERROR_BYTES if is_error else bounds.content, 0, ""
    try:
        if not is_error and (response.content_length or 0) > most:
            raise TooLargeError
        async for chunk in response.content.iter_any():
            size += len(chunk)
            chunks.append(chunk)
            if size > most:
                break
    except TimeoutError:
        raise
    except (aiohttp.ClientError, ConnectionError):
        problem = CUT
    content = _within(b"".join(chunks), most, is_error=is_error)
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    for _ in range(2):  # some proxies compress twice
        if not content.startswith(_GZIP) and (encoding in {"", "identity"} or not content or _is_text(content)):
            break
        large = len(content) > _LARGE_COMPRESSED_BYTES
        large |= min(most, len(content) * _MOST_RATIO) > _LARGE_UNPACKED_BYTES
        unpack = asyncio.to_thread(_unpacked, content, encoding, most) if large else None
        content, found = await unpack if unpack else _unpacked(content, encoding, most)
        content, encoding, problem = _within(content, most, is_error=is_error), "", found or problem
    has_end = response.content_length is not None or "Transfer-Encoding" in response.headers
    return Body(content, problem, has_end)


def _within(content: bytes, most: int, *, is_error: bool) -> bytes:
    """Return a body; of an error, only the beginning. Raises TooLargeError."""
    if len(content) > most and not is_error:
        raise TooLargeError
    return content[:most]


def parse(body: Body, bounds: Bounds | None = None) -> Parsed:
    """Parse an answer as JSON; of equal keys, the last counts. Raises TooLargeError for more values than `bounds`.

    Numbers that are not finite become NaN or infinity, which row checks reject.
    """
    if bounds is not None:
        bounds.check(body.content)
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


def _unpacked(content: bytes, encoding: str, most: int) -> tuple[bytes, str]:
    """Decompress gzip or deflate, up to a byte more than `most`, and return the problem, if any."""
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
                part = stream.decompress(left, most - size + 1)
                size += len(part)
                parts.append(part)
                if size > most or not stream.eof:
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
