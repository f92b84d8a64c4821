"""Tests that are coroutines."""

import asyncio
import functools


def in_loop(test):
    """Run a test in an event loop of its own."""

    @functools.wraps(test)
    def run(*args, **options):
        asyncio.run(test(*args, **options))

    return run
