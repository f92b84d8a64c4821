"""Time and memory of syncs of many small files, cut from real texts.

    python benchmarks/sync.py --text FILE_OR_FOLDER... --files 10000 --to parquet

Syncs a folder for the first time, then with nothing changed, with 1 % of the files changed, and with 1 % removed. Each
sync has a process of its own, so its time contains the loading of the model if the sync needs it, and its peak memory
is its own. The memory of the model alone is that of a process that embeds one batch of the same texts.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gzip
import json
import math
import pstats
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from embedway._embedder import AsyncEmbedder
from embedway.collections.options import SyncOptions
from embedway.collections.sync import sync_collection
from embedway.config import Config

ENDINGS = (".md", ".rst", ".txt", ".jsonl", ".jsonl.gz")
#: Texts that the process of the model alone embeds.
MODEL_TEXTS = 1024


def long_texts(places):
    """Iterate over the texts of files, and of the files of folders."""
    for place in map(Path, places):
        paths = [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.name.endswith(ENDINGS))
        for path in paths:
            data = path.read_bytes()
            data = gzip.decompress(data) if path.suffix == ".gz" else data
            if ".jsonl" in path.suffixes:
                yield from (json.loads(line)["text"] for line in data.splitlines())
            else:
                yield data.decode(errors="replace")


def pieces(places, count, mean):
    """Return `count` pieces of the texts, numbered, so that all differ; lengths are spread around the mean.

    If the texts are used up, they are cut again at other places.
    """
    generator = random.Random(1)  # noqa: S311  reproducible
    text = "\n\n".join(long_texts(places))
    if len(text) < 16 * mean:
        raise SystemExit("give more texts, or a lower --mean")
    found, start = [], 0
    while len(found) < count:
        length = int(generator.lognormvariate(math.log(mean) - 0.32, 0.8))
        end = start + min(max(length, mean // 8), mean * 8)
        if piece := text[start:end].strip():
            found.append(f"# Piece {len(found)}\n\n{piece}\n")
        start = end if end < len(text) else generator.randrange(mean)
    return found


def child(name, docs, destination, profile):
    """Run one sync, or embed texts with the model alone; print facts as JSON."""
    texts = [path.read_text() for path in sorted(Path(docs).iterdir())[:MODEL_TEXTS]]

    async def work():
        async with AsyncEmbedder(config=Config.load(environ={}, overrides={"cache.backend": "none"})) as embedder:
            began = time.perf_counter()
            if name == "model":
                await embedder.embed(texts)
                return time.perf_counter() - began, {}
            summary = await sync_collection(embedder, destination, [docs], SyncOptions())
            return time.perf_counter() - began, summary.to_json()

    profiler = cProfile.Profile()
    if profile:
        profiler.enable()
    seconds, summary = asyncio.run(work())
    if profile:
        profiler.disable()
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("cumulative").print_stats(60)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    cpu = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"seconds": seconds, "cpu": cpu.ru_utime + cpu.ru_stime, "peak": peak, **summary}))


class Runs:
    """Child processes of one benchmark, and the lines that it prints."""

    def __init__(self, docs, destination, count, profile):
        self.docs, self.destination, self.count, self.profile = docs, destination, count, profile
        self.model = None

    def run(self, name, label):
        arguments = [sys.executable, __file__, "--child", name, str(self.docs), self.destination]
        arguments += ["--profile"] if self.profile and name == "sync" else []
        found = json.loads(subprocess.run(arguments, check=True, stdout=subprocess.PIPE).stdout)
        if name == "model":
            self.model = found["peak"]
            print(f"{label:16} {found['seconds']:8.2f} s  peak {found['peak']:,} MiB", flush=True)
            return found["seconds"]
        counts = "+{added} ~{updated} -{removed} ={unchanged}, {chunks_written} chunks written".format(**found)
        speed = f"{self.count / found['seconds']:8,.0f} files/s  {found['tokens'] / found['seconds']:7,.0f} tokens/s"
        memory = f"peak {found['peak']:,} MiB ({found['peak'] - self.model:+,} to the model alone)"
        print(
            f"{label:16} {found['seconds']:8.2f} s  {speed}  CPU {found['cpu']:6.1f} s  {memory}  {counts}", flush=True
        )
        return found["seconds"]


def measure(runs):
    runs.run("model", "model alone")
    first = runs.run("sync", "first")
    same = runs.run("sync", "nothing changed")
    print(f"{'':16} {100 * same / first:8.2f} % of the first")
    files = sorted(runs.docs.iterdir())
    for path in files[::100]:
        path.write_text(path.read_text() + "\nAnother sentence at the end.\n")
    runs.run("sync", "1 % changed")
    for path in files[50::100]:
        path.unlink()
    runs.run("sync", "1 % removed")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True, nargs="+", help=f"texts, .jsonl with `text`, or folders of {ENDINGS}")
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--mean", type=int, default=900, help="mean characters of a file (default: 900)")
    parser.add_argument("--to", default="parquet", choices=("parquet", "jsonl", "lancedb"))
    parser.add_argument("--profile", action="store_true", help="print a profile of each sync to standard error")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        docs = Path(place) / "docs"
        docs.mkdir()
        texts = pieces(options.text, options.files, options.mean)
        for number, text in enumerate(texts):
            (docs / f"{number:06}.md").write_text(text)
        lengths = sorted(map(len, texts))
        print(
            f"{len(texts):,} files of {sum(lengths) // len(lengths):,} characters on average "
            f"({lengths[0]:,} to {lengths[-1]:,}, median {lengths[len(lengths) // 2]:,}), to {options.to}"
        )
        destination = f"lancedb:{place}/out#rows" if options.to == "lancedb" else f"{place}/out.{options.to}"
        measure(Runs(docs, destination, options.files, options.profile))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:5], profile="--profile" in sys.argv)
    else:
        main()
