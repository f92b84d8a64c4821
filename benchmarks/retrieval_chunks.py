"""Cut a folder of reStructuredText into chunks, as JSON lines: one way of chunking in each process.

Usage: python benchmarks/retrieval_chunks.py today|structure|langchain|llamaindex FOLDER OUT.jsonl [--tokens 256]
    [--overlap 32]

`today` is the chunker without structure. Run it with a checkout before version 3 of collections first in PYTHONPATH.
`langchain` and `llamaindex` need langchain-text-splitters and llama-index-core; their chunks have two tokens less, for
the special tokens that ours count.
"""

import argparse
import json
import time
from pathlib import Path

from embedway import Embedder
from embedway.collections.chunking import Chunker, chunk_limits
from embedway.collections.documents import Document

MODEL = "all-MiniLM-L6-v2"


def documents(folder):
    """Return the texts of files by their path, without the ending `.txt` that Sphinx adds to sources."""
    paths = sorted(path for path in Path(folder).rglob("*.rst*") if path.is_file())
    return {path.relative_to(folder).as_posix().removesuffix(".txt"): path.read_text() for path in paths}


def today(texts, tokenizer, limits):
    chunker = Chunker(tokenizer, limits)
    for file, text in texts.items():
        for chunk in chunker.chunks(Document(file, text, file, kind="rst")):
            yield _raw(file, text, chunk.start_char, chunk.text)


def structure(texts, tokenizer, limits):
    from embedway.collections.parsers.rst import parse_rst

    chunker = Chunker(tokenizer, limits)
    for file, text in texts.items():
        parsed = parse_rst(text, file)
        facts = {"title": parsed.title, "blocks": parsed.blocks, "line_marks": parsed.line_marks}
        marks = parsed.line_marks
        offsets = [offset for offset, _ in marks]
        bodies = [block for block in parsed.blocks if block.kind not in {"heading", "definition"}]
        for chunk in chunker.chunks(Document(file, parsed.text, "docs", kind="rst", **facts)):
            last = marks[_before(offsets, chunk.end_char)][1] if marks else chunk.start_line
            has_body = any(b.start < chunk.end_char and chunk.start_char < b.end for b in bodies)
            yield {
                "file": file,
                "first": chunk.start_line,
                "last": last,
                "text": chunk.text,
                "context": chunk.context,
                "headings": chunk.headings or "",
                "title": chunk.title or "",
                "alone": not has_body,
            }


def _before(offsets, end):
    from bisect import bisect_left

    return max(bisect_left(offsets, end) - 1, 0)


def langchain(texts, tokenizer, limits):
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    splitter = RecursiveCharacterTextSplitter(
        chunk_size=limits.chunk_tokens - limits.special_tokens,
        chunk_overlap=limits.overlap_tokens,
        length_function=lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids),
        add_start_index=True,
    )
    for file, text in texts.items():
        for made in splitter.create_documents([text]):
            yield _raw(file, text, made.metadata["start_index"], made.page_content)


def llamaindex(texts, tokenizer, limits):
    from llama_index.core.node_parser import SentenceSplitter
    from llama_index.core.schema import Document as Page

    splitter = SentenceSplitter(
        chunk_size=limits.chunk_tokens - limits.special_tokens,
        chunk_overlap=limits.overlap_tokens,
        tokenizer=lambda text: tokenizer.encode(text, add_special_tokens=False).ids,
    )
    for file, text in texts.items():
        near = 0
        for node in splitter.get_nodes_from_documents([Page(text=text)]):
            start = node.start_char_idx
            if start is None:
                start = max(text.find(node.text[:40], near), near)
            near = start
            yield _raw(file, text, start, node.text)


def _raw(file, text, start, chunk):
    first = text.count("\n", 0, start) + 1
    words = [line for line in chunk.split("\n") if any(map(str.isalnum, line))]
    alone = len(words) <= 1 and any(line and not any(map(str.isalnum, line)) for line in chunk.split("\n"))
    last = first + chunk.rstrip().count("\n")
    return {"file": file, "first": first, "last": last, "text": chunk, "context": "", "headings": "", "alone": alone}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=["today", "structure", "langchain", "llamaindex"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--overlap", type=int, default=32)
    options = parser.parse_args()
    with Embedder() as embedder:
        known = embedder.models.describe(MODEL, load=True)
    limits = chunk_limits(
        max_tokens=known.max_tokens,
        special_tokens=known.special_tokens,
        prompt_tokens=0,
        prompt="",
        chunk_tokens=options.tokens,
        overlap_tokens=options.overlap,
    )
    texts = documents(options.folder)
    began = time.perf_counter()
    count = 0
    with options.out.open("w") as out:
        for chunk in globals()[options.way](texts, known.tokenizer, limits):
            sent = f"{chunk['context']}\n\n{chunk['text']}" if chunk["context"] else chunk["text"]
            chunk["tokens"] = len(known.tokenizer.encode(sent).ids)
            out.write(json.dumps(chunk) + "\n")
            count += 1
    print(f"{options.way}: {len(texts)} files, {count} chunks, {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
