"""Answers of the gateway, and vectors as JSON, which is written without a Python object for each number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pybase64

from embedway.concurrency import compute_in_thread
from embedway.money import usd

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from embedway.server.problems import Problem
    from embedway.types import Receipt, Vectors

    Header = tuple[bytes, bytes]

JSON = b"application/json"
#: Maximum numbers that the event loop encodes itself, in 2 ms as text; a thread encodes more.
_MOST_INLINE = 32_768
#: Maximum rows that the header of truncated texts lists.
_SHOWN_ROWS = 50


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: status, body and headers."""

    body: bytes
    status: int = 200
    media: bytes = JSON
    headers: tuple[Header, ...] = ()


def json_reply(document: Any, *, status: int = 200, headers: tuple[Header, ...] = ()) -> Reply:
    """Return a document as JSON."""
    return Reply(orjson.dumps(document), status, JSON, headers)


async def encoded(vectors: Vectors, encode: Callable[..., bytes], *arguments: Any) -> bytes:
    """Return `encode(*arguments)`, which encodes these vectors; a thread encodes many numbers."""
    if vectors.size > _MOST_INLINE:
        return await compute_in_thread(encode, *arguments)
    return encode(*arguments)


def float_rows(vectors: Vectors) -> list[bytes]:
    """Return each row of float32 (n, d) as a JSON array, with the fewest digits that identify each number."""
    rows = np.ascontiguousarray(vectors)
    return [orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY) for row in rows]


def float_array(vectors: Vectors) -> bytes:
    """Return float32 (n, d) as a JSON array of arrays. Other threads run between its rows."""
    return b"[%b]" % b",".join(float_rows(vectors))


def base64_rows(vectors: Vectors) -> list[bytes]:
    """Return each row of float32 (n, d) as a JSON string: base64 of its little-endian bytes."""
    rows = np.ascontiguousarray(vectors, dtype="<f4")
    return [b'"%b"' % pybase64.b64encode(row.data) for row in rows]


def receipt_headers(receipt: Receipt) -> tuple[Header, ...]:
    """Return the headers that say what a request did: model, space, cache hits, cost, truncated rows."""
    cost = receipt.cost_nanousd
    headers = [
        (b"x-embedway-model", _latin(receipt.model)),
        (b"x-embedway-cache", b"%d/%d" % (receipt.cache_hits, receipt.unique_texts)),
        (b"x-embedway-cost-usd", b"unknown" if cost is None else usd(cost).encode()),
        (b"x-embedway-truncated", _rows([cut.row for cut in receipt.truncations])),
    ]
    if receipt.space_id:
        headers.append((b"x-embedway-space", _latin(receipt.space_id)))
    if receipt.averaged:
        headers.append((b"x-embedway-averaged", _rows([one.row for one in receipt.averaged])))
    if receipt.notes:
        headers.append((b"x-embedway-notes", b"%d" % len(receipt.notes)))
    return tuple(headers)


def _rows(rows: Sequence[int]) -> bytes:
    """Return the number of rows and, after a semicolon, the first of them."""
    if not rows:
        return b"0"
    shown = ",".join(map(str, rows[:_SHOWN_ROWS]))
    return f"{len(rows)}; rows={shown}{',...' if len(rows) > _SHOWN_ROWS else ''}".encode()


def _latin(text: str) -> bytes:
    """Return a text for a header: printable ASCII."""
    return text.encode("ascii", "backslashreplace") if text.isprintable() else ascii(text).encode()


def problem_headers(problem: Problem) -> tuple[Header, ...]:
    """Return the headers of an error: when to come back, and for OpenAI's clients, whether to."""
    # OpenAI's clients retry 408, 409, 429 and 5xx unless this header says otherwise.
    should = (b"x-should-retry", b"true" if problem.may_retry else b"false")
    if problem.retry_after_s is None:
        return (should,)
    wait_s = max(1, -int(-problem.retry_after_s // 1))
    return should, (b"retry-after", str(wait_s).encode())
