"""Process that spends: many concurrent calls, some of them cancelled once the server has them. Started by a test."""

import asyncio
import collections
import json
import sys

import aiohttp

from embedway import AsyncEmbedder, Config
from embedway.errors import BudgetExceededError, EmbedwayError


async def call(embedder, session, base, model, texts):
    """Make one call; return its outcome."""
    task = asyncio.create_task(embedder.embed(texts, model=model))
    if texts[0].startswith("abandoned"):
        # The server answers `arrived` when it has the request, and holds the request until `left`. Refused ones never
        # arrive.
        named = {"text": texts[0]}
        arrival = asyncio.create_task(session.get(f"{base}/arrived", params=named))
        await asyncio.wait({task, arrival}, return_when=asyncio.FIRST_COMPLETED)
        task.cancel()
        arrival.cancel()
        async with session.get(f"{base}/left", params=named):
            pass
    try:
        await task
    except BudgetExceededError:
        return "over budget"
    except EmbedwayError as error:
        return type(error).__name__
    except asyncio.CancelledError:
        return "abandoned"
    return "answered"


async def main(overrides, base, model, calls):
    """Make all calls at once; print the counts of their outcomes."""
    config = Config.load(environ={}, overrides=overrides)
    connector = aiohttp.TCPConnector(limit=0)
    async with AsyncEmbedder(config=config) as embedder, aiohttp.ClientSession(connector=connector) as session:
        ended = await asyncio.gather(*(call(embedder, session, base, model, texts) for texts in calls))
    sys.stdout.write(json.dumps(collections.Counter(ended)))


if __name__ == "__main__":
    asyncio.run(main(*json.load(sys.stdin)))
