"""Time and memory of syncs of many small files, cut from real text.

    python benchmarks/sync.py --text FOLDER --files 10000 --to parquet

Prints the seconds of a first sync, of one with nothing changed, with 1 % of the files changed and with 1 % removed,
each with its files/s, and the peak memory of the process.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import tempfile
import time
from pathlib import Path

from embedway._embedder import AsyncEmbedder
from embedway.collections.options import SyncOptions
from embedway.collections.sync import sync_collection
from embedway.config import Config

CHARACTERS = 1200


def pieces(folder, count):
    """Iterate over `count` pieces of the text files of a folder; numbered, so that all differ."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix in {".md", ".rst", ".txt"})
    if not paths:
        raise SystemExit(f"{folder} has no .md, .rst or .txt file")
    number = 0
    while number < count:
        for path in paths:
            text = path.read_text(errors="replace")
            for start in range(0, len(text), CHARACTERS):
                if number == count:
                    return
                yield f"# Piece {number}\n\n{text[start : start + CHARACTERS]}"
                number += 1


async def measure(docs, destination, count):
    async with AsyncEmbedder(config=Config.load(environ={}, overrides={"cache.backend": "none"})) as embedder:
        await embedder.embed(["warm up"])

        async def sync(name):
            began = time.perf_counter()
            summary = await sync_collection(embedder, destination, [str(docs)], SyncOptions())
            seconds = time.perf_counter() - began
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            counts = f"+{summary.added} ~{summary.updated} -{summary.removed} ={summary.unchanged}"
            print(
                f"{name:16} {seconds:9.2f} s  {count / seconds:9,.0f} files/s  peak {peak:,} MiB  {counts}", flush=True
            )
            return seconds

        first = await sync("first")
        same = await sync("nothing changed")
        print(f"{'':16} {100 * same / first:9.2f} % of the first")
        files = sorted(docs.iterdir())
        for path in files[::100]:
            path.write_text(path.read_text() + "\nAnother sentence at the end.\n")
        await sync("1 % changed")
        for path in files[50::100]:
            path.unlink()
        await sync("1 % removed")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True, help="folder with .md, .rst or .txt files")
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--to", default="parquet", choices=("parquet", "jsonl", "lancedb"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        docs = Path(place) / "docs"
        docs.mkdir()
        for number, text in enumerate(pieces(options.text, options.files)):
            (docs / f"{number:06}.md").write_text(text)
        destination = f"lancedb:{place}/out#rows" if options.to == "lancedb" else f"{place}/out.{options.to}"
        asyncio.run(measure(docs, destination, options.files))


if __name__ == "__main__":
    main()
