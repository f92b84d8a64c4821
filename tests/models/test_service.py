"""From a name to vectors of a service: settings, keys, limits, prices and failover, against strict loopback servers."""

import asyncio
import collections
import contextlib
import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest

from api_servers import KEY, OpenAIServer, error
from embedway import AsyncEmbedder, Config, Embedder, ModelSelectionCriteria
from embedway.catalog.services import default_services, read_services
from embedway.collections.run import RunOptions, run_job
from embedway.errors import (
    AuthenticationError,
    ConfigError,
    DeadlineError,
    DimensionsError,
    InputError,
    NoRouteError,
    RateLimitedError,
    RefusedInputError,
    SpaceMismatchError,
    TextTooLongError,
    UnknownModelError,
    UsageError,
)
from embedway.models import opening
from embedway.providers.counting import TiktokenCounter
from embedway.providers.fake import vector_of
from embedway.providers.registry import provider_names
from inside import provider_of, set_delay, set_faults

SMALL = "text-embedding-3-small"
TEXTS = ["the first text", "the second", "and a third one", "the second"]


class Service(OpenAIServer):
    width = 1536


def route(server, **more):
    return {"model": SMALL, "provider": "openai", "base_url": f"{server.url}/v1", "api_key": KEY, **more}


def load(*servers, environ=None, **overrides):
    routes = {f"routes.r{number}": route(server) for number, server in enumerate(servers)}
    waits = {"upstream.first_wait_s": 0.001, "upstream.longest_wait_s": 0.002, "cache.backend": "none"}
    return Config.load(environ=environ or {}, overrides={**routes, **waits, **overrides})


def embed(*servers, texts=TEXTS, config=None, **options):
    async def main():
        async with contextlib.AsyncExitStack() as stack:
            for server in servers:
                await stack.enter_async_context(server.running())
            made = config(*servers) if config else load(*servers)
            embedder = await stack.enter_async_context(AsyncEmbedder(config=made))
            return await embedder.embed(texts, model=SMALL, **options)

    return asyncio.run(main())


@pytest.fixture
def server():
    return Service()


def assert_right(result, texts=TEXTS, width=1536):
    wanted = np.stack([vector_of(text, 1536)[:width] for text in texts])
    np.testing.assert_allclose(result.vectors, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-6)


def test_vectors_space_and_bill(server):
    result = embed(server)
    assert_right(result)
    receipt = result.receipt
    assert result.space.id.startswith("text-embedding-3-small@")
    assert result.space.id.endswith("/1536")
    assert (receipt.route, receipt.routes, receipt.attempts) == ("routes.r0", ("routes.r0",), 1)
    assert (receipt.texts, receipt.unique_texts, receipt.billed_tokens) == (4, 3, 9)
    assert (receipt.cost_nanousd, receipt.estimated) == (9 * 20, False)
    assert server.bodies[0]["input"] == list(dict.fromkeys(TEXTS))


def test_sizes_are_asked_for_and_others_refused(server):
    result = embed(server, dimensions=512)
    assert_right(result, width=512)
    assert server.bodies[0]["dimensions"] == 512
    assert result.space.id.endswith("/512")
    assert result.receipt.notes == ()
    with pytest.raises(DimensionsError, match="supports 1 to 1536 dimensions, not 2000"):
        embed(Service(), dimensions=2000)


@pytest.mark.parametrize("cache", ["none", "memory"])
@pytest.mark.parametrize("size", [1, 255, 256, 768, 1024, 1535])
def test_every_size_of_the_range_is_returned_and_noted(server, size, cache):
    def config(one):
        return load(one, **{"cache.backend": cache})

    result = embed(server, config=config, dimensions=size)
    assert_right(result, width=size)  # the answer of the service, and the truncated vector of the cache
    assert result.space.id.endswith(f"/{size}")
    assert server.bodies[0].get("dimensions") == (size if cache == "none" else None)
    notes = [f"{SMALL}: the vector size {size} is not one that its maker trained or evaluated (1536, 512)"]
    if size < 256:
        notes.append(f"{SMALL}: the vector size {size} is below the advised minimum of 256")
    assert list(result.receipt.notes) == notes


