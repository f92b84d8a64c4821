import json
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from embedway import Config, Embedder, SourceError
from embedway.quality import pairs as pairs_module
from embedway.quality.pairs import BUILT_IN_DIGEST, Pair, built_in_pairs, checked_pairs, digest_of, read_pairs

GROUPS = {"prose", "code", "api", "de", "fr", "es", "zh", "ja"}


@pytest.fixture
def written(tmp_path):
    def write(*rows):
        path = tmp_path / "own.jsonl"
        path.write_bytes(b"\n".join(row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows))
        return path

    return write


def refusal(path):
    with pytest.raises(SourceError) as caught:
        read_pairs(path)
    return caught.value


def test_groups_of_the_built_in_pairs():
    counts = Counter(pair.group for pair in built_in_pairs())
    assert set(counts) == GROUPS
    assert min(counts.values()) >= 7
    assert sum(counts.values()) >= 64


def test_built_in_pairs_are_unique_and_named_after_their_group():
    pairs = built_in_pairs()
    for field in ("id", "query", "passage"):
        assert len({getattr(pair, field) for pair in pairs}) == len(pairs)
    assert all(pair.id.rpartition("-")[0] == pair.group for pair in pairs)


def test_no_built_in_pair_changes_without_a_new_version():
    # A baseline is of one version. After a change: increase BUILT_IN_VERSION, then set BUILT_IN_DIGEST.
    assert digest_of(built_in_pairs()) == BUILT_IN_DIGEST


def test_a_digest_has_every_field_and_no_order():
    first, second = Pair("1", "g", "query", "passage"), Pair("2", "g", "other query", "other passage")
    base = digest_of([first, second])
    assert digest_of([second, first]) == base
    changes = [Pair("9", "g", "query", "passage"), Pair("1", "h", "query", "passage"), Pair("1", "g", "q", "passage")]
    changes.append(Pair("1", "g", "query", "p"))
    assert base not in {digest_of([change, second]) for change in changes}


def test_half_of_the_queries_share_few_words_with_their_passage():
    words = {pair.id: set(pair.query.casefold().split()) for pair in built_in_pairs()}
    shared = [
        len(words[pair.id] & set(pair.passage.casefold().split())) / len(words[pair.id])
        for pair in built_in_pairs()
        if pair.group not in {"zh", "ja"}
    ]
    assert np.median(shared) < 0.25


@pytest.fixture(scope="module")
def built_in_vectors():
    pairs = built_in_pairs()
    with Embedder(model="all-MiniLM-L6-v2", config=Config(cache={"backend": "none"})) as embedder:
        queries = embedder.embed([pair.query for pair in pairs], input_type="query").vectors
        return queries, embedder.embed([pair.passage for pair in pairs]).vectors


def found_rows(queries, passages):
    return (queries @ passages.T).argmax(axis=1) == np.arange(len(queries))


def test_the_built_in_model_finds_most_english_passages_and_not_all(built_in_vectors):
    found = found_rows(*built_in_vectors)
    english = np.array([pair.group in {"prose", "code", "api"} for pair in built_in_pairs()])
    assert 0.75 < found[english].mean() < 1
    assert 10 / len(found) < found[~english].mean() < found[english].mean()


def test_a_degraded_model_finds_clearly_fewer(built_in_vectors):
    queries, passages = built_in_vectors
    whole = found_rows(queries, passages).mean()
    noise = np.random.default_rng(0).normal(0, 0.08, (2, *queries.shape))
    assert found_rows(queries + noise[0], passages + noise[1]).mean() < 0.7 * whole
    assert found_rows(queries[:, :64], passages[:, :64]).mean() < 0.7 * whole


def test_a_file_of_pairs(written):
    rows = [{"query": "a", "passage": "b", "id": "x", "group": "g", "other": 1}, b"", {"query": "c", "passage": "d"}]
    assert read_pairs(written(*rows)) == (Pair("x", "g", "a", "b"), Pair("3", "", "c", "d"))


