"""Every provider of a service against its own strict server with faults: one suite for all."""

import asyncio
import importlib.metadata
import logging
from collections import Counter

import pytest

from api_misdeeds import ENCODINGS, INDEX, LIST, NO_INDEX, NUMBERS, ORDERS
from api_servers import KEY
from embedway.catalog.services import default_services
from embedway.dispatch.proofs import ORDER_TEXTS
from embedway.errors import (
    AuthenticationError,
    BadVectorsError,
    ConfigError,
    DeadlineError,
    EmbedwayError,
    ProtocolError,
    RateLimitedError,
    RefusedInputError,
    UnavailableError,
)
from embedway.providers.base import Endpoint
from embedway.providers.registry import PROVIDERS, make_provider
from embedway.providers.usage import MOST_COUNT
from provider_suite import (
    APIS,
    FAILURES,
    INDEXED,
    MODEL,
    NEVER_ENDING,
    TEXTS,
    all_said,
    ask,
    assert_right,
    assert_tells_no_secret,
    embed,
    embedder_for,
    limited,
    opened,
    timeout_for,
)

#: Tested in `test_fake.py`, and with real models in `test_base_peers.py`.
ELSEWHERE = {"fake", "fastembed", "sentence-transformers"}
BAD_ANSWERS = [*LIST, "no field", *NUMBERS, *(f"first: {name}" for name in ("one NaN", "a number less", "zeros"))]


@pytest.fixture(params=sorted(APIS))
def name(request):
    return request.param


@pytest.fixture
def server(name):
    return APIS[name].serve()


@pytest.fixture(autouse=True)
def log(caplog):
    caplog.set_level(logging.DEBUG)
    return caplog


def test_every_provider_is_in_a_suite():
    ours = {entry.name for entry in importlib.metadata.entry_points(group=PROVIDERS) if "embedway." in entry.value}
    assert ours == {name.partition(" ")[0] for name in APIS} | ELSEWHERE


# Right answers: from the provider alone, and through the engine.


@pytest.mark.parametrize(("input_type", "prompt"), [("query", "query: "), ("document", "")])
def test_rows_input_types_and_what_they_cost(name, server, input_type, prompt):
    result = embed(name, server, [*TEXTS, TEXTS[0]], input_type=input_type)
    assert_right(result.vectors, [prompt + text for text in [*TEXTS, TEXTS[0]]], server)
    receipt = result.receipt
    assert (receipt.attempts, receipt.billed_tokens) == (1, sum(map(server.billed, server.log[0].texts)))
    assert [served.fate for served in server.log] == ["answered"]


def test_one_call_is_one_request_with_its_own_usage(name, server):
    answer = ask(name, server)
    assert_right(answer.vectors, TEXTS, server)
    assert answer.tokens == sum(map(server.billed, server.log[0].texts))
    assert len(server.log) == 1


def test_narrow_vectors_are_of_length_1_too(name, server):
    result = embed(name, server, dimensions=256)
    assert_right(result.vectors, TEXTS, server, width=256)


def test_widths_are_asked_for_only_where_they_are_not_the_service_s_own(name, server):
    async def main():
        async with opened(name, server) as provider:
            await provider.embed(TEXTS, input_type="document", dimensions=None)
            if provider.declared.dimensions:
                answer = await provider.embed(TEXTS, input_type="document", dimensions=256)
                assert_right(answer.vectors, TEXTS, server, width=256)

    asyncio.run(main())
    assert [server.asked_width(body) for body in server.bodies] in ([None], [None, 256])


#: Catalog models whose tokens are counted without a download, and the default width of the service's answers.
UNASKED = {
    ("openai", "text-embedding-3-small"): 1536,
    ("openai", "text-embedding-3-large"): 3072,
    ("openai", "text-embedding-ada-002"): 1536,
    ("cohere", "embed-v4.0"): 1536,
    ("voyage", "voyage-code-4"): 1024,
    ("mistral", "codestral-embed"): 1536,
    ("gemini", "gemini-embedding-001"): 3072,
    ("gemini later", "gemini-embedding-2"): 3072,
}