def test_a_size_of_the_range_is_planned_described_selected_and_pinned(server, tmp_path):
    async def main():
        places = {"pins.path": str(tmp_path / "pins.sqlite"), "cache.backend": "memory"}
        async with server.running(), AsyncEmbedder(config=load(server, **places)) as embedder:
            plan = await embedder.plan(TEXTS, model=SMALL, dimensions=768)
            described = await embedder.models.describe(SMALL, 768)
            criteria = ModelSelectionCriteria(dimensions=768, min_accuracy=0.5, require_fit=False)
            selection = await embedder.select(TEXTS, criteria)
            available = await embedder.models.available(768)
            first = await embedder.embed(TEXTS, model=SMALL, dimensions=768, collection="docs")
            again = await embedder.embed(TEXTS, collection="docs")
            with pytest.raises(SpaceMismatchError, match="/768"):
                await embedder.embed(TEXTS, model=SMALL, dimensions=512, collection="docs")
            return plan, described, selection, available, first, again

    plan, described, selection, available, first, again = asyncio.run(main())
    assert plan.space.dimensions == described.space.dimensions == 768
    assert (described.sizes, described.min_dimensions) == ((1536, 512), 1)
    assert SMALL in {row.model for row in selection.ranked}
    assert SMALL in available
    assert first.space == again.space
    assert (again.vectors.shape[1], again.receipt.cache_hits) == (768, 3)


def test_a_long_text_is_cut_at_a_token_and_reported_or_refused(server):
    long = "word " * 9000
    result = embed(server, texts=["short", long])
    (cut,) = result.receipt.truncations
    assert (cut.row, cut.kept_tokens) == (1, 8191)
    sent = server.bodies[0]["input"][1]
    assert long.startswith(sent)
    assert len(sent) == cut.kept_characters == len(long) - cut.lost_characters
    assert cut.lost_tokens == pytest.approx(9001 - 8191, abs=1)
    with pytest.raises(TextTooLongError, match="accepts 8191"):
        embed(Service(), texts=["short", long], on_overflow="error")


def test_a_service_that_says_nothing_of_its_bill_is_estimated_by_our_own_count(server):
    server.misdeeds = [lambda answer: {key: value for key, value in answer.items() if key != "usage"}]
    receipt = embed(server).receipt
    assert receipt.estimated
    assert receipt.billed_tokens == receipt.tokens == 9
    assert receipt.cost_nanousd == 180


def test_another_route_takes_over(server):
    dead = Service()
    dead.misdeeds = ["503"] * 10
    result = embed(dead, server, config=lambda *servers: load(*servers, **{"routes.r1.same_space": True}))
    assert_right(result)
    assert result.receipt.routes == ("routes.r1",)
    assert len(server.bodies) == 1


@pytest.mark.parametrize("seed", range(3))
def test_at_a_fault_rate_of_30_percent_no_finished_text_is_sent_again(seed):
    server = Service()
    server.width = 16
    chance = random.Random(seed)
    faults = ["429", "500", "503 at once", "reset", "hang up", "html error", "408"]
    server.misdeeds = [chance.choice(faults) if chance.random() < 0.3 else None for _ in range(1000)]
    sent = list(server.misdeeds)
    texts = [f"text {number}" for number in range(800)]
    facts = dataclasses.replace(default_services()[SMALL], dimensions=16, default_dimensions=16, matryoshka=())

    def config(server):
        route = {"model": SMALL, "provider": "openai-compatible", "base_url": f"{server.url}/v1", "api_key": KEY}
        return load(**{"routes.r": {**route, "options": {"max_inputs": "8"}}, "upstream.max_attempts": 20})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "service_of", lambda name, config: facts)
        result = embed(server, texts=texts, config=config)
    np.testing.assert_allclose(result.vectors, np.stack([vector_of(text, 16) for text in texts]), atol=1e-6)
    asked = collections.Counter(text for body in server.bodies for text in body["input"])
    finished = collections.Counter(
        text for body, fault in zip(server.bodies, sent, strict=False) if fault is None for text in body["input"]
    )
    assert set(finished.values()) == {1}
    assert len(finished) == 800
    assert max(asked.values()) <= 20
    assert result.receipt.attempts == len(server.bodies) < 1.8 * 100


