"""A process that spends: many calls at once, some of which it gives up when the server has them. Started by a test."""

import asyncio
import collections
import json
import sys

import aiohttp

from embedway import AsyncEmbedder, Config
from embedway.errors import BudgetExceededError, EmbedwayError

MODEL = "text-embedding-3-small"


async def call(embedder, session, base, text):
    """One call; how it ended."""
    task = asyncio.create_task(embedder.embed(text, model=MODEL))
    if text.startswith("abandoned"):
        # The server says when the request is there; refused ones never get so far.
        arrival = asyncio.create_task(session.get(f"{base}/arrived", params={"text": text}))
        await asyncio.wait({task, arrival}, return_when=asyncio.FIRST_COMPLETED)
        task.cancel()
        arrival.cancel()
    try:
        await task
    except BudgetExceededError:
        return "over budget"
    except EmbedwayError as error:
        return type(error).__name__
    except asyncio.CancelledError:
        return "abandoned"
    return "answered"


async def main(overrides, base, texts):
    """All calls at once; prints how they ended."""
    config = Config.load(environ={}, overrides=overrides)
    connector = aiohttp.TCPConnector(limit=0)
    async with AsyncEmbedder(config) as embedder, aiohttp.ClientSession(connector=connector) as session:
        ended = await asyncio.gather(*(call(embedder, session, base, text) for text in texts))
    sys.stdout.write(json.dumps(collections.Counter(ended)))


if __name__ == "__main__":
    asyncio.run(main(*json.load(sys.stdin)))