@pytest.mark.parametrize(("name", "model"), UNASKED)
def test_every_size_of_the_catalog_is_available_from_the_service(name, model, server):
    server.width = UNASKED[name, model]
    facts = default_services()[model]
    assert facts.default_dimensions == server.width

    async def main():
        listed = {"routes.r.model": model, "routes.r.upstream_model": model}
        async with embedder_for(name, server, **listed) as embedder:
            for size in (None, *facts.sizes):
                result = await embedder.embed(TEXTS, model=model, dimensions=size)
                assert_right(result.vectors, TEXTS, server, width=size)
                assert result.space.dimensions == (size or server.width)

    asyncio.run(main())
    assert [served.fate for served in server.log] == ["answered"] * (1 + len(facts.sizes))


def test_texts_go_as_they_are(name, server):
    texts = [" Polish ", "polish", "a\x00b", "漢字 😀", "\ttab\nline"]
    assert_right(ask(name, server, texts).vectors, texts, server)


def test_calls_at_once_keep_their_own_rows(name, server):
    async def main():
        async with opened(name, server) as provider:
            groups = [[f"{number} {text}" for text in TEXTS] for number in range(8)]
            calls = (provider.embed(texts, input_type="document", dimensions=None) for texts in groups)
            for texts, answer in zip(groups, await asyncio.gather(*calls), strict=True):
                assert_right(answer.vectors, texts, server)

    asyncio.run(main())


def test_keys_travel_in_headers_alone(name, server):
    ask(name, server)
    assert KEY not in repr(server.bodies) + repr(server.queries)
    assert any(KEY in value for value in server.headers[0].values())


def test_a_refused_key_is_read_again_from_its_file(name, server, tmp_path):
    path = tmp_path / "key"
    path.write_text("sk-wrong")

    async def main():
        more = {"secret": "sk-old", "headers": {"x-team": "a"}, "files": {"": path}}
        async with opened(name, server, **more) as provider:
            with pytest.raises(AuthenticationError):
                await provider.embed(TEXTS, input_type="document", dimensions=None)
            path.write_text(KEY)
            await provider.embed(TEXTS, input_type="document", dimensions=None)

    asyncio.run(main())
    assert {headers["x-team"] for headers in server.headers} == {"a"}
    # The file was read before its first request, so that one was refused once.
    assert len(server.headers) == 2


def test_without_a_key_it_says_which_variable_to_set(name, server):
    if name.startswith("openai-compatible"):
        with pytest.raises(AuthenticationError):  # a local server may need no key; this one does
            ask(name, server, secret="")
        return
    with pytest.raises(ConfigError, match=r"r: api_key: is not set; set \w+_API_KEY"):
        ask(name, server, secret="")
    assert server.bodies == []


def test_a_wrong_key_is_distinguished_from_a_refused_text(name, server, log):
    wrong = KEY.replace("secret", "wrong")
    with pytest.raises(AuthenticationError, match="check api_key") as caught:
        ask(name, server, secret=wrong)
    assert wrong not in all_said(caught.value) + log.text


# Answers that are corrected, or are errors.


@pytest.mark.parametrize("name", INDEXED)
@pytest.mark.parametrize("order", ORDERS)
def test_the_index_decides_and_not_the_order(name, server, order):
    server.misdeeds = [order]
    assert_right(embed(name, server).vectors, TEXTS, server)
    assert len(server.log) == 1


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_numbers_in_the_other_encoding_are_read_too(name, server, encoding):
    server.misdeeds = [encoding]
    assert_right(embed(name, server).vectors, TEXTS, server)
    assert len(server.log) == 1


def assert_put_right_once_and_an_error_twice(name, server, misdeed, log):
    """Check that one bad answer is retried, and that a second is an error of the route."""

    async def main():
        async with embedder_for(name, server) as embedder:
            server.misdeeds = [misdeed]
            assert_right((await embedder.embed(TEXTS, model=MODEL)).vectors, TEXTS, server)
            assert len(server.log) == 2
            server.misdeeds = [misdeed] * 3
            with pytest.raises((BadVectorsError, ProtocolError), match=r"routes\.r: ") as caught:
                await embedder.embed(TEXTS, model=MODEL)
            assert len(server.log) == 4
        assert_tells_no_secret(all_said(caught.value) + log.text)

    asyncio.run(main())


@pytest.mark.parametrize("misdeed", BAD_ANSWERS)
def test_a_bad_answer_is_asked_for_again_once(name, server, misdeed, log):
    assert_put_right_once_and_an_error_twice(name, server, misdeed, log)


