"""Chunks: within the limit, complete, in order, and at the positions they report."""

import asyncio
import inspect
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from embedway.collections.chunking import Chunker, chunk_limits, count_prompt_tokens, sizes, whole_document
from embedway.collections.documents import Document
from embedway.errors import UsageError

WORDS = [
    "event",
    "loop",
    "running",
    "def",
    "class",
    "f(x)",
    "häuser",
    "文字列",
    "antidisestablishment",
    "🙂🙂",
    "x" * 130,
]
BREAKS = [
    " ",
    " ",
    " ",
    "  ",
    "\n",
    "\n    ",
    "\n\n",
    "\n\n\n",
    ". ",
    "\n# ",
    "\n- ",
    "\n```\n",
    "\t",
    "\r\n",
    "\x1c",
]
ordinary = st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(BREAKS)), max_size=80).map(
    lambda pairs: "".join(word + end for word, end in pairs)
)
texts = st.one_of(ordinary, st.text(max_size=300))


def chunker_for(tokenizer, *, chunk_tokens=24, overlap_tokens=0, prompt=""):
    limits = chunk_limits(
        max_tokens=512,
        special_tokens=2,
        prompt_tokens=count_prompt_tokens(tokenizer, prompt),
        prompt=prompt,
        chunk_tokens=chunk_tokens,
        overlap_tokens=overlap_tokens,
    )
    return Chunker(tokenizer, limits)


@pytest.mark.parametrize("prompt", ["", "passage: "])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=texts,
    kind=st.sampled_from(["text", "markdown", "code", "html", "rst"]),
    room=st.integers(24, 60),
    overlap=st.integers(0, 8),
)
@example(text="event event\n    event\nevent ", kind="markdown", room=24, overlap=5)
def test_every_chunk_is_within_the_limit_and_together_they_are_the_document(
    any_tokenizer, prompt, text, kind, room, overlap
):
    size = room + count_prompt_tokens(any_tokenizer, prompt)
    chunker = chunker_for(any_tokenizer, chunk_tokens=size, overlap_tokens=overlap, prompt=prompt)
    document = Document("d", text, "d.md", kind=kind)
    chunks = list(chunker.chunks(document))
    assert [chunk.id for chunk in chunks] == [f"d.md/d#{n}" for n in range(len(chunks))]
    covered = set()
    for chunk in chunks:
        assert chunk.text == text[chunk.start_char : chunk.end_char]
        assert chunk.text.strip()
        assert len(any_tokenizer.encode(prompt + chunk.text).ids) <= size
        assert chunk.start_line == text.count("\n", 0, chunk.start_char) + 1
        covered.update(range(chunk.start_char, chunk.end_char))
    assert all(n in covered for n, character in enumerate(text) if not character.isspace())
    for one, two in pairwise(chunks):
        assert one.start_char < two.start_char
        assert one.end_char < two.end_char
        shared = text[two.start_char : max(one.end_char, two.start_char)]
        assert len(any_tokenizer.encode(shared, add_special_tokens=False).ids) <= overlap


def test_neighbours_overlap_where_asked(wordpiece):
    text = " ".join(f"word{n}" for n in range(200))
    chunks = list(chunker_for(wordpiece, chunk_tokens=64, overlap_tokens=16).chunks(Document("d", text, "d")))
    assert len(chunks) > 5
    for one, two in pairwise(chunks):
        shared = text[two.start_char : one.end_char]
        assert 0 < len(wordpiece.encode(shared, add_special_tokens=False).ids) <= 16


def test_code_is_cut_between_functions_and_keeps_its_indentation(wordpiece):
    method = "    def run(self):\n        return self.code\n"
    text = "\n\n".join("class Thread:\n" + "\n".join([method] * 6) for _ in range(4))
    chunks = list(chunker_for(wordpiece, chunk_tokens=90).chunks(Document("d", text, "d.py", kind="code")))
    starts = {chunk.text.lstrip("\n").splitlines()[0] for chunk in chunks}
    assert starts <= {"class Thread:", "    def run(self):"}
    assert len(starts) == 2