def test_when_every_route_fails_each_is_named(server):
    other = Service()
    server.misdeeds, other.misdeeds = ["500"] * 10, ["html"] * 10
    with pytest.raises(NoRouteError, match=r"(?s)(?=.*routes\.r0.*HTTP 500)(?=.*routes\.r1.*a web page)"):
        embed(server, other, config=lambda *servers: load(*servers, **{"routes.r1.same_space": True}))


def test_partial_results_of_a_service_that_refuses_a_text():
    class Picky(Service):
        def refusal(self, request, body):
            bad = any("forbidden" in text for text in body["input"])
            return error(400, "content_filter") if bad else super().refusal(request, body)

    texts = ["one", "a forbidden text", "three", "", "one", "a forbidden text"]
    result = embed(Picky(), texts=texts, partial=True)
    assert {row: type(failure).__name__ for row, failure in result.errors.items()} == {
        1: "RefusedInputError",
        3: "InputError",
        5: "RefusedInputError",
    }
    for row in (0, 2, 4):
        np.testing.assert_allclose(result.vectors[row], vector_of(texts[row], 1536), atol=1e-6)
    assert np.isnan(result.vectors[[1, 3, 5]]).all()
    with pytest.raises(RefusedInputError):
        embed(Picky(), texts=["one", "a forbidden text"])


def test_a_wrong_key_is_said_and_not_shown(server):
    def config(server):
        return load(**{"routes.mine": route(server, api_key="sk-wrong")})

    with pytest.raises(AuthenticationError, match=r"routes\.mine: the key was refused") as caught:
        embed(server, config=config)
    assert "sk-wrong" not in str(caught.value)
    assert len(server.bodies) == 1


def test_keys_from_a_file_and_from_a_variable(server, tmp_path):
    secret = tmp_path / "key"
    secret.write_text(f"{KEY}\n")
    for more, environ in (
        ({"api_key_file": str(secret)}, {}),
        ({"api_key_env": "MY_KEY"}, {"MY_KEY": KEY}),
        ({"api_key_env": "OPENAI_API_KEY"}, {"OPENAI_API_KEY": KEY}),
    ):
        fresh = Service()

        def config(server, more=more, environ=environ):
            made = {key: value for key, value in route(server, **more).items() if key != "api_key"}
            return load(environ=environ, **{"routes.mine": made})

        assert_right(embed(fresh, config=config))
        shown = repr(config(fresh)) + str(config(fresh).model_dump())
        assert KEY not in shown


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({}, "openai:text-embedding-3-small: api_key: is not set; set OPENAI_API_KEY"),
        (
            {"routes.r": {"model": SMALL, "provider": "openai", "base_url": "http://127.0.0.1:9/v1"}},
            "routes.r: api_key: is not set; set it, or api_key_env, beside base_url",
        ),
        ({"routes.r": {"model": SMALL, "provider": "opanai"}}, "no provider is called 'opanai'; the nearest is openai"),
        (
            {"routes.r": {"model": SMALL, "provider": "openai", "api_key_env": "NOT_SET"}},
            "api_key_env: the variable NOT_SET is not set",
        ),
        (
            {"routes.r": {"model": SMALL, "provider": "openai", "api_key_file": "/nowhere/key"}},
            "api_key_file: /nowhere/key cannot be read",
        ),
        (
            {"routes.r": {"model": SMALL, "provider": "openai", "api_key": "k", "base_url": "http://example.com"}},
            "routes.r: base_url: must be https",
        ),
        ({"routes.r": {"model": SMALL, "provider": "openai-compatible"}}, "routes.r: base_url: must be set"),
        ({"routes.r": {"model": SMALL, "providr": "openai"}}, "routes.r.providr"),
    ],
    ids=range(8),
)
def test_settings_that_are_wrong_say_so(overrides, said):
    async def main():
        async with AsyncEmbedder(config=Config.load(environ={}, overrides=overrides)) as embedder:
            await embedder.embed("a", model=SMALL)

    with pytest.raises(ConfigError) as caught:
        asyncio.run(main())
    assert said in str(caught.value)


