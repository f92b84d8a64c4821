"""Known faults of servers are found by the checks that name them, and by no others."""

import asyncio

import pytest

from embedway.conformance.client import Client
from embedway.conformance.judge import chosen_checks, judge
from embedway.conformance.table import CHECKS
from embedway.conformance.target import parse_place
from embedway.conformance.verdicts import NoAnswerInTimeError
from embedway.errors import AuthenticationError, ProtocolError, UnavailableError, UsageError
from judged_server import KEY, MODEL, JudgedServer
from serving import serving, serving_app

#: Checks that fail for a server with a fault.
FAULTS = {
    "one vector for all": {"distinct", "duplicates", "exact-limit"},
    "wrong order": {"row-order", "huge-batch"},
    "unsorted": {"row-order"},
    "no index": {"row-order"},
    "late rows move up": {"huge-batch"},
    "depends on the batch": {"batch-alone", "concurrency"},
    "swaps rows of concurrent requests": {"concurrency"},
    "loses duplicates": {"duplicates"},
    "random": {
        "determinism",
        "batch-alone",
        "concurrency",
        "duplicates",
        "base64",
        "input-type",
        "unknown-fields",
    },
    "lengths differ": {"width"},
    "widths differ": {"width"},
    "null rows": {"numbers"},
    "NaN": {"numbers"},
    "zeros": {"numbers"},
    "500 on odd input": {"unicode", "invalid-json", "deep-nesting"},
    "drops odd input": {"unicode", "invalid-json", "deep-nesting"},
    "500 on long words": {"long-word"},
    "half of the limit": {"exact-limit", "over-limit"},
    "truncates": {"over-limit"},
    "token ids as text": {"token-ids"},
    "any token ids": {"token-ids"},
    "500 on unknown token ids": {"token-ids"},
    "usage of 0": {"usage"},
    "counts words": {"usage"},
    "counts characters": {"usage"},
    "counts padding": {"usage"},
    "no usage": {"usage"},
    "ignores base64": {"base64"},
    "float64 in base64": {"base64"},
    "big-endian base64": {"base64"},
    "ignores dimensions": {"dimensions"},
    "not normalized": {"dimensions"},
    "ignores input_type": {"input-type"},
    "no object": {"fields"},
    "plain text": {"content-type"},
    "any model": {"unknown-model"},
    "ignores encodings": {"unknown-encoding"},
    "fastapi errors": {"error-shape"},
    "401 for any key": {"keys"},
    "500 on huge batches": {"huge-batch"},
    "worst first": {"rerank-order"},
    "positions as index": {"rerank-order"},
    "ignores top_n": {"rerank-top-n"},
    "busy without a wait": {"overload"},
    "no list": {"models"},
}
#: Checks that warn about a server, which is otherwise right.
WARNINGS = {
    "closes connections": {"keep-alive"},
    "embeds empty texts": {"empty-text"},
    "answers empty batches": {"empty-batch"},
}
#: Checks that are skipped, because a server does not support what they judge.
UNSUPPORTED = {
    "no token ids": {"token-ids"},
    "no dimensions": {"dimensions"},
    "no input_type": {"input-type"},
    "no rerank": {"rerank-order", "rerank-top-n"},
}


#: Checks that take half of the time of a run, and fail only for faults that name them.
SLOW = {"huge-batch", "cancelled"}


def checks_for(fault):
    return [check.name for check in CHECKS if check.name not in SLOW - FAULTS.get(fault, set())]


def by_status(verdicts, status):
    return {name: verdict.seen for name, verdict in verdicts.items() if verdict.status == status}


@pytest.mark.parametrize("faults", [(), ("tells of truncation",), ("busy once",), ("prompts",)], ids=" ".join)
def test_a_server_without_faults_passes_every_check(judged, faults):
    verdicts = judged(*faults)
    assert len(verdicts) == len(CHECKS)
    left = {name: verdict for name, verdict in verdicts.items() if verdict.status != "passed"}
    assert set(left) == (set() if "busy once" in faults else {"overload"}), left


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_by_the_checks_that_name_it(judged, fault):
    verdicts = judged(fault, checks=checks_for(fault), model=MODEL if fault == "no list" else None)
    failed = by_status(verdicts, "failed")
    assert set(failed) == FAULTS[fault], failed
    assert not by_status(verdicts, "warned")


@pytest.mark.parametrize("fault", WARNINGS)
def test_a_disadvantage_is_a_warning(judged, fault):
    verdicts = judged(fault, checks=checks_for(fault))
    assert (set(by_status(verdicts, "warned")), by_status(verdicts, "failed")) == (WARNINGS[fault], {})


@pytest.mark.parametrize("fault", UNSUPPORTED)
def test_what_a_server_refuses_is_skipped(judged, fault):
    verdicts = judged(fault, checks=checks_for(fault))
    assert set(by_status(verdicts, "skipped")) == UNSUPPORTED[fault] | {"overload"}
    assert not by_status(verdicts, "failed")


def test_a_server_that_computes_for_clients_that_left_is_found(judged):
    verdicts = judged("computes for clients that left", checks=("cancelled",), patience_s=0.5)
    assert "abandoned" in by_status(verdicts, "failed")["cancelled"]


