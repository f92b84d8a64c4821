"""`embedway search --interactive`: queries line by line, with the model and the collection kept open."""

import difflib
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
    print_table,
    standard_input,
)
from embedway.cli.search_output import print_hits, print_notes
from embedway.errors import EmbedwayError, UsageError
from embedway.interrupts import explain

if TYPE_CHECKING:
    from embedway.collections.query import Searcher, SearchOptions
    from embedway.collections.stores.base import Store
    from embedway.config import Config

#: Maximum bytes of a line.
MAX_LINE_BYTES = 1 << 20
#: Commands that change an option: an example, and what the option does.
OPTIONS = {
    "mode": (":mode hybrid", "rank by vector, keyword or hybrid"),
    "where": (":where lang = 'de'", "search only rows that meet a condition; empty for all rows"),
    "top": (":top 10", "number of rows"),
    "group": (":group", "show only the best row of each document; again for all rows"),
    "merge": (":merge", "let hits contain chunks beside them; again for all rows"),
    "neighbours": (":neighbours 1", "chunks before and after each row"),
    "rerank": (":rerank MODEL", "reorder the best rows; empty for no reranker"),
    "candidates": (":candidates 100", "rows of each list to fuse or to rerank"),
    "fusion": (":fusion ranks", "fuse by scores or ranks in hybrid mode"),
    "highlight": (":highlight", "choose the best sentence by words only; again by meaning"),
}
HELPS = frozenset({":help", ":h", ":?"})
ENDS = frozenset({":q", ":quit", ":exit"})


async def run_session(invocation: Invocation, config: "Config", store: "Store", options: "SearchOptions") -> None:
    """Answer each line of standard input until `:q` or its end. An error of a query does not end the session."""
    from embedway._embedder import AsyncEmbedder
    from embedway.collections.query import Searcher
    from embedway.worker import Worker

    terminal = sys.stdin is not None and sys.stdin.isatty()
    if terminal:
        note(invocation, f"search {store.destination} ({store.count:,} rows); :help lists the commands, :q ends")
    explain("the session is ended; a search changes nothing")
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
            if not line and terminal:
                print_prompt("\n")  # after Ctrl-D, the prompt's line is open
            if not line or text in ENDS:
                break
            try:
                if text.startswith(":"):
                    options = _run_command(invocation, text, options, store)
                elif text:
                    times_s.append(await _answer(invocation, searcher, text, options))
            except EmbedwayError as error:
                print_message(f"error: {error}")
    reader.close()
    if times_s:
        p50_ms = statistics.median(times_s) * 1000
        count = "1 query" if len(times_s) == 1 else f"{len(times_s):,} queries"
        note(invocation, f"{count}, p50 {p50_ms:.1f} ms")


def _run_command(invocation: Invocation, command: str, options: "SearchOptions", store: "Store") -> "SearchOptions":
    """Run a command of the session, and return the options after it. Raises UsageError."""
    if command in HELPS:
        print_help(options)
        return options
    new = changed(options, command, store)
    name, _, value = command[1:].partition(" ")
    shown = value.strip() if name == "where" else ""
    note(invocation, f"{name}: {shown or _shown(new, name)}")
    return new


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


def print_help(options: "SearchOptions") -> None:
    """Print the commands, and the present options."""
    rows = [(example, _shown(options, name), meaning) for name, (example, meaning) in OPTIONS.items()]
    print_table(("command", "now", "meaning"), [*rows, (":help, :q", "", "list the commands; end the session")])
    print_line()
    flush_result()


def _shown(options: "SearchOptions", name: str) -> str:
    """Return the present value of an option for people."""
    value = getattr(options, name)
    if name == "highlight":
        return "by words" if value is False else "by meaning"
    if value is None or value is False:
        return "no"
    return "yes" if value is True or not isinstance(value, (str, int)) else str(value)


def changed(options: "SearchOptions", command: str, store: "Store") -> "SearchOptions":
    """Return the options after a command such as `:mode vector`. Raises UsageError, which explains the command."""
    from embedway.collections.query import checked_condition

    name, _, value = command[1:].partition(" ")
    value = value.strip()
    if name not in OPTIONS:
        near = difflib.get_close_matches(name, OPTIONS, 1)
        hint = f"; did you mean :{near[0]}?" if near else ""
        raise UsageError(f"there is no command :{name}{hint or '; :help lists the commands'}")
    new: Any = value
    if name == "where":
        new = checked_condition(value or None, store)
    elif name == "rerank":
        new = value or None
    elif name in {"group", "merge", "highlight"}:
        if value:
            raise UsageError(f":{name} has no value; it turns the option on or off")
        new = options.highlight is False if name == "highlight" else not getattr(options, name)
    elif name not in {"mode", "fusion"}:
        try:
            new = int(value)
        except ValueError:
            raise UsageError(f":{name} needs a whole number, such as {OPTIONS[name][0]}") from None
    return replace(options, **{name: new})
