"""Random mixes of odd behaviours show no fault, and each kind of fault is found in a product that was made wrong."""

import asyncio
import dataclasses
import gc

import pytest
import service_play
import services
from service_behaviours import FINAL, PASSING
from service_judge import judge
from service_mixes import CallPlan, Mix, RoutePlan, draw, shrink, singles
from service_server import OddServer, tokens_of

from embedway.errors import UnavailableError
from embedway.models import service
from embedway.providers import http
from embedway.providers.counting import EstimatingCounter

_TEXTS = tuple(f"zq000000000001 {word} stone lamp" for word in ("river", "north", "copper"))


def test_random_mixes_show_no_fault():
    report = services.fuzz(7, range(150))
    assert report.faults == []
    assert report.mixes == 150
    assert report.failed_calls > 20
    assert report.rows > 1000


def plain(**route):
    """Return a mix without oddities, except those of its route."""
    calls = (CallPlan((0, 1, 2)), CallPlan((2, 1)))
    return Mix(
        1, 1, "embed", "zq000000000001", "hostword0000000001", _TEXTS, (RoutePlan("a", **route),), (calls, calls)
    )


def kinds_of(mix, tmp_path):
    """Play a mix and return the kinds of its faults."""

    async def play():
        async with OddServer().running() as server:
            player = service_play.Player(server, tmp_path)
            with player.watching():
                found = judge(await player.play(mix))
                gc.collect()  # so that what a broken product leaves open is no fault of a later test
                return found

    return {finding.kind for finding in asyncio.run(play())}


def test_a_mix_without_oddities_shows_no_fault(tmp_path):
    assert kinds_of(plain(), tmp_path) == set()


def changing_answers(monkeypatch, change):
    """Change the parsed answers, as a wrong reader would."""
    right = http.JsonHttp.post

    async def post(self, path, body, **more):
        reply = await right(self, path, body, **more)
        change(reply.body)
        return reply

    monkeypatch.setattr(http.JsonHttp, "post", post)


def wrong_rows(monkeypatch):
    def change(body):
        vectors = [row["embedding"] for row in body["data"]]
        for row, vector in zip(body["data"], vectors[::-1], strict=True):
            row["embedding"] = vector

    changing_answers(monkeypatch, change)


def rows_of_another_space(monkeypatch):
    def change(body):
        for row in body["data"]:
            row["embedding"] = [*row["embedding"][1:], row["embedding"][0]]

    changing_answers(monkeypatch, change)


def booked_twice(monkeypatch):
    def change(body):
        body["usage"] = {name: 2 * tokens for name, tokens in body["usage"].items()}

    changing_answers(monkeypatch, change)


def half_booked(monkeypatch):
    def change(body):
        body["usage"] = {name: tokens // 2 for name, tokens in body["usage"].items()}

    changing_answers(monkeypatch, change)


def two_requests(monkeypatch):
    right = http.JsonHttp.post

    async def post(self, path, body, **more):
        await right(self, path, body, **more)
        return await right(self, path, body, **more)

    monkeypatch.setattr(http.JsonHttp, "post", post)


def wrong_receipt(monkeypatch):
    right = service.make_bill
    monkeypatch.setattr(
        service,
        "make_bill",
        lambda *args: dataclasses.replace(bill := right(*args), cost_nanousd=bill.cost_nanousd + 1),
    )


def an_error_of_python(monkeypatch):
    monkeypatch.setattr(service, "make_bill", lambda *args: {}["a"])


def connections_left_open(monkeypatch):
    async def aclose(self):
        pass

    monkeypatch.setattr(http.JsonHttp, "aclose", aclose)


def an_error_with_the_body(monkeypatch):
    def error_of(status, headers, content, **more):
        return UnavailableError(content.decode(), route="a", status=status)

    monkeypatch.setattr(http, "error_of", error_of)


def no_retries(monkeypatch):
    monkeypatch.setattr(UnavailableError, "transient", False)


@pytest.mark.parametrize(
    ("break_it", "kind", "route"),
    [
        (wrong_rows, "row", {}),
        (rows_of_another_space, "row", {}),
        (two_requests, "twice", {}),
        (booked_twice, "money", {}),
        (half_booked, "money", {}),
        (wrong_receipt, "receipt", {}),
        (an_error_of_python, "outside", {}),
        (connections_left_open, "leak", {}),
        (an_error_with_the_body, "secret", {"final": "401"}),
        (an_error_with_the_body, "words", {"final": "403 firewall"}),
        (an_error_with_the_body, "class", {"final": "401"}),
        (no_retries, "lost", {"faults": ("500",)}),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_each_kind_of_fault_is_found(monkeypatch, tmp_path, break_it, kind, route):
    assert kinds_of(plain(**route), tmp_path) == set()
    break_it(monkeypatch)
    assert kind in kinds_of(plain(**route), tmp_path)


def test_a_call_that_never_ends_is_found(monkeypatch, tmp_path):
    async def post(self, path, body, **more):
        await asyncio.Event().wait()

    monkeypatch.setattr(http.JsonHttp, "post", post)
    monkeypatch.setattr(service_play, "HANG_S", 0.2)
    assert "hang" in kinds_of(plain(), tmp_path)


def test_a_mix_depends_on_its_seed_and_number_only():
    assert draw(3, 5) == draw(3, 5)
    assert draw(3, 5) != draw(3, 6)
    assert draw(3, 5) != draw(4, 5)


def test_a_mix_is_simplified_as_long_as_it_fails():
    async def fails(mix):
        return any("429" in mix.routes[0].faults for _ in mix.calls)

    mix = plain(faults=("500", "429"), wire="chunks", index="permuted")
    assert asyncio.run(shrink(mix, fails)).routes == (RoutePlan("a", faults=("429",)),)


def test_each_behaviour_is_played_alone():
    names = {name for name, _ in singles()}
    assert {f"fault: {name}" for name in PASSING} | {f"final: {name}" for name in FINAL} <= names


def test_the_judge_counts_tokens_as_documented():
    texts = ["a", "river 12", "straße 東京", "1999"]
    assert EstimatingCounter(max_tokens=512).count(texts).lengths.tolist() == [tokens_of(text) for text in texts]
