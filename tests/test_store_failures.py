"""Failures of stores in our own words: each kind has a reason and a remedy, and nothing that a server wrote."""

import asyncio
import sqlite3

import pytest
import redis.exceptions

from embedway.cache.base import Group
from embedway.cache.redis import RedisCache
from embedway.store_failures import explain_file, explain_server, server_address
from faulty_servers import answering

SECRET = "TOPSECRETpw"  # noqa: S105  of a server of this test
#: The answer of a server, and words of the reason and of the remedy.
ANSWERS = [
    ("NOAUTH Authentication required.", "requires a password", "set the user and password in cache.url"),
    ("WRONGPASS invalid username-password pair", "refuses the user or password", "correct the user and password"),
    ("ERR invalid password", "refuses the user or password", "cache.url"),
    ("NOPERM User x has no permissions to run the 'mget' command", "may not run the command MGET", "commands and keys"),
    ("NOPERM this user has no permissions to run the 'TOPSECRETpw' command", "may not run the command", "cache.url"),
    ("NOPERM No permissions to access a key", "may not run the command", "embedway:*"),
    (
        "ERR ACL failure in script: User x has no permissions to run the 'set' command",
        "may not run the command SET",
        "keys",
    ),
    ("ERR The user executing the script can't run this command or subcommand", "may not run the command", "keys"),
    ("READONLY You can't write against a read only replica.", "read-only replica", "to the primary"),
    ("LOADING Valkey is loading the dataset in memory", "loading its data", "wait"),
    ("OOM command not allowed when used memory > 'maxmemory'.", "memory is full", "maxmemory"),
    ("MISCONF Valkey is configured to save RDB snapshots, but it's unable to", "MISCONF", "free space on the server"),
    ("MASTERDOWN Link with MASTER is down", "without a connection to its primary", "to the primary"),
    ("CLUSTERDOWN The cluster is down", "cluster is down", "repair the cluster"),
    ("MOVED 3999 10.0.0.1:6381", "node of a cluster", "cache.cluster = true"),
    ("ASK 3999 10.0.0.1:6381", "node of a cluster", "cache.cluster = true"),
    ("CROSSSLOT Keys in request don't hash to the same slot", "node of a cluster", "cache.cluster = true"),
    ("ERR SELECT is not allowed in cluster mode", "node of a cluster", "cache.cluster = true"),
    ("TRYAGAIN Multiple keys request during rehashing of slot", "moving slots", "wait"),
    ("DENIED Redis is running in protected mode because protected mode is enabled", "protected mode", "a password"),
    ("ERR max number of clients reached", "too many connections", "maxclients"),
    ("NOREPLICAS Not enough good replicas to write.", "too few of its replicas", "replicas"),
    ("BUSY Valkey is busy running a script.", "busy with a script", "wait"),
    ("ERR DB index is out of range", "no database of this number", "number of the database in cache.url"),
    ("WRONGTYPE Operation against a key holding the wrong kind of value", "another program", "another database"),
    ("ERR unknown command 'mget', with args beginning with: 'TOPSECRETpw'", "not know the command MGET", "Redis 5"),
    ("NOPROTO unsupported protocol version", "not answer as Redis does", "host and port"),
    ("ERR a fault TOPSECRETpw that nobody knows", "unknown error (ResponseError)", "check cache.url"),
    ("TOPSECRETPW is a code that nobody knows", "unknown error (ResponseError)", "check cache.url"),
]


@pytest.mark.parametrize(("answer", "reason", "remedy"), ANSWERS, ids=[answer[:30] for answer, _, _ in ANSWERS])
@pytest.mark.parametrize("protocol", [2, 3])
def test_each_answer_of_a_server_has_a_reason_and_a_remedy(answer, reason, remedy, protocol):
    async def main():
        async with answering(f"-{answer}\r\n".encode()) as port:
            cache = RedisCache(f"redis://:{SECRET}@127.0.0.1:{port}/0?protocol={protocol}")
            await cache.get_many(Group("m", "m@1/4"), [bytes(32)])
            await cache.aclose()
            return cache.errors

    errors = asyncio.run(main())
    assert reason in errors.last.reason
    assert remedy in errors.last.remedy
    assert SECRET.lower() not in repr(errors).lower()


def test_the_answer_to_a_command_of_a_pipeline_is_recognized():
    """The library writes the command, with its values, before the server's answer."""
    text = f"Command # 2 (SET embedway:v1:a {SECRET} BUSY) of pipeline caused error: MISCONF it cannot save"
    failure = explain_server(redis.exceptions.ResponseError(text), "redis://h", setting="cache.url", answer_s=1)
    assert failure.kind == "disk of the server"
    assert SECRET not in str(failure)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://user:TOPSECRETpw@h.example:6380/0", "h.example:6380"),
        ("redis://:TOPSECRETpw@h.example/3", "h.example:6379/3"),
        ("rediss://h.example?db=2&password=TOPSECRETpw&ssl_ca_certs=/TOPSECRETpw", "h.example:6379/2"),
        ("redis://:TOPSECRETpw@[2001:db8::1]:6380/0", "[2001:db8::1]:6380"),
        ("unix://:TOPSECRETpw@/run/valkey.sock?db=1", "/run/valkey.sock/1"),
        ("redis://h:port", "an invalid URL"),
        ("redis://", "localhost:6379"),
    ],
)
def test_an_address_has_no_credentials(url, address):
    assert server_address(url) == address


def sqlite_error(code):
    error = sqlite3.OperationalError(SECRET)
    error.sqlite_errorcode, error.sqlite_errorname = code, "SQLITE_NAME"
    return error


@pytest.mark.parametrize(
    ("error", "reason", "remedy"),
    [
        (sqlite_error(sqlite3.SQLITE_FULL), "the disk is full", "free some space"),
        (sqlite_error(sqlite3.SQLITE_READONLY_DBMOVED), "the file is read-only", "permissions"),
        (sqlite_error(sqlite3.SQLITE_BUSY_SNAPSHOT), "another program has locked it", "end that program"),
        (sqlite_error(sqlite3.SQLITE_CANTOPEN_ISDIR), "cannot be opened", "its folder"),
        (sqlite_error(sqlite3.SQLITE_IOERR_WRITE), "its disk reports errors", "check the disk"),
        (sqlite_error(sqlite3.SQLITE_CORRUPT), "the file is damaged", "delete the file, or set cache.path"),
        (sqlite_error(sqlite3.SQLITE_TOOBIG), "SQLite reports SQLITE_NAME", "check the file"),
        (OSError(28, SECRET), "the disk is full", "set cache.path"),
        (IsADirectoryError(21, SECRET), "it is a folder, not a file", "set cache.path"),
        (PermissionError(13, SECRET), "permission denied", "set cache.path"),
        (OSError(SECRET), "OSError", "set cache.path"),
        (ValueError(SECRET), "invalid values (ValueError)", "delete the file"),
    ],
)
def test_each_error_of_a_file_has_a_reason_and_a_remedy(error, reason, remedy):
    failure = explain_file(error, setting="cache.path")
    assert reason in failure.reason
    assert remedy in failure.remedy
    assert SECRET not in str(failure)


def test_no_remedy_deletes_state():
    failure = explain_file(sqlite_error(sqlite3.SQLITE_NOTADB), setting="ledger.path", repair="restore a backup")
    assert failure.remedy == "restore a backup, or set ledger.path"
