"""Concurrent tasks of one caller: errors, cancellation, and what they leave on the caller's task."""

import asyncio

import pytest

from embedway.concurrency import run_together


async def fail(error):
    await asyncio.sleep(0)
    raise error


def test_a_failure_leaves_no_cancellation_on_the_task():
    async def main():
        with pytest.raises(ExceptionGroup) as caught:
            await run_together([fail(ValueError("one")), asyncio.Event().wait()])
        assert [str(error) for error in caught.value.exceptions] == ["one"]
        assert asyncio.current_task().cancelling() == 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.Event().wait()

    asyncio.run(main())


@pytest.mark.parametrize("is_deaf", [False, True])
def test_a_timeout_ends_all_tasks(is_deaf):
    ended = []

    async def one():
        try:
            await asyncio.Event().wait()
        finally:
            if is_deaf:
                await asyncio.sleep(0)
            ended.append(1)

    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await run_together([one(), one()])
        assert len(ended) == 2
        assert asyncio.current_task().cancelling() == 0

    asyncio.run(main())


def test_errors_are_in_the_order_of_time():
    async def late():
        try:
            await asyncio.Event().wait()
        finally:
            raise KeyError("late")

    async def main():
        with pytest.raises(ExceptionGroup) as caught:
            await run_together([late(), fail(ValueError())])
        assert [type(error) for error in caught.value.exceptions] == [ValueError, KeyError]
        await run_together([])

    asyncio.run(main())