def test_a_byte_order_mark_and_line_ends_of_windows(written):
    path = written(b'\xef\xbb\xbf{"query": "a", "passage": "b"}\r', b'{"query": "c", "passage": "d"}\r')
    assert [pair.query for pair in read_pairs(str(path))] == ["a", "c"]


GOOD = {"query": "how", "passage": "so"}


@pytest.mark.parametrize(
    ("row", "field", "message"),
    [
        ({"query": "a"}, "passage", "is missing"),
        ({"passage": "a"}, "query", "is missing"),
        ({"query": None, "passage": "b"}, "query", "is missing"),
        ({"query": "a", "passage": 3}, "passage", "must be text, is int"),
        ({"query": "a", "passage": ["b"]}, "passage", "must be text, is list"),
        ({"query": " \n", "passage": "b"}, "query", "is empty"),
        ({"query": "\0", "passage": "b"}, "query", "is empty"),
        ({"query": "a", "passage": "b" * 100_001}, "passage", "has 100,001 characters; it may have 100,000"),
        ({"query": "a", "passage": "b", "group": 3}, "group", "must be text, is int"),
        ({"query": "a", "passage": "b", "id": ""}, "id", "is empty"),
        (b'{"query": "\\ud800", "passage": "b"}', "query", "surrogate"),
        ({"query": "how", "passage": "b"}, "query", "is the same as in line 1"),
        ({"query": "a", "passage": "so"}, "passage", "is the same as in line 1"),
        ({"query": "a", "passage": "b", "id": "1"}, "id", "is the same as in line 1"),
        (["a", "b"], None, "must be a JSON object, is list"),
        (b"{", None, r"is not JSON \(column 2\)"),
        (b"[" * 100_000, None, "is not JSON"),
        (b"1" * 10_000, None, "is not JSON"),
        (b"\xff", None, "is not UTF-8"),
    ],
)
def test_a_wrong_line_is_named(written, row, field, message):
    error = refusal(written(GOOD, row))
    assert (error.line, error.field) == (2, field)
    assert "own.jsonl:2" in str(error)
    with pytest.raises(SourceError, match=message):
        raise error


def test_a_file_with_too_few_or_too_many_pairs(written, monkeypatch):
    assert "has 1 pairs; a comparison needs at least 2" in str(refusal(written(GOOD)))
    monkeypatch.setattr(pairs_module, "MAX_PAIRS", 2)
    rows = [{"query": f"q{number}", "passage": f"p{number}"} for number in range(3)]
    assert "more than 2 pairs" in str(refusal(written(*rows)))


def test_a_file_that_cannot_be_read(tmp_path, written, monkeypatch):
    assert "absent.jsonl: cannot be read: No such file" in str(refusal(tmp_path / "absent.jsonl"))
    assert "not a regular file" in str(refusal(tmp_path))
    assert "the path is invalid" in str(refusal("a\0b"))
    monkeypatch.setattr(pairs_module, "MAX_FILE_BYTES", 10)
    assert "more than 10 bytes" in str(refusal(written(GOOD, GOOD)))


def test_pairs_may_have_an_empty_group_and_keep_their_types_checked(tmp_path):
    pairs = [Pair("1", "", "a", "b"), Pair("2", "", "c", "d")]
    assert checked_pairs(pairs) == tuple(pairs)
    (tmp_path / "pairs.jsonl").write_text('{"query": "a", "passage": "b", "group": ""}\n{"query": "c", "passage": "d"}')
    assert [pair.group for pair in read_pairs(tmp_path / "pairs.jsonl")] == ["", ""]
    for wrong in (b"x", 1, None, object(), "\ud800", ["x"]):
        for field in ("id", "group", "query", "passage"):
            with pytest.raises(SourceError, match=field):
                checked_pairs([pairs[0], replace(pairs[1], **{field: wrong})])


def test_a_file_of_blank_lines_is_refused_at_once(tmp_path):
    (tmp_path / "pairs.jsonl").write_bytes(b"\n" * 60_000_000)
    began = time.process_time()
    with pytest.raises(SourceError, match="60,000,000 lines"):
        read_pairs(tmp_path / "pairs.jsonl")
    assert time.process_time() - began < 2