@pytest.mark.parametrize("name", INDEXED)
@pytest.mark.parametrize("misdeed", INDEX)
def test_an_index_that_cannot_be_right_is_a_bad_answer(name, server, misdeed, log):
    assert_put_right_once_and_an_error_twice(name, server, misdeed, log)


@pytest.mark.parametrize("name", INDEXED)
@pytest.mark.parametrize("kind", NO_INDEX)
def test_rows_without_an_index_are_read_by_position_after_one_probe(name, server, kind, log):
    server.misdeeds = [kind] * 20

    async def main():
        async with embedder_for(name, server) as embedder:
            alone = await embedder.embed(TEXTS[:1], model=MODEL)
            assert len(server.log) == 1  # one text has one position
            assert alone.receipt.notes == ()
            both = await asyncio.gather(*(embedder.embed(TEXTS, model=MODEL) for _ in range(4)))
            sent = len(server.log)
            again = await embedder.embed(TEXTS, model=MODEL)
        assert len(server.log) == sent + 1
        return alone, [*both, again], sent

    alone, results, sent = asyncio.run(main())
    assert_right(alone.vectors, TEXTS[:1], server)
    for result in results:
        assert_right(result.vectors, TEXTS, server)
        assert len(result.receipt.notes) == 1
        assert "routes.r answers without index" in result.receipt.notes[0]
    probes = [served for served in server.log if set(served.texts) <= set(ORDER_TEXTS)]
    assert [len(probe.texts) for probe in probes] == [1, 1, 16]
    assert sent <= 1 + 4 + len(probes)
    assert sum("answers without index" in record.message for record in log.records) == 1


@pytest.mark.parametrize("name", INDEXED)
@pytest.mark.parametrize("order", ORDERS)
def test_a_missing_index_beside_one_out_of_place_is_a_bad_answer(name, server, order, log):
    def misdeed(answer):
        rows = ORDERS[order](server.rows(answer))
        return server.with_rows(answer, [{**rows[0], "index": None}, *rows[1:]])

    assert_put_right_once_and_an_error_twice(name, server, misdeed, log)


@pytest.mark.parametrize("name", INDEXED)
@pytest.mark.parametrize("order", ORDERS)
def test_another_order_without_an_index_is_never_believed(name, server, order, log):
    def misdeed(answer):
        rows = NO_INDEX["no indexes"](ORDERS[order](server.rows(answer)))
        return server.with_rows(answer, rows)

    server.misdeeds = [misdeed] * 50

    async def main():
        async with embedder_for(name, server) as embedder:
            with pytest.raises(
                BadVectorsError, match=r"routes\.r: .*order .* not be proved.*max_inputs = 1 in"
            ) as caught:
                await embedder.embed(TEXTS, model=MODEL)
            sent = len(server.log)
            with pytest.raises(BadVectorsError):  # nothing more is sent and paid for
                await embedder.embed(TEXTS, model=MODEL)
            assert len(server.log) == sent == 4
            one = await embedder.embed(TEXTS[:1], model=MODEL)
        assert_right(one.vectors, TEXTS[:1], server)
        assert_tells_no_secret(all_said(caught.value) + log.text)

    asyncio.run(main())


@pytest.mark.parametrize("shape", [[], "text", 3, {}, {"data": 3, "embeddings": 3}, [{"index": 0}]], ids=repr)
def test_another_shape_of_answer_is_a_bad_answer(name, server, shape, log):
    assert_put_right_once_and_an_error_twice(name, server, lambda answer: shape, log)


@pytest.mark.parametrize(
    ("tokens", "read"),
    [
        *((nothing, None) for nothing in (None, "nine", "-9", -1, 2.5, [], True)),
        *((nine, 9) for nine in (9, 9.0, "9", "9.0")),
        *((too_many, MOST_COUNT) for too_many in (10**12, 10**30, 1e30)),
    ],
)
def test_usage_is_a_count_however_it_is_written(name, server, tokens, read):
    def spoil(answer):
        replaced = {"usage": {"total_tokens": tokens}, "meta": {"billed_units": {"input_tokens": tokens}}}
        replaced["usageMetadata"] = {"promptTokenCount": tokens}
        return {**answer, **{key: value for key, value in replaced.items() if key in answer}}

    server.misdeeds = [spoil]
    assert ask(name, server).tokens == read


# Failures of the connection and of the service.


