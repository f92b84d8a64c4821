"""`embedway search --interactive`: queries line by line, with the model and the collection kept open."""

import statistics
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from embedway.cli.options import Invocation
from embedway.cli.output import (
    DownloadProgress,
    flush_result,
    note,
    print_line,
    print_message,
    print_prompt,
    standard_input,
)
from embedway.cli.search_output import print_hits, print_notes
from embedway.errors import EmbedwayError, UsageError

if TYPE_CHECKING:
    from embedway.collections.query import Searcher, SearchOptions
    from embedway.collections.stores.base import Store
    from embedway.config import Config

#: Maximum bytes of a line.
MAX_LINE_BYTES = 1 << 20
HELP = (
    ":mode vector|keyword|hybrid, :where CONDITION (empty for none), :top N, :group, :neighbours N, "
    ":rerank MODEL (empty for none), :q"
)


async def run_session(invocation: Invocation, config: "Config", store: "Store", options: "SearchOptions") -> None:
    """Answer each line of standard input until `:q` or its end. An error of a query does not end the session."""
    from embedway._embedder import AsyncEmbedder
    from embedway.collections.query import Searcher
    from embedway.worker import Worker

    terminal = sys.stdin is not None and sys.stdin.isatty()
    if terminal:
        note(invocation, f"search {store.destination} ({store.count:,} rows); {HELP}")
    times_s: list[float] = []
    reader = Worker("embedway-queries")
    stream = standard_input()
    async with AsyncEmbedder(config=config, progress=DownloadProgress(invocation)) as embedder:
        searcher = Searcher(embedder, store, note=lambda text: note(invocation, text))
        while True:
            if terminal:
                print_prompt(f"{options.mode}> ")
            line = await reader.call(stream.readline, MAX_LINE_BYTES)
            text = line.decode("utf-8", "replace").strip()
            if not line or text in {":q", ":quit", ":exit"}:
                break
            try:
                if text.startswith(":"):
                    options = changed(options, text, store)
                elif text:
                    times_s.append(await _answer(invocation, searcher, text, options))
            except EmbedwayError as error:
                print_message(f"error: {error}")
    reader.close()
    if times_s:
        p50_ms = statistics.median(times_s) * 1000
        note(invocation, f"{len(times_s):,} queries, p50 {p50_ms:.1f} ms")


async def _answer(invocation: Invocation, searcher: "Searcher", text: str, options: "SearchOptions") -> float:
    """Print the answer of a query, and return the seconds that the search took."""
    start = time.perf_counter()
    [answer] = await searcher.search([text], options)
    seconds = time.perf_counter() - start
    print_hits(answer)
    print_line()
    flush_result()
    print_notes(invocation, searcher.store, answer, options, seconds)
    return seconds


def changed(options: "SearchOptions", command: str, store: "Store") -> "SearchOptions":
    """Return the options after a command such as `:mode vector`. Raises UsageError."""
    from embedway.collections.query import checked_condition

    name, _, value = command[1:].partition(" ")
    value = value.strip()
    values: dict[str, Any] = {}
    if name == "mode":
        values = {name: value}
    elif name == "where":
        values = {name: checked_condition(value or None, store)}
    elif name == "rerank":
        values = {name: value or None}
    elif name == "group":
        values = {name: not options.group}
    elif name in {"top", "neighbours", "candidates"} and value.isdecimal():
        values = {name: int(value)}
    if not values:
        raise UsageError(f"unknown command; use {HELP}")
    return replace(options, **values)
