"""Log lines of calls to real servers: retries, failovers and rows that failed, without texts, keys and addresses."""

import asyncio
import contextlib
import logging

import pytest

from api_misdeeds import error
from api_servers import KEY, OpenAIServer
from embedway import AsyncEmbedder, Config
from embedway.errors import EmbedwayError, InputError
from embedway.pipeline.failed_rows import FailedRows

TEXTS = [f"a private text {number}" for number in range(20)]


class Refusing(OpenAIServer):
    """Server that refuses texts with a word, and repeats them, the key and its own address."""

    width = 1536
    #: Status of every answer; None for good answers.
    status = None

    def refusal(self, request, body):
        said = f"{body} {dict(request.headers)} {request.url}"
        if self.status is not None:
            return error(self.status, "code_of_the_error", said)
        if any("poison" in text for text in body["input"]):
            return error(400, "invalid_request_error", said)
        return None


@contextlib.asynccontextmanager
async def embedder_of(*servers, **more):
    async with contextlib.AsyncExitStack() as stack:
        overrides = {"cache.backend": "none", "ledger.backend": "none", "upstream.first_wait_s": 0.001, **more}
        for number, server in enumerate(servers):
            await stack.enter_async_context(server.running())
            facts = {"model": "text-embedding-3-small", "provider": "openai", "api_key": KEY}
            facts |= {"base_url": f"{server.url}/v1", "same_space": number > 0}
            overrides[f"routes.r{number}"] = facts
        yield await stack.enter_async_context(AsyncEmbedder(config=Config.load(environ={}, overrides=overrides)))


@pytest.fixture
def lines(caplog):
    """Return a function that returns the level and message of each line so far, which have nothing private."""
    caplog.set_level(logging.INFO, "embedway")

    def read():
        found = [(one.levelname, one.getMessage()) for one in caplog.records if one.name.startswith("embedway")]
        for _, message in found:
            assert not [word for word in ("private", "poison", KEY, "127.0.0.1") if word in message]
        return found

    return read


def embedded(*servers, texts=TEXTS, **options):
    async def main():
        async with embedder_of(*servers) as embedder:
            return await embedder.embed(texts, model="text-embedding-3-small", **options)

    return asyncio.run(main())


def test_a_good_call_writes_no_line(lines):
    embedded(Refusing())
    assert lines() == []


def test_a_retry_is_one_line(lines):
    server = Refusing()
    server.misdeeds = ["503 at once"]
    embedded(server)
    assert [level for level, _ in lines()] == ["INFO"]
    assert lines()[0][1].startswith("route routes.r0: 20 texts are sent again in 0.0 s, after attempt 1: Unavail")


def test_refused_rows_are_one_line_with_their_rows(lines):
    texts = [*TEXTS, "poison", *TEXTS, "poison", ""]
    result = embedded(Refusing(), texts=texts, partial=True)
    assert sorted(result.errors) == [20, 41, 42]
    warnings = [message for level, message in lines() if level == "WARNING"]
    assert warnings == [
        "3 of 43 texts for text-embedding-3-small failed: rows 20, 41: RefusedInputError 400; row 42: InputError"
    ]


def test_the_row_of_an_error_that_is_raised_is_one_line(lines):
    with pytest.raises(EmbedwayError):
        embedded(Refusing(), texts=[*TEXTS, "poison"])
    rows = [(level, message) for level, message in lines() if message.startswith("row ")]
    expected = "row 20 of 21 texts for text-embedding-3-small failed, and so did the call: RefusedInputError 400"
    assert rows == [("INFO", expected)]


def test_many_refused_rows_are_one_line(caplog):
    caplog.set_level(logging.INFO, "embedway")
    with FailedRows("acme/m", 10_000) as failed:
        failed.errors = {row: InputError("private", row=row) for row in range(10_000)}
    (line,) = caplog.messages
    assert line == (
        "10000 of 10,000 texts for acme/m failed: rows 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 9,990 more: InputError"
    )


def test_another_route_is_one_warning(lines):
    first, second = Refusing(), Refusing()
    first.status = 401
    embedded(first, second)
    failovers = [(level, message) for level, message in lines() if "sent to" in message]
    expected = "route routes.r0 failed (AuthenticationError 401): 20 texts are sent to route routes.r1"
    assert failovers == [("WARNING", expected)]


def test_a_circuit_that_opens_is_one_warning(lines):
    first, second = Refusing(), Refusing()
    first.status = 500

    async def main():
        async with embedder_of(first, second) as embedder:
            for number in range(30):
                await embedder.embed([f"a private text {number}"], model="text-embedding-3-small")

    asyncio.run(main())
    opened = [level for level, message in lines() if "several times in a row" in message]
    assert opened == ["WARNING"]
    assert len([level for level, _ in lines() if level == "WARNING"]) < 12
