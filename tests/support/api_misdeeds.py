"""Faults of upstreams: tables of faults, by name, that every loopback server supports.

`WIRE` applies to the bytes of any API. `LIST`, `INDEX`, `NO_INDEX` and `NUMBERS` apply to a good answer: to its list of
rows, to the rows' indexes (if the API has them), and to the numbers of a row.
"""

import asyncio
import base64
import email.utils
import json

import numpy as np
from aiohttp import web

#: Server that received a request.
SERVER = web.AppKey("server", object)


def dumps(value):
    """Return JSON as careless servers write it, with NaN."""
    return json.dumps(value, allow_nan=True)


def as_base64(vector):
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()


def error(status, code, message="", **headers):
    return web.json_response(
        {"error": {"message": message, "type": code, "code": code}}, status=status, headers=headers
    )


async def echo(request):
    """Return the complete request, key and texts: an upstream may repeat it, and none of it may reach a log."""
    return f"you sent {dict(request.headers)} and {await request.text()}"


async def started(request, length):
    response = web.StreamResponse(headers={"Content-Length": str(length), "Content-Type": "application/json"})
    await response.prepare(request)
    return response


async def reset(request, text):
    """Send half of the body, then cut the connection."""
    response = await started(request, len(text))
    await response.write(text[: len(text) // 2].encode())
    request.transport.abort()
    return response


async def slow(request, text):
    """Send the first byte, then nothing."""
    response = await started(request, 1000)
    await response.write(b"{")
    await asyncio.Event().wait()


async def drip(request, text):
    """Send a byte every few milliseconds, so that a timeout per read never expires."""
    response = await started(request, 10**6)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.005)


async def stall(request, text):
    """Send no answer."""
    await asyncio.Event().wait()


async def hang_up(request, text):
    request.transport.abort()
    return web.Response()


async def bad_status_line(request, text):
    line = f"HTTP/1.1 TWO-HUNDRED {await echo(request)}".replace("\n", " ").replace("\r", " ")
    request.transport.write(f"{line}\r\n\r\n".encode())
    request.transport.close()
    return web.Response()


def status(code, **headers):
    """Return a fault: a status with an error in the API's own shape."""

    async def answered(request, text):
        response = request.app[SERVER].failure(code, await echo(request))
        response.headers.update(headers)
        return response

    return answered


async def exhausted(request, text):
    """Report an exhausted quota as OpenAI does; others use status 402, or prose alone."""
    return error(429, "insufficient_quota", await echo(request))


async def html(request, text):
    return web.Response(text=f"<html><body>Welcome, {await echo(request)}</body></html>", content_type="text/html")


async def html_error(request, text):
    page = f"<html>502 Bad Gateway: {await echo(request)}</html>"
    return web.Response(text=page, content_type="text/html", status=502)


async def elsewhere(request, text):
    return web.Response(status=307, headers={"Location": "https://elsewhere.invalid/"})


async def half_json(request, text):
    return web.Response(text=text[: len(text) * 2 // 3], content_type="application/json")


PAST = email.utils.formatdate(0, usegmt=True)
WIRE = {
    "reset": reset,
    "slow": slow,
    "drip": drip,
    "stall": stall,
    "hang up": hang_up,
    "bad status line": bad_status_line,
    "html": html,
    "html error": html_error,
    "redirect": elsewhere,
    "half json": half_json,
    "400": status(400),
    "401": status(401),
    "402": status(402),
    "403": status(403),
    "404": status(404),
    "408": status(408),
    "409": status(409),
    "413": status(413),
    "422": status(422),
    "429": status(429),
    "429 at once": status(429, **{"Retry-After": "0"}),
    "429 later": status(429, **{"Retry-After": "17"}),
    "429 in an hour": status(429, **{"Retry-After": "3600"}),
    "429 date": status(429, **{"Retry-After": PAST}),
    "429 quota": exhausted,
    "500": status(500),
    "501": status(501),
    "502": status(502),
    "503": status(503, **{"Retry-After": "4"}),
    "503 at once": status(503, **{"Retry-After": "0"}),
    "504": status(504),
}

#: Functions from the rows of a good answer to other rows.
LIST = {
    "short": lambda rows: rows[:-1],
    "long": lambda rows: [*rows, rows[0]],
    "twice": lambda rows: [*rows, *rows],
    "no rows": lambda rows: [],
    "a null row": lambda rows: [None, *rows[1:]],
    "an empty row": lambda rows: [*rows[:-1], {}],
    "a list for a row": lambda rows: [*rows[:-1], []],
    "rows as a table": lambda rows: {str(number): row for number, row in enumerate(rows)},
    "rows as null": lambda rows: None,
}


def of_first(index):
    return lambda rows: [{**rows[0], "index": index}, *rows[1:]]


#: Orders that the index corrects.
ORDERS = {
    "reversed": lambda rows: rows[::-1],
    "turned": lambda rows: [*rows[1:], rows[0]],
    "shuffled": lambda rows: [*rows[1::2], *rows[::2]],
}
#: Invalid indexes.
INDEX = {
    "a gap": lambda rows: [*rows[:-1], {**rows[-1], "index": len(rows)}],
    "far off": of_first(10**6),
    "negative": of_first(-1),
    "a repeated index": lambda rows: [*rows[:-1], {**rows[-1], "index": -1 if len(rows) == 1 else rows[0]["index"]}],
    "true for an index": of_first(True),
    "an index as text": of_first("0"),
    "an index with a point": of_first(0.0),
    "indexes from 1": lambda rows: [{**row, "index": row["index"] + 1} for row in rows],
}


def without_index(row):
    return {key: value for key, value in row.items() if key != "index"}


#: Missing indexes; the others are those of the positions.
NO_INDEX = {
    "a null index": lambda rows: [{**rows[0], "index": None}, *rows[1:]],
    "no index of 0": lambda rows: [row if row["index"] else without_index(row) for row in rows],
    "no last index": lambda rows: [*rows[:-1], without_index(rows[-1])],
    "null indexes": lambda rows: [{**row, "index": None} for row in rows],
    "no indexes": lambda rows: [without_index(row) for row in rows],
}

#: Functions from a good vector, and the writer of the requested encoding, to the answered value.
NUMBERS = {
    "a null number": lambda vector, write: [None, *vector.tolist()[1:]],
    "NaN": lambda vector, write: write(np.full_like(vector, np.nan)),
    "one NaN": lambda vector, write: write(np.where(np.arange(len(vector)) == 1, np.nan, vector)),
    "infinity": lambda vector, write: write(np.where(np.arange(len(vector)) == 1, np.inf, vector)),
    "zeros": lambda vector, write: write(np.zeros_like(vector)),
    "256 zeros": lambda vector, write: write(np.zeros(256)),
    "256 zeros as a list": lambda vector, write: [0.0] * 256,
    "256 zeros as base64": lambda vector, write: as_base64(np.zeros(256)),
    "a number less": lambda vector, write: write(vector[:-1]),
    "a number more": lambda vector, write: write(np.append(vector, 0.5)),
    "base64 cut within a number": lambda vector, write: base64.b64encode(vector.tobytes()[:-3]).decode(),
    "base64 cut": lambda vector, write: as_base64(vector)[:-1],
    "no base64": lambda vector, write: "not base64!",
    "an empty vector": lambda vector, write: [],
    "null": lambda vector, write: None,
    "a number": lambda vector, write: 0.5,
    "a list in a list": lambda vector, write: [vector.tolist()],
    "words": lambda vector, write: ["one"] * len(vector),
}
#: The other encoding is harmless: the numbers are right.
ENCODINGS = {
    "a list": lambda vector, write: vector.tolist(),
    "base64": lambda vector, write: as_base64(vector),
}


def spoil(server, body, answer, misdeed):
    """Apply a fault of the tables to a good answer. A fault of numbers changes every row, with `first: ` one row."""
    rows = server.rows(answer)
    change = {**LIST, **ORDERS, **INDEX, **NO_INDEX}.get(misdeed)
    if change is not None:
        return server.with_rows(answer, change(rows))
    if misdeed == "no field":
        return server.without_rows(answer)
    name = misdeed.removeprefix("first: ")
    write = {**NUMBERS, **ENCODINGS}[name]
    until = len(rows) if name == misdeed else 1
    changed = [server.with_numbers(row, write(server.numbers(row), server.writes(body))) for row in rows[:until]]
    return server.with_rows(answer, [*changed, *rows[until:]])