def test_routes_in_a_file_are_overlaid_by_field(tmp_path):
    base, over = tmp_path / "base.toml", tmp_path / "over.toml"
    base.write_text(
        '[routes.mine]\nmodel = "m"\nprovider = "openai"\nrequests_per_minute = 60\n[routes.mine.options]\na = "1"\n'
    )
    over.write_text('[routes.mine]\nrequests_per_minute = 30\n[routes.mine.options]\nb = "2"\n')
    mine = Config.load([base, over], environ={}).routes["mine"]
    assert (mine.model, mine.requests_per_minute, mine.options) == ("m", 30, {"a": "1", "b": "2"})


def test_a_service_is_planned_and_described_without_a_request(server):
    async def main():
        async with server.running(), AsyncEmbedder(config=load(server)) as embedder:
            plan = await embedder.plan(TEXTS, model=SMALL)
            described = await embedder.models.describe(SMALL)
            await embedder.models.warm(SMALL)
            with pytest.raises(UsageError, match="runs on a service"):
                await embedder.models.tune(SMALL)
            return plan, described

    plan, described = asyncio.run(main())
    assert (plan.tokens, plan.cost_nanousd, plan.unique_texts) == (9, 180, 3)
    assert (described.max_tokens, described.sizes, described.special_tokens) == (8191, (1536, 512), 0)
    encoded = described.tokenizer.encode("a 漢字 and 😀 end")
    assert len(encoded.ids) == len(encoded.offsets)
    assert encoded.offsets[0][0] == 0
    assert encoded.offsets[-1][1] == len("a 漢字 and 😀 end")
    assert server.bodies == []


def test_a_job_over_a_service_chunks_by_its_tokens(server, tmp_path):
    source = tmp_path / "notes.md"
    sections = [f"# Part {n}\n\n" + f"The loop runs task {n} and 漢字 waits. " * 12 for n in range(6)]
    source.write_text("\n\n".join(sections), encoding="utf-8")
    destination = tmp_path / "out.parquet"

    async def main():
        async with (
            server.running(),
            AsyncEmbedder(config=load(server, **{"embedding.default_model": SMALL})) as embedder,
        ):
            options = RunOptions(chunk_tokens=40, overlap_tokens=5)
            summary = await run_job(embedder, [str(source)], str(destination), options)
            tokenizer = (await embedder.models.describe(SMALL)).tokenizer
            return summary, tokenizer

    summary, tokenizer = asyncio.run(main())
    sent = [text for body in server.bodies for text in body["input"]]
    assert summary.chunks >= len(set(sent)) > 6
    assert all(len(tokenizer.encode(text).ids) <= 40 for text in sent)
    assert summary.space_id.startswith(SMALL)


def test_a_mistyped_service_model_is_guessed():
    async def main():
        async with AsyncEmbedder(config=Config.load(environ={})) as embedder:
            await embedder.embed("a", model="text-embeding-3-small")

    with pytest.raises(UnknownModelError, match=SMALL):
        asyncio.run(main())


