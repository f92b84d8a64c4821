"""Chunks of documents with known structure: whole sections, no heading alone, headers of tables, context."""

import re
import time
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedway.collections.chunking import Chunker, chunk_limits, count_prompt_tokens
from embedway.collections.documents import Block, Document
from embedway.collections.parsers.base import TextBuilder
from embedway.collections.parsers.markdown import parse_markdown
from embedway.collections.record import ChunkSettings
from embedway.errors import UsageError

SENTENCES = [
    "The loop runs the code.",
    "Return json, then stop!",
    "文字列を返す。次に進む。",
    "no border here",
    "x" * 60,
]
words = st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=12).map(" ".join)
blocks = st.one_of(
    st.tuples(st.just("heading"), st.sampled_from(["Timeouts", "The loop", "事件"]), st.integers(1, 4)),
    st.tuples(st.just("definition"), st.sampled_from(["run(code, *, loop=None)", "json(x)"]), st.integers(7, 9)),
    st.tuples(st.sampled_from(["paragraph", "quote"]), words, st.just(0)),
    st.tuples(
        st.just("list"),
        st.lists(words, min_size=1, max_size=4).map(lambda w: "\n".join(f"- {i}" for i in w)),
        st.just(0),
    ),
    st.tuples(st.just("code"), st.lists(words, min_size=1, max_size=4).map("\n\n".join), st.just(0)),
    st.tuples(
        st.just("table"),
        st.lists(words, min_size=1, max_size=6).map(lambda w: "\n".join(["name | value", *w])),
        st.just(0),
    ),
)


def build(parts, **facts):
    builder = TextBuilder()
    for line, (kind, text, level) in enumerate(parts, 1):
        builder.add(text, kind, line=line, level=level, header_length=len("name | value") if kind == "table" else 0)
    parsed = builder.build(None)
    facts = {"id": "d.md", "source": "docs", "kind": "markdown"} | facts
    return Document(text=parsed.text, blocks=parsed.blocks, line_marks=parsed.line_marks, **facts)


def chunker_for(tokenizer, *, chunk_tokens=48, overlap_tokens=0, prompt="", context="headings"):
    limits = chunk_limits(
        max_tokens=512,
        special_tokens=2,
        prompt_tokens=count_prompt_tokens(tokenizer, prompt),
        prompt=prompt,
        chunk_tokens=chunk_tokens,
        overlap_tokens=overlap_tokens,
    )
    return Chunker(tokenizer, limits, ChunkSettings(chunk_tokens=chunk_tokens, context=context))


def cut(parts, tokenizer, **options):
    document = build(parts)
    return document, list(chunker_for(tokenizer, **options).chunks(document))


def is_heading_alone(document, chunk):
    return not any(
        block.kind not in {"heading", "definition"} and block.start < chunk.end_char and chunk.start_char < block.end
        for block in document.blocks
    )


@pytest.mark.parametrize("prompt", ["", "passage: "])
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(blocks, min_size=1, max_size=12), size=st.integers(40, 90), overlap=st.integers(0, 12))
def test_structured_chunks_are_within_the_limit_complete_and_in_order(any_tokenizer, prompt, parts, size, overlap):
    size += count_prompt_tokens(any_tokenizer, prompt)
    document, chunks = cut(parts, any_tokenizer, chunk_tokens=size, overlap_tokens=overlap, prompt=prompt)
    text = document.text
    covered = set()
    for number, chunk in enumerate(chunks):
        assert (chunk.id, chunk.number, chunk.total) == (f"docs/d.md#{number}", number, len(chunks))
        assert chunk.text.endswith(text[chunk.start_char : chunk.end_char])
        assert len(any_tokenizer.encode(prompt + chunk.embedded_text).ids) <= size
        covered.update(range(chunk.start_char, chunk.end_char))
    assert all(n in covered for n, character in enumerate(text) if not character.isspace())
    for one, two in pairwise(chunks):
        assert one.start_char < two.start_char
        assert one.end_char < two.end_char
    if any(not block.level for block in document.blocks) and not document.blocks[-1].level:
        small = all(
            len(any_tokenizer.encode(t).ids) < size // 4 for kind, t, _ in parts if kind in {"heading", "definition"}
        )
        runs = all(not (one[2] and two[2]) for one, two in pairwise(parts))
        assert not (small and runs) or not any(is_heading_alone(document, chunk) for chunk in chunks)