@pytest.mark.parametrize(
    ("faults", "verdict"),
    [((), "passed"), (("500 without a key",), "failed"), (("forbidden",), "passed")],
)
def test_a_server_that_needs_a_key_is_judged_with_it(judged, faults, verdict):
    verdicts = judged(*faults, key=KEY, own_key=KEY, checks=("keys", "row-order"))
    assert {name: one.status for name, one in verdicts.items()} == {"keys": verdict, "row-order": "passed"}


def test_a_key_that_nobody_needs_is_a_warning(judged):
    assert judged(own_key=KEY, checks=("keys",))["keys"].status == "warned"


def test_without_a_tokenizer_silent_truncation_and_other_units_are_still_found(judged):
    checks = ("exact-limit", "over-limit", "usage", "token-ids")
    good = judged("tells of truncation", known=False, checks=checks)
    assert {name: one.status for name, one in good.items()} == {
        "exact-limit": "skipped",
        "over-limit": "passed",
        "usage": "passed",
        "token-ids": "passed",
    }
    bad = judged("truncates", "counts words", "any token ids", known=False, checks=checks)
    assert set(by_status(bad, "failed")) == {"over-limit", "usage", "token-ids"}


@pytest.mark.parametrize(
    ("faults", "options", "error", "message"),
    [
        ((), {"key": KEY}, AuthenticationError, "needs a key; use --api-key-env"),
        ((), {"key": KEY, "own_key": "sk-other"}, AuthenticationError, "refuses the key"),
        (("several models",), {}, UsageError, "'other', 'judged-model', 'third'"),
        (("no list",), {}, ProtocolError, "name a model with --model"),
        ((), {"model": "unknown"}, ProtocolError, "a plain text is answered with 404"),
    ],
)
def test_a_server_that_cannot_be_judged_is_an_error(judged, faults, options, error, message):
    with pytest.raises(error) as caught:
        judged(*faults, **options)
    assert message in str(caught.value)
    assert KEY not in str(caught.value)


def test_one_of_several_models_can_be_named(judged):
    assert judged("several models", model=MODEL, checks=("models",))["models"].status == "passed"


def test_an_alias_of_a_listed_model_is_a_warning(judged):
    verdict = judged("any model", model="alias", checks=("models",))["models"]
    assert verdict.status == "warned"
    assert repr(MODEL) in verdict.seen


def test_an_unknown_check_is_named_with_all_others():
    with pytest.raises(UsageError, match="no check is named 'speed'; the checks are distinct, row-order"):
        chosen_checks(("speed",), ())
    with pytest.raises(UsageError, match="no check is left"):
        chosen_checks(("usage",), ("usage",))
    assert [check.name for check in chosen_checks((), ("usage",))] == [c.name for c in CHECKS if c.name != "usage"]


def test_a_server_that_is_not_there_is_an_error():
    async def main():
        async with serving(lambda reader, writer: asyncio.sleep(0)) as port:
            pass
        return await judge(parse_place(f"http://127.0.0.1:{port}"))

    with pytest.raises(UnavailableError, match="the connection failed"):
        asyncio.run(main())


#: Answers of a server that is no HTTP server, or a hostile one; each is sent to every request.
HOSTILE = {
    "no HTTP": b"220 smtp.example.com ESMTP\r\n",
    "endless headers": b"HTTP/1.1 200 OK\r\n" + b"X-A: " + b"a" * 10**6,
    "cut": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{",
    "too large": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{",
    "a bomb": b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n" + b"[" * 40,
    "a redirect": b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    "a page": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_server_is_an_error_of_our_own(name):
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HOSTILE[name])
        await writer.drain()

    async def main():
        async with serving(answer) as port:
            return await judge(parse_place(f"http://127.0.0.1:{port}"))

    with pytest.raises((ProtocolError, UnavailableError)):
        asyncio.run(main())


def test_a_check_ends_in_time_if_a_server_stops_to_answer(plain_tokenizer):
    server = JudgedServer(plain_tokenizer)

    async def hang(request, inputs):
        if server.requests > 1:
            await asyncio.Event().wait()

    server.work = hang

    async def main():
        async with serving_app(server.app()) as port:
            place = parse_place(f"http://127.0.0.1:{port}")
            return await judge(place, checks=chosen_checks(("row-order", "usage"), ()), check_limit_s=0.1)

    report = asyncio.run(main())
    assert [(result.verdict.status, result.verdict.seen) for result in report.results] == [
        ("failed", "the check did not end within 0.1 s")
    ] * 2


def test_an_abandoned_request_is_no_error(plain_tokenizer):
    async def main():
        async with (
            serving_app(JudgedServer(plain_tokenizer).app()) as port,
            Client(parse_place(f"http://127.0.0.1:{port}")) as client,
        ):
            await client.abandon(f"http://127.0.0.1:{port}/v1/embeddings", {"input": "a"}, rows=1)

    asyncio.run(main())


def test_a_server_that_is_too_slow_for_large_requests_is_no_failure(judged, monkeypatch):
    post = Client.post

    async def timed_out(self, url, body, **options):
        if isinstance(body["input"], list) and len(body["input"]) >= 64:
            raise NoAnswerInTimeError("no complete answer within 60 s")
        return await post(self, url, body, **options)

    monkeypatch.setattr(Client, "post", timed_out)
    verdicts = judged(checks=("huge-batch", "cancelled"))
    assert {name: verdict.status for name, verdict in verdicts.items()} == {
        "huge-batch": "warned",
        "cancelled": "skipped",
    }
    assert all("raise --timeout" in verdict.seen for verdict in verdicts.values())
