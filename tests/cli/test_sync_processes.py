"""A signal ends a sync in every phase: it says what is kept, and the same command goes on."""

import json
import signal
import subprocess
import sys

import pytest

from signalled import COMMIT, PARSER, ended, files, started_command

REUSED = "embedway: vectors that are already in the cache (sqlite) are reused; run the same command again to continue"
SYNC = ("sync", "docs", "--to", "out.jsonl", "--model", "acme/m")
#: Batches of one chunk, and a second batch that is not answered.
SECOND_BATCH = """
import asyncio
from embedway.collections import chunk_reader
from embedway.collections.embedding import BatchEmbedder
chunk_reader.FIRST_BATCH_CHUNKS = chunk_reader.MAX_BATCH_CHUNKS = 1
good, calls = BatchEmbedder.embed, []
async def embed(self, batch, space):
    calls.append(batch)
    if len(calls) == 2:
        ready()
        await asyncio.sleep(600)
    return await good(self, batch, space)
BatchEmbedder.embed = embed
"""
#: A watch that has not begun its first round.
BEFORE_THE_FIRST_ROUND = """
from embedway.collections import watching
async def watch_collection(*arguments):
    ready()
    import asyncio
    await asyncio.sleep(600)
watching.watch_collection = watch_collection
"""
#: The first round of a watch is done.
FIRST_ROUND = """
from embedway.cli.watch_rounds import WatchRounds
good = WatchRounds.done
def done(self, summary):
    ready()
    good(self, summary)
WatchRounds.done = done
"""
#: The parser of the second round does not return.
SECOND_PARSE = """
from embedway.collections.parsers import html
parse_html, parsed = html.parse_html, []
def parse(text, path):
    parsed.append(path)
    if len(parsed) > 1:
        sys.stdout.write("parsing\\n")
        sys.stdout.flush()
        import time
        time.sleep(600)
    return parse_html(text, path)
html.parse_html = parse
"""
SIGNALS = [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")]


@pytest.fixture
def docs(place):
    folder = place / "docs"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.html").write_text(f"<p>the text {name}")
    return folder


@pytest.fixture
def begin(environment, place, docs):
    return lambda prelude, *more: started_command(place, environment, prelude, *SYNC, *more)


@pytest.fixture
def again(environment, place):
    """Return a function that runs the same command to its end, and returns its summary."""

    def run():
        command = [sys.executable, "-m", "embedway", "--config", "embedway.toml", *SYNC, "--json"]
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, check=True, timeout=120)
        return json.loads(done.stdout)

    return run


@pytest.mark.parametrize(("number", "name"), SIGNALS)
def test_while_it_reads(begin, again, place, number, name):
    with begin(PARSER.format(work="import time; time.sleep(600)")) as process:
        assert ended(process, number) == (
            128 + number,
            [f"embedway: stopped by {name}", "embedway: out.jsonl is not written", REUSED],
        )
    assert sorted(files(place)) == ["embedway.toml"]
    assert again()["added"] == 3


@pytest.mark.parametrize(("number", "name"), SIGNALS)
def test_while_it_embeds(begin, again, place, number, name):
    with begin(SECOND_BATCH) as process:
        code, lines = ended(process, number)
    assert (code, lines) == (
        128 + number,
        [
            f"embedway: stopped by {name}",
            "embedway: out.jsonl is not written",
            "embedway: 1 computed vector kept outside of it; run the same command again to continue",
        ],
    )
    summary = again()
    assert (summary["resumed"], summary["computed"] + summary["cached"], summary["added"]) == (1, 2, 3)


@pytest.mark.parametrize(("number", "name"), SIGNALS)
def test_while_it_commits(begin, again, number, name):
    with begin(COMMIT) as process:
        process.send_signal(number)
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.wait(30) == 128 + number
        lines = process.stderr.read().decode().splitlines()
    assert lines == [f"embedway: stopped by {name}", "embedway: out.jsonl is complete"]
    assert again()["unchanged"] == 3


@pytest.mark.parametrize(("number", "name"), SIGNALS)
def test_a_watch_that_waits_has_lost_nothing(begin, again, number, name):
    with begin(FIRST_ROUND, "--watch") as process:
        assert process.stdout.readline().startswith(b"3 added, 0 updated, 0 removed, 0 unchanged in ")
        assert ended(process, number) == (
            0,
            [
                "embedway: watching docs: each change starts a sync; Ctrl-C stops",
                f"embedway: stopped by {name}",
                "embedway: out.jsonl has all changes as of the last sync; the same command watches again",
            ],
        )
    assert again()["unchanged"] == 3


@pytest.mark.parametrize("prelude", [BEFORE_THE_FIRST_ROUND, PARSER.format(work="import time; time.sleep(600)")])
def test_a_watch_that_is_stopped_before_its_first_round_is_not_in_step(begin, again, prelude):
    with begin(prelude, "--watch") as process:
        code, lines = ended(process, signal.SIGINT)
    assert (code, lines[1:]) == (130, ["embedway: stopped by Ctrl-C", "embedway: out.jsonl is not written", REUSED])
    assert again()["added"] == 3


def test_a_later_round_of_a_watch_that_is_stopped_is_not_complete(begin, again, docs):
    for name in "bc":
        (docs / f"{name}.html").unlink()
    with begin(SECOND_PARSE, "--watch") as process:
        assert process.stdout.readline().startswith(b"1 added")
        (docs / "a.html").write_text("<p>another text")
        assert process.stdout.readline() == b"parsing\n"
        code, lines = ended(process, signal.SIGINT)
    assert (code, lines[1:]) == (130, ["embedway: stopped by Ctrl-C", "embedway: out.jsonl is unchanged", REUSED])
    assert again()["updated"] == 1
