"""Embed the files of a folder into a Parquet file, and search it: search_a_folder.py FOLDER QUESTION."""

import asyncio
import sys

from embedway import AsyncEmbedder
from embedway.collections.run import RunOptions, run_job
from embedway.collections.stores import open_store


async def main(folder: str = "docs", question: str = "how do I set a budget?") -> None:
    async with AsyncEmbedder() as embedder:
        await run_job(embedder, [folder], "folder.parquet", RunOptions(overwrite=True))
        query = await embedder.embed_query(question)
    store = open_store("folder.parquet")
    store.check_space(query.space)
    for hit in store.search(query[0], top_n=3):
        print(f"{hit.score:.2f}  {hit.source}/{hit.document_id}:{hit.start_line}  {hit.title}")


asyncio.run(main(*sys.argv[1:]))
