"""Loopback servers, of TCP connections and of HTTP, that leave nothing open."""

import asyncio
import contextlib

from aiohttp import web


@contextlib.asynccontextmanager
async def serving(handle, **options):
    """Run a server that calls `handle(reader, writer)` for each connection, and yield its port.

    Its connections end with it: one that is still open would be reported in a later test.
    """
    tasks = set()

    async def handle_one(reader, writer):
        tasks.add(asyncio.current_task())
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await handle(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    server = await asyncio.start_server(handle_one, "127.0.0.1", 0, **options)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def serving_app(app, *, ssl_context=None):
    """Run an aiohttp application, and yield its port."""
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl_context).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
