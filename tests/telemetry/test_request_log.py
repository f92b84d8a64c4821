"""Log of calls: one JSON line for each, without texts and keys."""

import asyncio
import contextlib
import json
import logging
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api_servers import KEY, CompatibleServer
from embedway import AsyncEmbedder, EmbedwayError
from embedway.telemetry import HookSettings, open_hooks
from embedway.telemetry.hooks import Hooks
from embedway.telemetry.operations import AttemptDetails, BatchDetails, RequestDetails
from embedway.telemetry.request_log import RequestLogHook
from embedway.telemetry.route_facts import RouteFacts
from own_route import load_routes

REQUEST = RequestDetails, "embed", "acme/m", 2, "query"


@pytest.fixture
def lines(caplog):
    """Return a function that returns the documents of the log so far."""
    caplog.set_level(logging.INFO, "embedway.requests")
    return lambda: [json.loads(one.getMessage()) for one in caplog.records if one.name == "embedway.requests"]


def call(calls, misdeeds=(), **overrides):
    async def main():
        server = CompatibleServer()
        async with server.running():
            config = load_routes(server, **{"telemetry.log_requests": True, **overrides})
            async with AsyncEmbedder(config=config) as embedder:
                server.misdeeds = list(misdeeds)
                await calls(embedder)

    asyncio.run(main())


def test_a_call_is_a_line(lines):
    async def calls(embedder):
        receipts.append((await embedder.embed(["a", "b", "a"], model="acme/m")).receipt)

    receipts = []
    call(calls)
    (line,) = lines()
    assert line.pop("time").endswith("Z")
    assert line.pop("request_id")
    assert line.pop("duration_ms") > 0
    assert line == {
        "task": "embed",
        "input_type": "document",
        "model": "acme/m",
        "providers": ["openai-compatible"],
        "routes": ["routes.r0"],
        "texts": 3,
        "tokens": receipts[0].tokens,
        "billed_tokens": receipts[0].billed_tokens,
        "cost_usd": None,
        "cache_hits": 0,
        "attempts": 1,
        "truncated": 0,
        "failures": 0,
        "outcome": "ok",
        "error": None,
    }


def test_a_partial_call_and_a_hit(lines):
    async def calls(embedder):
        await embedder.embed(["a", ""], model="acme/m", partial=True)
        await embedder.embed(["a"], model="acme/m")

    call(calls, **{"cache.backend": "memory"})
    partial, hit = lines()
    assert (partial["outcome"], partial["failures"], partial["error"]) == ("partial", 1, None)
    assert (hit["outcome"], hit["cache_hits"], hit["attempts"], hit["cost_usd"]) == ("ok", 1, 0, 0.0)
    assert partial["request_id"] != hit["request_id"]


def test_a_failed_call_names_the_route_that_was_tried(lines):
    async def calls(embedder):
        with pytest.raises(EmbedwayError):
            await embedder.embed(["a"], model="acme/m")

    call(calls, ["500", "500"], **{"upstream.max_attempts": 2})
    (line,) = lines()
    assert (line["outcome"], line["error"], line["model"]) == ("error", "UnavailableError", "acme/m")
    assert (line["routes"], line["attempts"], line["tokens"]) == (["routes.r0"], 2, None)


def test_attempts_of_a_merged_batch_belong_to_all_its_calls(lines):
    hooks = Hooks([RequestLogHook()])
    with hooks.operation(*REQUEST), hooks.operation(*REQUEST):
        from embedway.telemetry.hooks import current_operation

        last = current_operation.get()
        merged = hooks.merged_operation([last - 1, last], BatchDetails, "acme/m", "routes.r", 2, 4)
        with merged, hooks.operation(AttemptDetails, "acme/m", "routes.r", 1, 2, 4):
            pass
    assert [line["routes"] for line in lines()] == [["routes.r"]] * 2


def test_a_cancelled_call(lines):
    async def main():
        async def wait():
            with Hooks([RequestLogHook()]).operation(*REQUEST):
                await asyncio.Event().wait()

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert [(line["outcome"], line["error"]) for line in lines()] == [("cancelled", "CancelledError")]


def test_a_known_model_is_named_before_it_is_open(lines):
    hooks = open_hooks(
        (), HookSettings(log_requests=True, models=lambda: {"acme/m": "acme/m"}, routes={"r": RouteFacts("x")})
    )
    for model in ("acme/m", "any text"):
        with contextlib.suppress(ValueError), hooks.operation(RequestDetails, "embed", model, 1):
            raise ValueError
    assert [line["model"] for line in lines()] == ["acme/m", "other"]


def test_without_the_setting_nothing_is_logged(lines):
    async def calls(embedder):
        await embedder.embed(["a"], model="acme/m")

    call(calls, **{"telemetry.log_requests": False})
    assert lines() == []


def test_no_line_is_made_if_the_logger_is_off(caplog):
    caplog.set_level(logging.WARNING, "embedway.requests")
    with Hooks([RequestLogHook()]).operation(*REQUEST):
        pass
    assert caplog.records == []


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(min_size=8, max_size=100),
    misdeed=st.sampled_from(["500", "401", "400", "429", "not json"]),
    as_model=st.booleans(),
)
def test_failing_calls_log_no_text_and_no_key(caplog, text, misdeed, as_model):
    """Also if the text is passed as the name of the model or the collection."""
    # An argument with other characters is an error before the call begins.
    marked, name = f"«{text}»", f"«{''.join(char for char in text if char.isalnum())}»"

    async def calls(embedder):
        with contextlib.suppress(EmbedwayError):
            await embedder.embed([marked, KEY], model=name if as_model else "acme/m", collection=name)

    caplog.set_level(logging.INFO, "embedway")
    caplog.clear()
    call(calls, [misdeed] * 3)
    messages = [one.getMessage() for one in caplog.records if one.name == "embedway.requests"]
    assert len(messages) == 1
    for message in messages:
        assert "«" not in json.dumps(json.loads(message), ensure_ascii=False)
        assert KEY not in message


def test_the_hook_is_imported_only_if_it_is_used():
    source = """if True:
        import sys
        from embedway.telemetry import HookSettings, open_hooks
        open_hooks((), HookSettings(prometheus=False))
        print([name for name in sys.modules if name.endswith(("request_log", "opentelemetry"))])
        open_hooks((), HookSettings(prometheus=False, log_requests=True))
        print([name for name in sys.modules if name.endswith(("request_log", "opentelemetry", "prometheus_client"))])
    """
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "['embedway.telemetry.request_log']"]
