"""Embed the installed Python's own standard library and ask it four questions: `make run`."""

import asyncio
import re
import shutil
import sys
import sysconfig
from pathlib import Path

from embedway import AsyncEmbedder
from embedway.collections.report import RunStatus
from embedway.collections.run import RunOptions, run_job
from embedway.collections.search import Hit
from embedway.collections.stores import open_store

LIBRARY = Path(sysconfig.get_path("stdlib")).resolve()
#: Packages and modules to read: enough to be worth a search, few enough for half a minute on two cores.
PARTS = ("asyncio", "concurrent", "http", "json", "logging", "pathlib", "queue", "sched", "shelve", "sqlite3")
QUESTIONS = (
    "how do I rotate a log file when it gets too big?",
    "send log messages by email",
    "iterate over all files below a folder that match a pattern",
    "a queue that returns the smallest item first",
)
DESTINATION = "out/standard-library.parquet"
HITS = 2


async def main() -> None:
    sources = [str(path) for part in PARTS for path in (LIBRARY / part, LIBRARY / f"{part}.py") if path.exists()]
    Path(DESTINATION).parent.mkdir(exist_ok=True)
    print(f"Embedding {len(sources)} packages of {LIBRARY}.")
    print("The first run downloads the model (91 MB) and computes; the next one reads the cache.")
    async with AsyncEmbedder() as embedder:
        options = RunOptions(overwrite=True, chunk_tokens=128, overlap_tokens=16)
        done = await run_job(embedder, sources, DESTINATION, options, progress=Progress())
        queries = [await embedder.embed_query(question) for question in QUESTIONS]
    store = open_store(DESTINATION)
    for question, query in zip(QUESTIONS, queries, strict=True):
        print(f"\n{question}")
        store.check_space(query.space)
        for hit in store.search(query[0], HITS):
            print(hit_line(hit)[: shutil.get_terminal_size((100, 24)).columns])
    print(
        f"\n{done.chunks:,} passages of {done.documents} files, {done.tokens:,} tokens, in {done.seconds:.1f} s: "
        f"{done.texts_per_s:,.0f} passages/s, {done.cached:,} of them from the cache.\n"
        "Ask your own question, or embed your own folder:\n"
        f"  .venv/bin/embedway search {DESTINATION} 'how do I set a timeout for a coroutine?'\n"
        "  .venv/bin/embedway run FOLDER --to mine.parquet\n"
        "  .venv/bin/embedway search mine.parquet 'your question'"
    )


class Progress:
    """Count of the passages of a run, on a terminal only."""

    def update(self, status: RunStatus) -> None:
        """Show the count in place of the last one."""
        if sys.stderr.isatty():
            print(f"  {status.chunks_done:,} passages", end="\r", file=sys.stderr, flush=True)


def hit_line(hit: Hit) -> str:
    """Return score, position and the place of a hit in its file: class and function, else a line with a word."""
    lines = hit.text.splitlines()
    found = [n for n, line in enumerate(lines) if re.match(r"\s*(async def|def|class) ", line)]
    found += [n for n, line in enumerate(lines) if re.search(r"[^\W_]{3}", line)] or [0]
    name = hit.document_id if hit.source == hit.document_id else f"{hit.source}/{hit.document_id}"
    where = f"{name}:{hit.start_line + found[0]}"
    return f"  {hit.score:.2f}  {where:<24} {hit.headings or lines[found[0]].strip()}"


if __name__ == "__main__":
    asyncio.run(main())