@pytest.mark.parametrize("misdeed", FAILURES)
def test_each_failure_is_its_own_error_once_and_contains_no_secret(name, server, misdeed, log):
    server.misdeeds = [misdeed]
    with pytest.raises(EmbedwayError) as caught:
        ask(name, server, timeout_s=timeout_for(misdeed))
    assert type(caught.value) is FAILURES[misdeed][0]
    assert str(caught.value).startswith("r: ")
    assert len(server.log) == 1
    assert server.cancelled == (misdeed in NEVER_ENDING)
    assert_tells_no_secret(all_said(caught.value) + log.text)


@pytest.mark.parametrize("misdeed", FAILURES)
def test_what_passes_is_tried_again_and_what_lasts_is_not(name, server, misdeed, log):
    kind, again = FAILURES[misdeed]
    server.misdeeds = [misdeed]
    settings = {"upstream.timeout_s": timeout_for(misdeed)}
    if again:
        assert_right(embed(name, server, TEXTS[:1], settings=settings).vectors, TEXTS[:1], server)
        assert len(server.log) == 2
        return
    with pytest.raises(kind) as caught:
        embed(name, server, TEXTS[:1], settings=settings)
    assert len(server.log) == 1
    assert_tells_no_secret(all_said(caught.value) + log.text)


@pytest.mark.parametrize("misdeed", ["500", "429", "reset", "hang up", "html error"])
def test_a_storm_ends_when_the_attempts_are_used_up(name, server, misdeed, log):
    server.misdeeds = [misdeed] * 20
    with pytest.raises(FAILURES[misdeed][0]) as caught:
        embed(name, server, settings={"upstream.max_attempts": 4})
    assert max(Counter(text for served in server.log for text in served.texts).values()) == 4
    assert_tells_no_secret(all_said(caught.value) + log.text)


@pytest.mark.parametrize(
    ("misdeed", "seconds"),
    [("429 later", 17.0), ("429 at once", 0.0), ("429 date", 0.0), ("429", None), ("503", 4.0), ("500", None)],
)
def test_the_wait_that_the_service_requests_is_reported(name, server, misdeed, seconds):
    server.misdeeds = [misdeed]
    with pytest.raises((RateLimitedError, UnavailableError)) as caught:
        ask(name, server)
    assert caught.value.retry_after_s == seconds


@pytest.mark.parametrize("misdeed", ["429 later", "503"])
def test_a_wait_past_the_deadline_is_not_begun(name, server, misdeed):
    server.misdeeds = [misdeed]
    with pytest.raises(DeadlineError):
        embed(name, server, settings={"upstream.deadline_s": 2.0})
    assert len(server.log) == 1


@pytest.mark.parametrize("misdeed", ["stall", "slow"])
def test_cancelling_ends_the_request_at_the_server(name, server, misdeed):
    async def main():
        server.misdeeds = [misdeed]
        async with opened(name, server) as provider:
            task = asyncio.create_task(provider.embed(TEXTS, input_type="document", dimensions=None))
            await server.arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await server.deserted()
            # The provider still works.
            answer = await provider.embed(TEXTS, input_type="document", dimensions=None)
            assert_right(answer.vectors, TEXTS, server)

    asyncio.run(main())
    assert server.cancelled == 1


def test_cancelling_a_call_ends_its_requests_and_sends_no_more(name, server, monkeypatch):
    limited(monkeypatch, 1)

    async def main():
        server.misdeeds = ["stall"] * 10
        async with embedder_for(name, server, **{"upstream.concurrency": 2}) as embedder:
            task = asyncio.create_task(embedder.embed([f"text {number}" for number in range(10)], model=MODEL))
            await server.arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await server.deserted()

    asyncio.run(main())
    assert 1 <= server.cancelled == len(server.log) <= 2


# Limits.


def test_no_more_is_declared_than_the_service_takes(name, server):
    async def main():
        async with opened(name, server) as provider:
            return provider.declared

    declared = asyncio.run(main())
    assert declared.max_inputs <= server.most
    if server.max_request_tokens is not None:
        assert declared.max_request_tokens is not None
        assert declared.max_request_tokens <= server.max_request_tokens


def test_a_request_over_the_limit_on_texts_would_be_refused(name, server):
    texts = ["a"] * (server.most + 1)
    with pytest.raises(RefusedInputError):
        ask(name, server, texts)
    fresh = APIS[name].serve()
    fresh.width = 8
    assert len(ask(name, fresh, texts[1:]).vectors) == server.most