@pytest.mark.parametrize(
    ("name", "dimensions", "nanousd"),
    [
        ("text-embedding-3-small", 1536, 20),
        ("text-embedding-3-large", 3072, 130),
        ("text-embedding-ada-002", 1536, 100),
    ],
)
def test_facts_that_others_got_wrong(name, dimensions, nanousd):
    facts = default_services()[name]
    assert (facts.dimensions, facts.cost_nanousd(1), facts.max_tokens) == (dimensions, nanousd, 8191)
    assert default_services()[f"openai/{name}"] is facts


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"0.02"', "0.02", "usd_per_million_tokens: 0.02 is not allowed"),
        ('"0.02"', '"-1"', "it must be dollars"),
        ("dimensions = 1536", "dimensions = 0", "must be greater than 0"),
        ("matryoshka = [512]", "matryoshka = [2048]", "below `dimensions`"),
        ('"tiktoken:cl100k_base"', '"cl100k"', "it must be tiktoken:ENCODING"),
        ('provider = "openai"', 'provder = "openai"', "the nearest known field is 'provider'"),
        ('facts = ["max_tokens", "tokenizer"]', 'facts = ["max_tokens"]', "no source of this row lists it"),
    ],
)
def test_rows_that_are_wrong_name_the_field(old, new, said):
    text = (Path(__file__).parents[2] / "src/embedway/catalog/services/openai.toml").read_text("utf-8")
    assert old in text
    with pytest.raises(ConfigError) as caught:
        read_services(text.replace(old, new, 1), where="x.toml")
    assert said in str(caught.value)
    assert "x.toml" in str(caught.value)


def test_our_providers_are_found_by_entry_points():
    assert {"fake", "openai", "openai-compatible"} <= set(provider_names())


def test_token_ids_are_sent_as_their_text():
    encoding = TiktokenCounter("cl100k_base", max_tokens=8191)
    texts = ["token ids of a text", "ümläut 漢字"]
    ids = [encoding.encode(text).ids for text in texts]
    server = Service()
    result = embed(server, texts=[ids[0], "a text", tuple(ids[1])])
    assert server.bodies[0]["input"] == [texts[0], "a text", texts[1]]
    np.testing.assert_allclose(result.vectors[2], vector_of(texts[1], 1536), atol=1e-6)


@pytest.mark.parametrize("ids", [[10**6], [-1], [2**70]])
def test_token_ids_of_another_encoding_are_an_error_with_their_row(ids):
    with pytest.raises(InputError, match="text 1: its token ids are not a text"):
        embed(Service(), texts=["a", ids])


def test_an_averaged_text_of_a_service_is_sent_in_windows():
    server = Service()
    long = "word and more " * 4000
    result = embed(server, texts=["short", long], on_overflow="mean")
    sent = [text for body in server.bodies for text in body["input"]]
    assert "".join(text for text in sent if text != "short") == long
    (averaged,) = result.receipt.averaged
    assert (averaged.row, averaged.windows) == (1, len(sent) - 1)
    assert result.receipt.truncations == ()
    assert np.linalg.norm(result.vectors[1]) == pytest.approx(1, abs=1e-5)


def test_a_window_that_is_refused_fails_its_text():
    class Picky(Service):
        def refusal(self, request, body):
            return error(400, "bad") if "BAD" in "".join(body["input"]) else super().refusal(request, body)

    long = "word and more " * 4000 + "BAD"
    result = embed(Picky(), texts=["short", long, "last"], on_overflow="mean", partial=True)
    assert set(result.errors) == {1}
    assert np.isnan(result.vectors[1]).all()
    assert np.isfinite(result.vectors[[0, 2]]).all()


OWN_MODEL = {"name": "acme/m", "dimensions": 16, "max_tokens": 20, "price_usd_per_million_tokens": "1"}


@pytest.mark.parametrize("deadline_s", [None, 60.0])
def test_a_deadline_keeps_its_attempts_from_the_route_to_the_caller(tmp_path, deadline_s):
    overrides = {
        "models.m": OWN_MODEL,
        "routes.r": {"model": "acme/m", "provider": "fake"},
        "upstream.deadline_s": 30,
        "cache.path": str(tmp_path / "v.sqlite"),
        "ledger.backend": "none",
    }

    async def main():
        async with AsyncEmbedder("acme/m", config=Config.load(environ={}, overrides=overrides)) as embedder:
            await embedder.models.warm()
            busy = RateLimitedError("too many requests", route="routes.r", retry_after_s=3600)
            set_faults(provider_of(embedder), lambda _number, _texts: busy)
            await embedder.embed(["a text"], deadline_s=deadline_s)

    with pytest.raises(DeadlineError, match=r"tried again|retried|retry") as caught:
        asyncio.run(main())
    assert caught.value.attempts == 1
    assert isinstance(caught.value, TimeoutError)