def test_a_heading_stays_with_its_first_text_and_small_sections_share_a_chunk(wordpiece):
    parts = [("heading", "Loop", 1)]
    for name in ("run", "code", "thread", "json"):
        parts += [("heading", name, 2), ("paragraph", "the event loop runs the code", 0)]
    document, chunks = cut(parts, wordpiece, chunk_tokens=26)
    assert not any(is_heading_alone(document, chunk) for chunk in chunks)
    assert 1 < len(chunks) < 4
    assert {chunk.headings for chunk in chunks[1:]} == {"Loop"}
    assert chunks[1].embedded_text.startswith("Loop\n\n")


def test_a_document_of_headings_is_one_chunk(wordpiece):
    assert len(cut([("heading", "Loop", 1)], wordpiece)[1]) == 1
    assert len(cut([("heading", "Loop", 1), ("heading", "run", 2)], wordpiece)[1]) == 1


def test_the_signature_stays_with_its_body_and_is_the_heading_of_later_pieces(wordpiece):
    body = " ".join(["the loop runs the code."] * 20)
    parts = [("heading", "Loop", 1), ("definition", "run(code)", 7), ("paragraph", body, 0)]
    _, chunks = cut(parts, wordpiece, chunk_tokens=60)
    assert chunks[0].text.startswith("Loop\n\nrun(code)\n\nthe loop")
    assert all(chunk.headings == "Loop › run" for chunk in chunks[1:])  # noqa: RUF001
    assert all(chunk.text.endswith("code.") for chunk in chunks)


def test_a_short_heading_is_not_alone_before_a_long_signature(wordpiece):
    signature = f"run({', '.join(['loop'] * 15)})"
    parts = [("heading", "Loop", 1), ("definition", signature, 7), ("paragraph", "the loop runs the code. " * 4, 0)]
    _, chunks = cut(parts, wordpiece)
    assert chunks[0].text.startswith("Loop\n\nrun(loop, loop")
    assert "the loop runs" in " ".join(chunk.text for chunk in chunks if "loop)" in chunk.text)


@pytest.mark.parametrize("size", [30, 40, 48])
def test_a_heading_at_the_end_stays_with_the_text_before_it(wordpiece, size):
    for words in range(5, 60):
        parts = [("heading", "Loop", 1), ("paragraph", "the loop runs. " * words, 0), ("heading", "Threads", 1)]
        document, chunks = cut(parts, wordpiece, chunk_tokens=size)
        assert not any(is_heading_alone(document, chunk) for chunk in chunks)
        assert chunks[-1].text.endswith("Threads")


def test_a_heading_before_the_border_of_a_segment_stays_with_its_text(wordpiece, monkeypatch):
    monkeypatch.setattr("embedway.collections.chunking.sizes.SECTION_CHARACTERS", 400)
    parts = []
    for number in range(40):
        parts += [
            ("heading", f"Loop {number}", 1 + number % 3),
            ("paragraph", "the loop runs. " * (number % 23 + 1), 0),
        ]
    document, chunks = cut(parts, wordpiece)
    assert not any(is_heading_alone(document, chunk) for chunk in chunks)


def test_a_block_with_a_level_ends_the_definition_before_it(wordpiece):
    builder = TextBuilder()
    for kind, text, level in (
        ("heading", "Loop", 1),
        ("definition", "run(code)", 7),
        ("paragraph", "the loop runs the code. " * 8, 0),
        ("paragraph", "a thread stops. " * 12, 7),
    ):
        builder.add(text, kind, line=1, level=level)
    parsed = builder.build(None)
    document = Document("d", parsed.text, "d", blocks=parsed.blocks)
    chunks = list(chunker_for(wordpiece, chunk_tokens=60).chunks(document))
    assert [chunk.headings for chunk in chunks] == [None, "Loop › run", "Loop"]  # noqa: RUF001
    assert chunks[2].text.startswith("a thread")