def test_markdown_is_cut_at_headings(wordpiece):
    text = "".join(f"# Part {n}\n\nrun the event loop.\nrun the code.\n\n" for n in range(9))
    chunker = chunker_for(wordpiece, chunk_tokens=40)
    chunks = list(chunker.chunks(Document("d", text, "d.md", kind="markdown")))
    assert all(chunk.text.startswith("# Part") for chunk in chunks)


def test_a_row_and_markup_keep_their_own_lines(wordpiece):
    text = "\n".join(f"line {n}" for n in range(100))
    chunker = chunker_for(wordpiece)
    row = Document("d", text, "rows.jsonl", line=7)
    assert {chunk.start_line for chunk in chunker.chunks(row)} == {7}
    marks = tuple((text.index(f"line {n}"), 1000 + n) for n in range(0, 100, 10))
    markup = list(chunker.chunks(Document("d", text, "a.html", kind="html", line_marks=marks)))
    assert markup[0].start_line == 1000
    assert markup[-1].start_line == 1090


def test_long_documents_are_cut_into_sections_at_blank_lines(wordpiece, monkeypatch):
    monkeypatch.setattr(sizes, "SECTION_CHARACTERS", 1000)
    text = "\n\n".join("run the event loop " * 5 for _ in range(100)) + "\n"
    document = Document("d", text, "d.txt")
    chunks = list(chunker_for(wordpiece, chunk_tokens=128).chunks(document))
    assert "".join("".join(chunk.text.split()) for chunk in chunks) == "".join(text.split())
    assert all(chunk.text.startswith("run") and chunk.text.endswith("loop") for chunk in chunks)
    assert len(chunks) > 10


def test_a_text_without_any_border(wordpiece):
    chunks = list(chunker_for(wordpiece).chunks(Document("d", "x" * 70_000, "d.txt")))
    assert sum(len(chunk.text) for chunk in chunks) == 70_000


def test_real_source_code_is_cut_within_the_limit(wordpiece):
    text = inspect.getsource(asyncio.base_events)
    chunks = list(
        chunker_for(wordpiece, chunk_tokens=256, overlap_tokens=32).chunks(Document("d", text, "d.py", kind="code"))
    )
    assert max(len(wordpiece.encode(chunk.text).ids) for chunk in chunks) <= 256
    for chunk in chunks:
        first = text.splitlines()[chunk.start_line - 1]
        assert first.strip().startswith(chunk.text.strip().splitlines()[0].strip())


def test_a_whole_document_is_one_chunk_as_it_is():
    chunk = whole_document(Document("d", "  a\nb ", "d.txt", title="T", metadata={"k": "v"}))
    assert (chunk.id, chunk.text, chunk.start_char, chunk.end_char) == ("d.txt/d#0", "  a\nb ", 0, 6)
    assert (chunk.start_line, chunk.title, chunk.metadata) == (1, "T", {"k": "v"})


def test_the_usual_limits_and_those_that_cannot_be():
    def limits(**asked):
        given_limits = {"max_tokens": 512, "special_tokens": 2, "prompt_tokens": 0, "prompt": ""} | asked
        return chunk_limits(**given_limits)

    assert (limits().chunk_tokens, limits().overlap_tokens) == (256, 32)
    assert limits(max_tokens=128).chunk_tokens == 128
    assert limits(chunk_tokens=34).overlap_tokens == 8
    with pytest.raises(UsageError, match="over the model's limit"):
        limits(chunk_tokens=513)
    with pytest.raises(UsageError, match="need at least 28"):
        limits(chunk_tokens=27, prompt_tokens=10)
    with pytest.raises(UsageError, match="overlap of 200"):
        limits(overlap_tokens=200)
