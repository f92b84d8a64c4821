"""Answers that are compressed, cut, in another encoding, or not JSON, over real HTTP."""

import asyncio
import gzip
import json
import math
import zlib

import pytest

from embedway.errors import ProtocolError, UnavailableError
from embedway.providers import http_body
from embedway.providers.http import JsonHttp
from embedway.providers.http_body import Body, Bounds, parse
from raw_server import RawServer, answer, post

GOOD = {"object": "list", "data": [{"index": 0, "embedding": [0.6, 0.8]}], "usage": {"total_tokens": 3}}
JSON = json.dumps(GOOD).encode()
ZIPPED = gzip.compress(JSON)
RAW_DEFLATE = zlib.compressobj(wbits=-15)
RAW_DEFLATE = RAW_DEFLATE.compress(JSON) + RAW_DEFLATE.flush()
GZIP, DEFLATE = "Content-Encoding: gzip", "Content-Encoding: deflate"
CHUNKED = "Transfer-Encoding: chunked"


def chunk(data):
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


READ = {
    "plain": answer(JSON),
    "text/plain": answer(JSON, content_type="text/plain"),
    "text/html": answer(JSON, content_type="text/html"),
    "no length": answer(JSON, length=False),
    "gzip": answer(ZIPPED, GZIP),
    "gzip twice": answer(gzip.compress(ZIPPED), "Content-Encoding: gzip, gzip"),
    "x-gzip": answer(ZIPPED, "Content-Encoding: x-gzip"),
    "gzip in two members": answer(gzip.compress(JSON[:20]) + gzip.compress(JSON[20:]), GZIP),
    "gzip without the header": answer(ZIPPED),
    "gzip without its checksum": answer(ZIPPED[:-8], GZIP),
    "gzip with padding": answer(ZIPPED + b"\0" * 16, GZIP),
    "header gzip, body plain": answer(JSON, GZIP),
    "header br, body plain": answer(JSON, "Content-Encoding: br"),
    "deflate": answer(zlib.compress(JSON), DEFLATE),
    "deflate without a header": answer(RAW_DEFLATE, DEFLATE),
    "header deflate, body plain": answer(b"\n " + JSON, DEFLATE),
    "identity": answer(JSON, "Content-Encoding: identity"),
    "chunked": answer(chunk(JSON[:9]) + chunk(JSON[9:]) + b"0\r\n\r\n", CHUNKED, length=False),
    "chunked, last chunk missing": answer(chunk(JSON), CHUNKED, length=False),
    "chunked gzip, last chunk missing": answer(chunk(ZIPPED), CHUNKED, GZIP, length=False),
    "length too long": answer(JSON, length=len(JSON) + 5),
    "byte-order mark": answer(b"\xef\xbb\xbf" + JSON),
    "utf-16": answer(JSON.decode().encode("utf-16")),
    "utf-16 without a mark": answer(JSON.decode().encode("utf-16-le")),
    "utf-32": answer(JSON.decode().encode("utf-32")),
    "latin-1 in a field": answer(JSON[:-1] + b', "model": "caf\xe9"}'),
    "a key twice": answer(b'{"data": null, "usage": 7, ' + JSON[1:]),
    "a tab in a field": answer(JSON[:-1] + b', "model": "a\tb"}'),
    "blanks around it": answer(b"\r\n\t " + JSON + b"\n\n"),
}
CUT, BAD = UnavailableError, ProtocolError
NOT_READ = {
    "cut": (answer(JSON[:-20], length=len(JSON)), CUT, "cut off"),
    "nothing of it": (answer(b"", length=len(JSON)), CUT, "cut off"),
    "gzip cut, length too": (answer(ZIPPED[: len(ZIPPED) // 2], GZIP), CUT, "cut off"),
    "gzip cut": (answer(ZIPPED[: len(ZIPPED) // 2], GZIP, length=len(ZIPPED)), CUT, "cut off"),
    "gzip without length cut": (answer(ZIPPED[:-30], GZIP, length=False), CUT, "cut off"),
    "deflate cut": (answer(zlib.compress(JSON)[:30], DEFLATE), CUT, "cut off"),
    "chunk cut": (answer(chunk(JSON)[:40], CHUNKED, length=False), CUT, "cut off"),
    "chunk size invalid": (answer(b"zz\r\n" + JSON, CHUNKED, length=False), BAD, "does not answer in HTTP"),
    "gzip corrupt": (answer(ZIPPED[:20] + b"\xff\xff\xff" + ZIPPED[23:], GZIP), BAD, "compression is corrupt"),
    "header gzip, body random": (answer(b"\x07\x08\x09" * 9, GZIP), BAD, "compression is corrupt"),
    "gzip in too many members": (answer(gzip.compress(b"") * 101 + ZIPPED, GZIP), BAD, "compression is corrupt"),
    "brotli": (answer(b"\x1b\x03\x00\xf8", "Content-Encoding: br"), BAD, "not requested"),
    "empty": (answer(b""), BAD, "is empty"),
    "blank": (answer(b" \n"), BAD, "is empty"),
    "no content": (answer(b"", status=204, length=False), BAD, "is empty"),
    "without length, cut": (answer(JSON[:40], length=False), CUT, "cut off"),
    "xml": (answer(b"<?xml version='1.0'?><Error/>", content_type="text/xml"), BAD, "is XML"),
    "an error as an event": (answer(b'data: {"error": {"code": 503}}\n\n'), CUT, "an error inside HTTP 200"),
    "half": (answer(JSON[: len(JSON) // 2]), BAD, "not valid JSON"),
    "html": (answer(b"<!DOCTYPE html><p>Sign in", content_type="text/html"), BAD, "a web page answered"),
    "html as json": (answer(b"\n<html>"), BAD, "a web page answered"),
    "text as html": (answer(b"Please sign in", content_type="text/html; charset=utf-8"), BAD, "a web page answered"),
    "text": (answer(b"upstream request timeout", content_type="text/plain"), BAD, "is not JSON"),
    "two documents": (answer(JSON + JSON), BAD, "more data after"),
    "lines of documents": (answer(JSON + b"\n" + JSON), BAD, "more data after"),
    "more text": (answer(JSON + b"<!-- page -->"), BAD, "more data after"),
    "events": (
        answer(b"data: " + JSON + b"\n\ndata: [DONE]\n\n", content_type="text/event-stream"),
        BAD,
        "stream of events",
    ),
    "deep": (answer(b"[" * 5_000), BAD, "not valid JSON"),
    "a long number": (answer(b'{"data": [1' + b"0" * 5000 + b"a]}"), BAD, "not valid JSON"),
    "a string": (answer(b'"data"'), None, ""),
}


@pytest.mark.parametrize("raw", READ.values(), ids=READ)
def test_a_complete_answer_is_read(raw):
    assert {**post(raw).body, "model": ""} == {**GOOD, "model": ""}


@pytest.mark.parametrize(("raw", "kind", "says"), NOT_READ.values(), ids=NOT_READ)
def test_any_other_answer_is_named_as_what_it_is_and_may_be_billed(raw, kind, says):
    if kind is None:
        assert post(raw).body == "data"
        return
    with pytest.raises(kind, match=says) as caught:
        post(raw)
    assert (type(caught.value), caught.value.billed) == (kind, True)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


NAN = ["NaN", "Infinity", "-Infinity", "nan", "-nan", "-nan(ind)", "inf", "+Inf", "1.#QNAN", "1e999"]


@pytest.mark.parametrize("literal", NAN)
def test_a_literal_that_is_not_finite_leaves_the_other_numbers(literal):
    text = f'{{"data": [{{"embedding": [1.5, {literal}, 2]}}, {{"embedding": [0.25,{literal}]}}], "model": "nan, inf"}}'
    value = parse(Body(text.encode())).value
    (first, middle, last), (other, end) = (row["embedding"] for row in value["data"])
    assert (first, last, other, value["model"]) == (1.5, 2, 0.25, "nan, inf") or literal not in NAN[:3]
    assert not math.isfinite(middle)
    assert not math.isfinite(end)


@pytest.mark.parametrize("encoding", [GZIP, DEFLATE])
def test_an_answer_that_unpacks_to_too_much_is_refused(monkeypatch, encoding):
    monkeypatch.setattr(http_body, "_MAX_BODY_BYTES", 100_000)
    packed = gzip.compress(b" " * 200_000) if encoding == GZIP else zlib.compress(b" " * 200_000)
    with pytest.raises(ProtocolError, match="too large"):
        post(answer(packed, encoding))
    with pytest.raises(ProtocolError, match="too large"):
        post(answer(b" " * 200_000))
    with pytest.raises(ProtocolError, match="too large"):
        post(answer(b" " * 200_000, length=False))


TOO_MUCH = {
    "lists": b'{"data":[' + b"[]," * 300_000 + b"[]]}",
    "objects": b'{"data":[' + b'{"a":{}},' * 100_000 + b"{}]}",
    "numbers": b'{"data":[' + b"1," * 500_000 + b"1]}",
    "literals": b'{"data":[' + b"nan," * 250_000 + b"1]}",
    "fields": b"{" + b",".join(b'"%d":1' % number for number in range(100_000)) + b"}",
    "rows": b'{"data":[' + b'{"index":0,"embedding":[1]},' * 30_000 + b"{}]}",
}


@pytest.mark.parametrize("content", TOO_MUCH.values(), ids=list(TOO_MUCH))
def test_an_answer_with_more_values_than_its_texts_need_is_refused_before_it_is_parsed(monkeypatch, content):
    assert len(content) < Bounds.of(1, 0).content
    monkeypatch.setattr(http_body, "orjson", None)
    with pytest.raises(ProtocolError, match="too large"):
        post(answer(gzip.compress(content, 1), GZIP))


@pytest.mark.parametrize("compressed", [True, False])
def test_the_size_of_an_answer_is_bounded_by_the_number_of_its_texts(compressed):
    content = json.dumps({**GOOD, "more": "a" * 3_000_000}).encode()
    raw = answer(gzip.compress(content, 1), GZIP) if compressed else answer(content)
    assert post(raw, texts=12).body["data"] == GOOD["data"]
    with pytest.raises(ProtocolError, match="too large"):
        post(raw, texts=1)


def test_of_an_error_only_the_beginning_is_read():
    content = b'{"error": "' + b"a" * 60_000_000 + b'"}'
    with pytest.raises(UnavailableError) as caught:
        post(answer(gzip.compress(content, 1), GZIP, status=503))
    assert caught.value.status == 503
    with pytest.raises(UnavailableError):
        post(answer(content[:3_000_000], status=503))


def test_the_largest_vectors_are_within_the_bounds():
    row = {"object": "embedding", "index": 0, "embedding": [-0.1234567890123456789] * 8192}
    content = json.dumps({"data": [row] * 50}).encode()
    assert len(parse(Body(content), Bounds.of(50, 0)).value["data"]) == 50
    assert len(content) < Bounds.of(50, 0).content


def test_only_compressions_of_the_standard_library_are_requested():
    async def request():
        server = RawServer(lambda _: answer(JSON))
        async with server.running() as url:
            http = JsonHttp(url, route="r", headers={})
            await http.post("/embeddings", {})
            await http.aclose()
        return server.requests[0][0].lower()

    assert b"accept-encoding: gzip, deflate\r\n" in asyncio.run(request())