@pytest.mark.parametrize("name", sorted(set(APIS) - {"gemini", "gemini later"}))  # which has no option to refuse
def test_the_service_is_asked_to_refuse_a_long_text_and_not_to_cut_it(name, server):
    with pytest.raises(RefusedInputError):
        ask(name, server, ["short", "word " * (server.max_tokens + 1)])


def test_many_texts_are_split_by_the_limit_on_texts(name, server):
    server.width = 8
    texts = [f"{number} of many" for number in range(2 * server.most + 3)]
    assert_right(embed(name, server, texts).vectors, texts, server)
    assert not server.refused
    assert len(server.log) >= 3


def by_the_estimate(text):
    """Return the estimated tokens for models without a published tokenizer: three bytes each."""
    return -(-len(text.encode()) // 3)


@pytest.mark.parametrize("name", [name for name, api in APIS.items() if api.server.max_request_tokens is not None])
def test_long_texts_are_split_by_the_limit_on_a_request_s_tokens(name, server):
    server.width = 8
    if APIS[name].tokenizer == "estimate":
        server.count = by_the_estimate
    # As long as a text may be, but a request has room for more than one; and enough texts for a second request.
    tokens = min(server.max_tokens, server.max_request_tokens // 3) - 10
    long = "a b c " * (100 * tokens // server.count("a b c " * 100))
    texts = [f"{number:04} {long}" for number in range(server.max_request_tokens // server.count(long) + 1)]
    assert_right(embed(name, server, texts, settings=at_most(server)).vectors, texts, server)
    assert not server.refused
    assert len(server.log) >= 2


def at_most(server):
    return {"model": {"max_tokens": server.max_tokens}}


def test_a_text_over_the_model_s_limit_is_cut_here_and_reported(name, server):
    server.width = 8
    if APIS[name].tokenizer == "estimate":
        server.count = by_the_estimate
    texts = ["short", "word " * (server.max_tokens + 100)]
    result = embed(name, server, texts, settings=at_most(server))
    (sent,) = (text for served in server.log for text in served.texts if "word" in text)
    (cut,) = result.receipt.truncations
    assert not server.refused
    assert (cut.row, cut.kept_tokens) == (1, pytest.approx(server.max_tokens, abs=2))
    assert texts[1][: cut.kept_characters] in sent
    assert_right(result.vectors, ["short", texts[1][: cut.kept_characters]], server)


def test_azure_by_deployment_and_version():
    server = APIS["azure-openai classic"].serve()
    ask("azure-openai classic", server)
    assert server.queries == ["api-version=2024-10-21"]


@pytest.mark.parametrize(
    ("input_type", "sent"), [("query", "task: search result | query: a"), ("document", "title: none | text: a")]
)
def test_later_gemini_models_read_the_task_from_the_text(input_type, sent):
    server = APIS["gemini later"].serve()
    ask("gemini later", server, ["a"], input_type=input_type)
    assert server.log[0].texts == (sent,)


@pytest.mark.parametrize("option", ["max_inputs", "batch_size"])
def test_an_option_limits_the_texts_of_a_request(name, server, option):
    texts = [f"text {number}" for number in range(5)]

    async def main():
        async with embedder_for(name, server, **{f"routes.r.options.{option}": 2}) as embedder:
            return await embedder.embed(texts, model=MODEL)

    assert_right(asyncio.run(main()).vectors, texts, server)
    assert sorted(len(served.texts) for served in server.log) == [1, 2, 2]


@pytest.mark.parametrize("option", ["max_inputs", "batch_size", "max_request_tokens"])
def test_an_option_never_raises_the_limit_of_a_service(name, server, option):
    api = APIS[name]
    most = server.max_request_tokens if option == "max_request_tokens" else server.most

    def make(value):
        options = {**api.options, option: str(value)}
        endpoint = Endpoint("r", api.model, f"http://127.0.0.1:1{api.prefix}", secret=KEY, options=options)
        return make_provider(name.partition(" ")[0], endpoint)

    if name.startswith("openai-compatible") or most is None:  # the server has no limit that is known here
        assert make(10**6).declared is not None
        return
    with pytest.raises(ConfigError, match=rf"r: options\.{option}: must be at most \d+, the provider's limit"):
        make(10**7)