def test_tables_repeat_their_header_where_exact_counts_cut_them(wordpiece):
    # Without white space, the count from offsets is uncertain, so rows are counted and cut exactly.
    rows = "\n".join(f"{'loop.run:' * 14}{n} | {'x' * 40}" for n in range(6))
    _, chunks = cut([("table", f"name | value\n{rows}", 0)], wordpiece)
    assert len(chunks) > 5
    assert all(chunk.text.startswith("name | value\n") for chunk in chunks[1:])


def test_tables_repeat_their_header(wordpiece):
    rows = "\n".join(f"row{n} | the loop" for n in range(30))
    _, chunks = cut([("heading", "Loop", 1), ("table", f"name | value\n{rows}", 0)], wordpiece)
    assert len(chunks) > 3
    assert all("name | value\nrow" in chunk.text for chunk in chunks)
    assert [row for chunk in chunks for row in chunk.text.splitlines() if row.startswith("row")] == rows.splitlines()


def test_lists_are_cut_between_items_and_code_at_blank_lines(wordpiece):
    items = "\n".join(f"- the loop\n  runs {n}" for n in range(20))
    assert all(chunk.text.startswith("- ") for chunk in cut([("list", items, 0)], wordpiece)[1])
    code = "\n\n".join(f"def run{n}():\n    return code" for n in range(20))
    assert all(chunk.text.startswith("def run") for chunk in cut([("code", code, 0)], wordpiece)[1])


def test_japanese_is_cut_at_the_ends_of_sentences(wordpiece):
    _, chunks = cut([("paragraph", "文字列を返す。次に進む！" * 20, 0)], wordpiece)  # noqa: RUF001
    assert len(chunks) > 2
    assert all(chunk.text[-1] in "。！" for chunk in chunks)  # noqa: RUF001


def test_overlap_repeats_whole_sentences_of_the_same_section(wordpiece):
    body = " ".join(f"the loop runs {n}." for n in range(40))
    parts = [("heading", "Loop", 1), ("paragraph", body, 0), ("heading", "Code", 1), ("paragraph", body, 0)]
    document, chunks = cut(parts, wordpiece, overlap_tokens=16)
    shared = [document.text[two.start_char : one.end_char] for one, two in pairwise(chunks)]
    assert all(not piece or piece.startswith("the loop runs") for piece in shared)
    assert sum(bool(piece) for piece in shared) >= len(chunks) - 3


def test_context_is_a_choice(wordpiece):
    parts = [("heading", "Loop", 1), ("paragraph", "the code", 0)] * 1
    document = build(parts, title="Threads")

    def context(pattern):
        return next(iter(chunker_for(wordpiece, context=pattern).chunks(document))).context

    assert context("headings") == "Threads"
    assert context("none") == ""
    assert context("{document}: {headings}") == "d.md: Threads"
    with pytest.raises(UsageError, match="pattern"):
        context("{name}")
    with pytest.raises(UsageError, match="pattern"):
        context("{title.__class__}")


def test_a_title_that_begins_the_text_is_not_repeated(wordpiece):
    document = build([("heading", "Loop", 1), ("paragraph", "the code", 0)], title="Loop")
    (chunk,) = chunker_for(wordpiece).chunks(document)
    assert (chunk.headings, chunk.context) == (None, "")


def test_a_long_path_loses_its_outer_headings(wordpiece):
    parts = [("heading", f"{'loop ' * 4}{n}", n) for n in range(1, 6)]
    _, chunks = cut([*parts, ("paragraph", "the loop runs. " * 30, 0)], wordpiece)
    assert chunks[-1].context.startswith("… › ")  # noqa: RUF001
    assert len(wordpiece.encode(chunks[-1].context, add_special_tokens=False).ids) <= 46 // 4


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6)), min_size=1, max_size=8), st.sampled_from([24, 40, 90]))
def test_page_marks_give_the_page_of_each_part_of_a_chunk(wordpiece, parts, tokens):
    builder, page = TextBuilder(), 1
    for turned, count in parts:
        page += turned
        builder.add(f"\f{page}. the loop\fruns. " * count, "paragraph", line=page, page=page)
    parsed = builder.build(None)
    document = Document("a.pdf", parsed.text, "a.pdf", blocks=parsed.blocks, page_marks=parsed.page_marks)
    for chunk in chunker_for(wordpiece, chunk_tokens=tokens).chunks(document):
        for found in re.finditer(r"\d+(?=\. the)", chunk.text):
            assert chunk.page + chunk.text.count("\f", 0, found.start()) == int(found[0])