class Limited(Service):
    """Service whose good answers have these rate limits."""

    def __init__(self, **headers):
        super().__init__()
        self.rates = {f"x-ratelimit-{name.replace('_', '-')}": value for name, value in headers.items()}

    def rate_headers(self):
        return self.rates


USED_UP = {"limit_requests": "1000", "remaining_requests": "0", "reset_requests": "7h12m0s"}


def embed_twice(*servers, deadline_s=None, **overrides):
    async def main():
        async with contextlib.AsyncExitStack() as stack:
            for server in servers:
                await stack.enter_async_context(server.running())
            embedder = await stack.enter_async_context(AsyncEmbedder(config=load(*servers, **overrides)))
            await embedder.embed(["the first text"], model=SMALL)
            return await embedder.embed(["another text"], model=SMALL, deadline_s=deadline_s)

    return asyncio.run(main())


def test_a_limit_that_an_answer_says_is_used_up_sends_the_next_call_to_another_route():
    first, second = Limited(**USED_UP), Service()
    result = embed_twice(first, second)
    assert_right(result, ["another text"])
    # Each route has answered a probe and one call.
    assert (result.receipt.route, len(first.log), len(second.log)) == ("routes.r1", 2, 2)


@pytest.mark.parametrize(
    ("reset", "deadline_s", "named"),
    [
        ("7h12m0s", None, r"requests per day, announced by the service, is used up.*upstream.deadline_s = 120"),
        ("59s", 30.0, r"requests per minute, announced by the service, is used up.*\(deadline_s = 30\)"),
    ],
)
def test_a_limit_that_ends_after_the_deadline_is_an_error_at_once(reset, deadline_s, named):
    server = Limited(**{**USED_UP, "reset_requests": reset})
    with pytest.raises(DeadlineError, match=named) as caught:
        embed_twice(server, deadline_s=deadline_s)
    assert caught.value.route == "routes.r0"
    assert caught.value.retry_after_s > 50
    assert len(server.log) == 1


def test_unix_times_and_numbers_without_end_hold_no_call_up():
    server = Limited(**{**USED_UP, "reset_requests": "1764100000", "limit_tokens": "9" * 400, "remaining_tokens": "-1"})
    assert_right(embed_twice(server), ["another text"])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "my-unknown",
            r"^routes\.x serves 'my-unknown', which no \[models\.NAME\] describes: add \[models\.NAME\] with",
        ),
        ("text-embedding-3-smal", r"describes: .*; nearest: text-embedding-3-small"),
    ],
)
def test_a_route_to_a_model_without_a_description_is_named(name, said):
    route = {"model": name, "provider": "openai-compatible", "base_url": "http://127.0.0.1:9/v1"}
    config = Config.load(environ={}, overrides={"routes.x": route, "cache.backend": "none"})
    with Embedder(name, config=config) as embedder, pytest.raises(UnknownModelError, match=said):
        embedder.embed(["a"])


def test_a_deadline_that_passes_before_a_request_starts_names_the_route(tmp_path):
    overrides = {
        "models.m": OWN_MODEL,
        "routes.r": {"model": "acme/m", "provider": "fake"},
        "upstream.deadline_s": 0.2,
        "upstream.concurrency": 1,
        "cache.path": str(tmp_path / "v.sqlite"),
        "ledger.backend": "none",
    }

    async def main():
        async with AsyncEmbedder("acme/m", config=Config.load(environ={}, overrides=overrides)) as embedder:
            await embedder.models.warm()
            set_delay(provider_of(embedder), 60)
            return await asyncio.gather(*(embedder.embed([text]) for text in "abcdef"), return_exceptions=True)

    errors = asyncio.run(main())
    assert {(type(error), error.route) for error in errors} == {(DeadlineError, "routes.r")}
    assert all("routes.r" in str(error) for error in errors)
