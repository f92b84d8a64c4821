"""Bills of merged callers, for many generated cases: the parts sum to the bill of the service."""

import asyncio
import functools
import random
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from books import MODEL, PRICE, PaidServer, route_to, settings_of
from embedway import AsyncEmbedder
from embedway.dispatch.billing import Charge, shares_of
from embedway.dispatch.usage import Count, Usage
from embedway.errors import EmbedwayError

COUNTS = st.integers(0, 10**6)
#: Nano-dollars of a token or search as a fraction.
FRACTIONS = st.tuples(st.integers(0, 50_000), st.integers(1, 1000))


def price(by_search, fraction, tokens, searches):
    numerator, denominator = fraction
    return -(-(searches if by_search else tokens) * numerator // denominator)


@given(
    st.lists(st.tuples(COUNTS, st.integers(0, 50)), min_size=1, max_size=20),
    COUNTS,
    st.sampled_from(["reported", "estimated", "unsure"]),
    st.booleans(),
    FRACTIONS,
)
def test_parts_sum_to_the_bill(own, reported, source, by_search, fraction):
    prices = functools.partial(price, by_search, fraction)
    account = SimpleNamespace(prices=prices)
    charges = [Charge(account, 0, *counts) for counts in own]
    tokens, searches = (
        Count(reported if source != "estimated" else None, sum(counts), source) for counts in zip(*own, strict=True)
    )
    shares = shares_of(charges, Usage(tokens, searches))
    booked = (searches if prices(0, 1) else tokens).booked
    assert sum(share.cost for share in shares) == prices(booked, booked)
    assert sum(share.searches if prices(0, 1) else share.tokens for share in shares) == booked
    assert all(share.cost >= 0 for share in shares)
    if source == "estimated":
        # Each pays for its own texts.
        for share, (own_tokens, own_searches) in zip(shares, own, strict=True):
            assert abs(share.cost - prices(own_tokens, own_searches)) <= 1


FAULTS = (None, None, None, "500", "hang up", "429 at once", "400", "reset")


@pytest.mark.parametrize("seed", range(6))
def test_bills_of_merged_callers_sum_to_the_service_s_bill(seed, books):
    """Requests are merged, refused, retried, split by callers and failed over between two routes."""
    chance = random.Random(seed)
    factor = chance.choice([1, 2, 3])

    class Server(PaidServer):
        """Service that refuses texts with `bad`; other faults are by chance."""

        def misdeed_for(self, body):
            return "400" if any("bad" in text for text in body["input"]) else chance.choice(FAULTS)

        def billed(self, text):
            return factor * super().billed(text)

    async def call(embedder, number):
        texts = [f"call {number} text {text} " + "w" * chance.randint(1, 30) for text in range(chance.randint(1, 4))]
        if chance.random() < 0.2:
            texts[0] = "bad " + texts[0]
        try:
            return (await embedder.embed(texts, model=MODEL, partial=chance.random() < 0.5)).receipt
        except EmbedwayError:
            return None

    async def main():
        servers = Server(), Server()
        async with servers[0].running(), servers[1].running():
            routes = {f"routes.r{n}": route_to(server) for n, server in enumerate(servers)}
            merged = {"batching.max_wait_ms": 5, "batching.max_batch_size": 12, "upstream.concurrency": 2}
            made = settings_of(servers[0], books, **routes, **merged)
            async with AsyncEmbedder(config=made) as embedder:
                receipts = await asyncio.gather(*(call(embedder, number) for number in range(40)))
            return servers, receipts, await books.entries(), await books.spent()

    servers, receipts, entries, spent = asyncio.run(main())
    assert any(len(body["input"]) > 4 for server in servers for body in server.bodies)
    bill = sum(server.bill for server in servers) * PRICE
    sure = sum(entry.spent - entry.unsure for entry in entries)
    # Attempts that may be billed are apart: a 5xx and a lost connection.
    lost = [
        sum(map(PaidServer().billed, served.texts))
        for server in servers
        for served in server.log
        if served.fate in {"500", "hang up", "reset"}
    ]
    assert sure == bill
    assert sum(entry.unsure for entry in entries) == sum(lost) * 2 * PRICE
    assert spent == (sum(entry.spent for entry in entries), 0)
    paid = {entry.id: entry.spent for entry in entries}
    for receipt in filter(None, receipts):
        assert receipt.cost_nanousd == sum(paid[entry] for entry in receipt.ledger_entries)
