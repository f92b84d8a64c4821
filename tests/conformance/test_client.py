"""The client shows nothing of the key, and bounds what it repeats."""

import asyncio

import pytest
from aiohttp import web

from embedway.conformance.client import Client, message_of
from embedway.conformance.target import parse_place
from embedway.conformance.verdicts import NoAnswerError, passed
from serving import serving, serving_app

KEY = "sk-key-of-the-client"


def asked(handle, **options):
    async def main():
        app = web.Application()
        app.router.add_route("*", "/v1/embeddings", handle)
        async with serving_app(app) as port:
            place = parse_place(f"http://127.0.0.1:{port}", key=KEY, **options)
            async with Client(place) as client:
                return await client.post(f"{place.base_urls[0]}/embeddings", {"input": "a"})

    return asyncio.run(main())


def test_a_message_that_repeats_the_key_is_shown_without_it_on_one_short_line():
    async def answer(request):
        message = f"\x1b[31mwrong key\n{request.headers['Authorization']}" + " x" * 500
        return web.json_response({"error": {"message": message}}, status=400)

    answer = asked(answer)
    assert answer.shown.startswith("400 ([31mwrong key Bearer *** x x")
    assert len(answer.shown) < 140
    assert (answer.is_refusal, answer.is_ok, KEY in repr(answer.message)) == (True, False, False)


def test_the_place_does_not_show_the_key():
    assert KEY not in repr(parse_place("http://127.0.0.1", key=KEY))


def test_a_busy_server_is_asked_again_when_it_says_and_counted():
    waits, given = [], iter([(429, {"Retry-After": "7"}), (503, {}), (200, {})])

    async def answer(request):
        status, headers = next(given)
        return web.json_response({}, status=status, headers=headers)

    async def main():
        app = web.Application()
        app.router.add_post("/v1/embeddings", answer)
        async with serving_app(app) as port:

            async def sleep(seconds):
                waits.append(seconds)

            async with Client(parse_place(f"http://127.0.0.1:{port}"), sleep=sleep) as client:
                last = await client.post(f"http://127.0.0.1:{port}/v1/embeddings", {})
                return last.status, client.busy_answers

    assert asyncio.run(main()) == (200, [True, False])
    assert waits == [7.0, 0.5]


def test_an_answer_that_is_too_large_is_no_answer():
    async def answer(request):
        return web.json_response({"data": ["[" * 1000] * 3000})

    with pytest.raises(NoAnswerError, match="larger than any answer"):
        asked(answer)


def test_an_answer_that_drips_ends_in_time():
    async def answer(request):
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.005)

    with pytest.raises(NoAnswerError, match=r"no complete answer within 0.3 s"):
        asked(answer, timeout_s=0.3)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "a"}}, "a"),
        ({"error": "b"}, "b"),
        ({"detail": "c"}, "c"),
        ({"detail": [{"msg": "d"}]}, ""),
        ([], ""),
        (None, ""),
    ],
)
def test_messages_of_errors(body, message):
    assert message_of(body) == message


def test_what_was_seen_is_one_short_line():
    seen = passed("a\x1b[2J\nb" + " c" * 1000).seen
    assert seen.startswith("a [2J b c c")
    assert len(seen) == 300


def test_a_connection_that_was_closed_between_requests_is_replaced():
    """The server closes each connection after one answer, without saying so in it."""
    body = b'{"data": []}'

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        await reader.readuntil(b"\r\n\r\n")

    async def main():
        async with serving(answer) as port, Client(parse_place(f"http://127.0.0.1:{port}")) as client:
            return [(await client.get(f"http://127.0.0.1:{port}/v1/models")).status for _ in range(5)]

    assert asyncio.run(main()) == [200] * 5
