"""Search by vector, keywords and both: conditions, groups, neighbours, and the blocking interface."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from embedway.collections.candidates import Candidate, CandidateSearch, merge_neighbours
from embedway.collections.chunks import Chunk
from embedway.collections.hits import found_rows, hits_of
from embedway.collections.keywords import Keywords
from embedway.collections.query import Searcher, SearchOptions, checked_condition
from embedway.collections.record import Record
from embedway.collections.search import Hit
from embedway.errors import UsageError
from embedway.space import Space
from memory_store import MemoryStore

WORDS = ["apple", "pear", "plum", "kiwi"]


@pytest.fixture
def store(tmp_path):
    """Return 30 documents of two chunks; the only row with E1133 is the farthest from every vector."""
    store = MemoryStore(f"memory:{tmp_path}")
    store.begin(Record(Space("fake", "ab" * 32, 2, "mean", normalized=True), keep={"n": "int"}))
    chunks, vectors = [], []
    for number in range(30):
        for part in range(2):
            text = f"The {WORDS[number % 4]} of error {number}. Part {part}."
            text += " It means E1133." if (number, part) == (29, 1) else ""
            name = f"d{number}.md"
            chunks.append(
                Chunk(
                    f"s/{name}#{part}",
                    name,
                    text,
                    0,
                    9,
                    1,
                    None,
                    "s",
                    {"n": number},
                    number=part,
                    total=2,
                    fingerprint="1",
                )
            )
            angle = (number * 2 + part) / 60 * np.pi
            vectors.append([np.cos(angle), np.sin(angle)])
    store.write(chunks, np.array(vectors, np.float32))
    store.commit()
    store.open()
    return store


@pytest.fixture
def searcher(store, tmp_path):
    config = SimpleNamespace(search=SimpleNamespace(directory=tmp_path / "keywords"))
    return Searcher(SimpleNamespace(config=config), store)


@pytest.fixture
def candidates(store, tmp_path):
    keywords = Keywords(store, tmp_path / "keywords")
    keywords.update()
    return CandidateSearch(store, keywords)


def keyword(searcher, query, **options):
    [answer] = asyncio.run(searcher.search([query], SearchOptions(mode="keyword", **options)))
    return answer


def row(document, number, score, headings=None):
    hit = Hit(score, f"s/{document}#{number}", document, "s", 1, None, "text", number, 9, headings=headings)
    return Candidate(hit)


def test_chunks_beside_a_better_one_under_the_same_headings_are_part_of_its_hit():
    rows = [
        row("a", 3, 0.9, "A"),
        row("a", 4, 0.8, "A"),
        row("a", 5, 0.7, "A"),  # beside a merged one only
        row("b", 4, 0.6, "A"),
        row("a", 2, 0.5, "B"),  # other headings
        row("c", None, 0.4),
        row("b", 3, 0.3, "A"),
        row("d", 0, 0.2),
        row("d", 1, 0.1),
    ]
    kept, merged = merge_neighbours(rows, 6)
    assert [(one.hit.document_id, one.hit.number) for one in kept] == [
        ("a", 3), ("a", 5), ("b", 4), ("a", 2), ("c", None), ("d", 0)
    ]  # fmt: skip
    assert {name: [one.hit.number for one in rows] for name, rows in merged.items()} == {"s/a#3": [4], "s/b#4": [3]}


def test_the_beginning_of_a_page_is_under_its_title():
    rows = [row("a", 1, 0.9, "A"), row("a", 0, 0.8)]
    rows = [replace(one, hit=replace(one.hit, title="A")) for one in (*rows, row("b", 0, 0.7))]
    kept, merged = merge_neighbours(rows, 2)
    assert ([one.hit.id for one in kept], list(merged)) == (["s/a#1", "s/b#0"], ["s/a#1"])


@pytest.mark.parametrize("top", range(1, 10))
def test_merging_leaves_as_many_rows_as_are_wanted(top):
    rows = [row("a", number, 1 - number / 10) for number in range(8)]
    kept, merged = merge_neighbours(rows, top)
    assert len(kept) == min(top, 8)
    assert kept == sorted(kept, key=lambda one: -one.hit.score)
    shown = [*kept, *(one for some in merged.values() for one in some)]
    assert len({one.hit.id for one in shown}) == len(shown)


def test_a_merged_chunk_keeps_its_text_and_without_merging_it_is_a_hit(searcher):
    answer = keyword(searcher, "apple", top=3)
    assert [hit.id for hit in answer] == ["s/d0.md#0", "s/d4.md#0", "s/d8.md#0"]
    # The last hit ends the list.
    assert [[(one.id, one.text) for one in hit.merged] for hit in answer] == [
        [("s/d0.md#1", "The apple of error 0. Part 1.")],
        [("s/d4.md#1", "The apple of error 4. Part 1.")],
        [],
    ]
    answer = keyword(searcher, "apple", top=3, merge=False)
    assert len({hit.document_id for hit in answer}) < 3
    assert not any(hit.merged for hit in answer)


def test_an_identifier_is_the_best_hybrid_row_though_its_vector_is_the_farthest(candidates):
    query = np.array([1, 0], np.float32)
    found = candidates.find("hybrid", "what does the error E1133 mean", query, 50, None)
    assert found.rows[0].hit.id == "s/d29.md#1"
    assert (found.rows[0].vector_rank, found.rows[0].keyword_rank) == (None, 1)
    assert candidates.find("vector", "E1133", query, 50, None).rows[0].hit.id == "s/d0.md#0"


def test_keywords_alone_need_no_model(searcher):
    answer = keyword(searcher, "E1133")
    assert [one.hit.id for one in answer.hits] == ["s/d29.md#1"]
    [hit] = answer.hits
    assert hit.text[hit.highlight.start : hit.highlight.end] == str(hit.highlight) == "It means E1133."
    assert [hit.snippet.text[a:b] for a, b in hit.snippet.words] == ["E1133"]
    assert hit.snippet.text == hit.text  # a short text is shown whole
    assert hit.hit.metadata == {"n": 29}
    assert answer.receipt is None
    assert "E1133" in repr(hit)


def test_the_page_of_a_hit_is_that_of_its_best_sentence():
    text = "Travel.\n\n\fHand in receipts within a month.\n\n\f\fWords."
    hit = Hit(0.5, "s/a.pdf#0", "a.pdf", "s", 2, None, text, 0, len(text), page=2)
    for query, page in (("travel", 2), ("how long for receipts", 3), ("words", 5)):
        [one] = hits_of(found_rows(query, [Candidate(hit)], {}), None, {}, 0, {})
        assert (one.page, one.snippet.page, one.hit.page) == (page, page, 2)
        assert "\f" not in one.snippet.text
    [one] = hits_of(found_rows("words", [Candidate(replace(hit, page=None))], {}), None, {}, 0, {})
    assert one.page is None


def test_group_returns_one_row_of_each_document(searcher):
    answer = keyword(searcher, "error", group=True, top=20)
    assert len({one.hit.document_id for one in answer.hits}) == len(answer.hits) == 20
    assert len(keyword(searcher, "error", group=True, top=100).hits) == 30


def test_neighbours_are_the_chunks_beside_a_hit(searcher):
    [hit] = keyword(searcher, "E1133", neighbours=3).hits
    assert [(one.id, one.number) for one in hit.before] == [("s/d29.md#0", 0)]
    assert hit.after == ()
    assert keyword(searcher, "E1133").hits[0].before == ()


def test_neighbours_of_one_hit_are_not_those_of_another(searcher):
    answer = keyword(searcher, "error", neighbours=1, top=60)
    assert len(answer) == 60
    for hit in answer:
        assert {one.id.rpartition("#")[0] for one in (*hit.before, *hit.after)} == {hit.id.rpartition("#")[0]}
        assert all(abs(one.number - hit.hit.number) == 1 for one in (*hit.before, *hit.after))


@pytest.mark.parametrize(
    ("query", "where", "why"),
    [
        ("zebra", None, "no word of the query is in the collection"),
        ("?!", None, "the query has no word"),
        ("E1133", "n = 3", "no row that contains a word of the query meets the condition"),
    ],
)
def test_an_answer_without_hits_says_why(searcher, store, query, where, why):
    answer = keyword(searcher, query, where=checked_condition(where, store))
    assert (answer.hits, answer.why_empty) == ([], why)
    assert keyword(searcher, "E1133").why_empty is None


def test_an_empty_query_is_refused(searcher):
    for queries, said in (([" "], "the query is empty"), (["a", ""], "query 2 is empty")):
        with pytest.raises(UsageError, match=said):
            asyncio.run(searcher.search(queries, SearchOptions(mode="keyword")))


@pytest.mark.parametrize("wrong", [{"mode": "x"}, {"top": 0}, {"candidates": True}, {"neighbours": -1}])
def test_options_are_checked(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        SearchOptions(**wrong)


def test_groups_with_a_condition_are_full(searcher, store):
    condition = checked_condition("n >= 15", store)
    answer = keyword(searcher, "error", group=True, where=condition, top=15)
    assert len({hit.document_id for hit in answer}) == len(answer) == 15
