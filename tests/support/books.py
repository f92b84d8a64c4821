"""Ledgers of tests over real HTTP, and a service whose bill is known."""

import contextlib

import redis

from api_servers import KEY, CompatibleServer
from embedway import Config
from embedway.ledger.redis import RedisLedger
from embedway.ledger.sqlite import SqliteLedger

MODEL = "acme/m"
#: Nano-dollars per token.
PRICE = 1000


class PaidServer(CompatibleServer):
    """Service that bills the estimate of each text, prompts included. `reports` makes the reported usage of a bill."""

    models = frozenset({MODEL})

    def __init__(self, reports=lambda tokens: {"prompt_tokens": tokens, "total_tokens": tokens}):
        super().__init__()
        self.reports = reports

    @property
    def bill(self):
        """Tokens of the requests that it answered."""
        return sum(sum(map(self.billed, served.texts)) for served in self.log if served.fate in {"answered", "changed"})

    def billed(self, text):
        digits = sum(text.count(digit) for digit in "0123456789")
        return digits - (-(len(text.encode()) - digits) // 3)

    def answer(self, body):
        answer = {**super().answer(body), "usage": self.reports(self.tokens(body))}
        return {key: value for key, value in answer.items() if value is not None}


def route_to(server, **more):
    return {"model": MODEL, "provider": "openai-compatible", "base_url": f"{server.url}/v1", "api_key": KEY, **more}


def settings_of(server, books, **more):
    """Return the settings of a model at a paid service, with very short waits and without a cache."""
    return Config.load(
        environ={},
        overrides={
            "models.m": {"name": MODEL, "dimensions": 16, "max_tokens": 512, "price_usd_per_million_tokens": "1"},
            "routes.r": route_to(server),
            "upstream.first_wait_s": 0.001,
            "upstream.longest_wait_s": 0.002,
            "cache.backend": "none",
            **books.settings,
            **more,
        },
    )


class Books:
    """Settings of a ledger, and its content."""

    def __init__(self, settings, ledger):
        self.settings = settings
        self._ledger = ledger

    async def entries(self):
        """Return the entries, oldest first."""
        async with contextlib.AsyncExitStack() as stack:
            ledger = self._ledger()
            stack.push_async_callback(ledger.aclose)
            return (await ledger.entries())[::-1]

    async def spent(self):
        """Return the nano-dollars spent so far, and those that are held."""
        async with contextlib.AsyncExitStack() as stack:
            ledger = self._ledger()
            stack.push_async_callback(ledger.aclose)
            total = (await ledger.totals())[0]
            return total.spent, total.held


def sqlite_books(folder):
    path = folder / "ledger.sqlite"
    return Books({"ledger.path": str(path)}, lambda: SqliteLedger(path))


def redis_books(url):
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        client.flushall()
    return Books({"ledger.backend": "redis", "ledger.url": url}, lambda: RedisLedger(url))
