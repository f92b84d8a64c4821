"""Cost of hooks: nanoseconds of an operation and of an event, and how many of them a query has.

python benchmarks/hooks.py [--model NAME]
"""

import argparse
import asyncio
import timeit
from collections import Counter

from embedway import AsyncEmbedder, Config
from embedway.telemetry.hooks import BaseHook, Hooks
from embedway.telemetry.operations import AttemptDetails, CostDetails

COUNT = 100_000


class Listening(BaseHook):
    """Hook for events only, like the embedder's own hooks."""

    def event(self, operation):
        pass


class Operating(BaseHook):
    """No-op hook for operations."""

    def begin(self, operation):
        pass

    def end(self, operation, outcome):
        pass

    def event(self, operation):
        pass


class Counting(BaseHook):
    """Hook that counts operations and events by kind."""

    def __init__(self):
        self.operations, self.events = Counter(), Counter()

    def begin(self, operation):
        self.operations[operation.details.kind] += 1

    def event(self, operation):
        self.events[operation.details.kind] += 1


def nanoseconds(work):
    """Return the minimum of seven series, per call."""
    return min(timeit.repeat(work, number=COUNT, repeat=7)) / COUNT * 1e9


def print_costs():
    """Print the nanoseconds of an operation and of an event for three sets of hooks."""
    for name, own in (("none", []), ("events only", [Listening()]), ("operations", [Operating()])):
        hooks = Hooks(own)

        def operation(hooks=hooks):
            with hooks.operation(AttemptDetails, "acme/m", "routes.r", 1, 3, 120) as outcome:
                outcome.tokens = 120

        def event(hooks=hooks):
            hooks.event(CostDetails, "acme/m", 120, "reported")

        print(f"{name:13} {nanoseconds(operation):6,.0f} ns an operation {nanoseconds(event):6,.0f} ns an event")


async def count(title, model, settings):
    """Print the operations and events of a query: of its first call, and of a hit."""
    hook = Counting()
    overrides = {"cache.backend": "memory", **settings}
    async with AsyncEmbedder(config=Config.load(environ={}, overrides=overrides), hooks=[hook]) as embedder:
        await embedder.embed_query("a first text", model=model)
        for kind, text in (("miss", "another text"), ("hit", "another text")):
            await embedder.cache.stats()  # everything is stored
            hook.operations.clear()
            hook.events.clear()
            await embedder.embed_query(text, model=model)
            await embedder.cache.stats()
            names = ", ".join(f"{number} {name}" for name, number in (hook.operations + hook.events).items())
            print(f"{title}, {kind:4} {hook.operations.total()} operations, {hook.events.total()} events: {names}")


async def main(model):
    """Count for a model on this machine, and for one over a service."""
    own = {"name": "acme/m", "dimensions": 16, "max_tokens": 50, "price_usd_per_million_tokens": "1"}
    service = {"models.m": own, "routes.r": {"model": "acme/m", "provider": "fake"}, "ledger.backend": "none"}
    await count("this machine", model, {})
    await count("a service   ", "acme/m", service)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="all-MiniLM-L6-v2", help="model on this machine")
    print_costs()
    asyncio.run(main(parser.parse_args().model))