def test_chunks_know_their_page_and_fingerprint(wordpiece):
    builder = TextBuilder()
    for page in (1, 2, 3):
        builder.add("the loop runs the code. " * 5, "paragraph", line=1, page=page)
    parsed = builder.build(None)
    document = Document(
        "a.pdf", parsed.text, "a.pdf", blocks=parsed.blocks, page_marks=parsed.page_marks, content_hash="h"
    )
    chunks = list(chunker_for(wordpiece, chunk_tokens=40).chunks(document, "abc"))
    assert [chunk.page for chunk in chunks] == [1, 2, 3]
    assert {chunk.fingerprint for chunk in chunks} == {"abc"}
    assert chunks[0].id == "a.pdf#0"


def test_python_code_knows_its_class(wordpiece):
    pytest.importorskip("tree_sitter_python")
    method = "    def run{}(self):\n        return self.code\n"
    text = "class Thread:\n" + "\n".join(method.format(n) for n in range(12))
    chunks = list(
        chunker_for(wordpiece, chunk_tokens=80).chunks(Document("a.py", text, "a.py", kind="code", language="python"))
    )
    assert len(chunks) > 1
    assert all(chunk.headings.startswith("class Thread") for chunk in chunks[1:])
    assert all(chunk.text.lstrip().startswith("def run") for chunk in chunks[1:])


def large(name):
    if name == "paragraph":
        return [("paragraph", "The loop runs the code of json. " * 31_250, 0)]
    if name == "paragraphs":
        return [("paragraph", "The loop runs the code of json. " * 5, 0)] * 6_250
    if name == "headings":
        return [("heading", "the loop", 1 + n % 4) for n in range(100_000)]
    return [("table", "name | value\n" + "\n".join(f"row{n} | the loop" for n in range(50_000)), 0)]


@pytest.mark.parametrize("name", ["paragraph", "paragraphs", "headings", "table"])
def test_time_is_linear(wordpiece, name):
    document = build(large(name))
    began = time.process_time()
    count = sum(1 for _ in chunker_for(wordpiece, chunk_tokens=256, overlap_tokens=32).chunks(document))
    assert count > 100
    assert time.process_time() - began < 40


def test_blocks_that_are_invalid_are_ignored(wordpiece):
    document = Document("d", "the loop runs", "d", blocks=(Block("paragraph", 4, 99), Block("heading", 3, 2, 1)))
    assert [chunk.text for chunk in chunker_for(wordpiece).chunks(document)] == ["the loop runs"]


def test_the_header_of_a_parsed_table_is_repeated(wordpiece):
    rows = "\n".join(f"| run | loop |\n| `code` {number} | the event loop<br>runs the code |" for number in range(16))
    parsed = parse_markdown(f"# Loop\n\n| name | stop<br>value |\n|---|---|\n{rows}\n", "a.md")
    document = Document(
        id="d.md", source="docs", text=parsed.text, blocks=parsed.blocks, line_marks=parsed.line_marks, kind="markdown"
    )
    chunks = list(chunker_for(wordpiece, chunk_tokens=80).chunks(document))
    assert len(chunks) > 2
    assert all("name | stop value" in chunk.text for chunk in chunks)


def test_the_separator_after_a_signature_counts(any_tokenizer):
    text = ("paragraph", "The loop runs the code.", 0)
    for size in range(40, 60):
        document, chunks = cut(
            [("heading", "Timeouts", 1), text, ("definition", "json(x)", 7), text],
            any_tokenizer,
            chunk_tokens=size,
            overlap_tokens=0,
            prompt="passage: ",
        )
        assert not any(is_heading_alone(document, chunk) for chunk in chunks), size
