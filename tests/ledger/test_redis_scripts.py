"""Scripts on a server: concurrent calls share a round trip, each runs once, and the script is sent once."""

import asyncio
import contextlib

import pytest
import redis
import redis.asyncio

from embedway.ledger.redis_scripts import SharedScript

SCRIPT = """
if ARGV[1] == 'fail' then return redis.error_reply('mine ' .. ARGV[2]) end
return redis.call('RPUSH', KEYS[1], ARGV[1]) .. ' ' .. ARGV[1]
"""


@pytest.fixture
def run(valkey):
    def ran(work):
        async def main():
            client = redis.asyncio.Redis.from_url(valkey, decode_responses=True)
            await client.flushall()
            try:
                return await work(SharedScript(client, SCRIPT, ["list"], cluster=False), client)
            finally:
                await client.aclose()

        return asyncio.run(main())

    return ran


async def counts(client):
    """Return the scripts that the server ran by hash, and those that were sent to it."""
    stats = await client.info("commandstats")
    return tuple(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))


def test_each_call_runs_once_also_if_the_server_forgot_the_script(run):
    async def work(script, client):
        for start in (0, 20):
            await client.script_flush()
            answers = await asyncio.gather(*(script.run(str(number)) for number in range(start, start + 20)))
            assert [answer.split()[1] for answer in answers] == [str(number) for number in range(start, start + 20)]
        return await client.lrange("list", 0, -1)

    assert sorted(map(int, run(work))) == list(range(40))


def test_a_known_script_is_called_by_its_hash(run):
    async def work(script, client):
        await script.run("first")
        await client.config_resetstat()
        answers = await asyncio.gather(*(script.run(str(number)) for number in range(10)))
        assert answers == [f"{number + 2} {number}" for number in range(10)]
        assert await script.run("last") == "12 last"
        assert await counts(client) == (11, 0)

    run(work)


def test_an_error_is_that_of_its_call(run):
    async def work(script, _):
        await script.run("first")
        calls = [script.run("a"), script.run("fail", "one"), script.run("b"), script.run("fail", "two")]
        first, one, third, two = await asyncio.gather(*calls, return_exceptions=True)
        assert (first, third) == ("2 a", "3 b")
        assert [str(error) for error in (one, two)] == ["mine one", "mine two"]

    run(work)


def test_a_caller_who_goes_takes_no_other_along(run):
    async def work(script, client):
        await script.run("first")
        tasks = [asyncio.create_task(script.run(name)) for name in "abc"]
        await asyncio.sleep(0)
        tasks[1].cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert (found[0], found[2]) == ("2 a", "4 c")
        assert isinstance(found[1], asyncio.CancelledError)
        assert await client.lrange("list", 0, -1) == ["first", "a", "b", "c"]

    run(work)


def test_all_calls_of_a_lost_connection_fail():
    async def main():
        client = redis.asyncio.Redis.from_url("redis://127.0.0.1:1")
        script = SharedScript(client, SCRIPT, ["list"], cluster=False)
        found = await asyncio.gather(script.run("a"), script.run("b"), return_exceptions=True)
        assert [isinstance(error, redis.exceptions.ConnectionError) for error in found] == [True, True]
        with contextlib.suppress(redis.exceptions.RedisError):
            await client.aclose()

    asyncio.run(main())
