"""Vector spaces: facts, ids, JSON of both versions, and comparison."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway.space import VERSION, Space, SpaceVersionError, comparable, explained

LOCAL = Space(
    "m", "ab" * 32, 8, "mean", normalized=True, query_prompt="q: ", head="tanh:1", tokenizer="cd" * 32, config="ef" * 32
)
SERVICE = Space("s", "service:acme/s", 8, "service", normalized=True, tokenizer="", config="")
#: A different value for each fact that determines vectors.
OTHERS = {
    "model": "n",
    "weights": "00" * 32,
    "dimensions": 4,
    "pooling": "cls",
    "normalized": False,
    "query_prompt": "",
    "document_prompt": "d: ",
    "head": "",
    "tokenizer": "11" * 32,
    "config": "22" * 32,
}
FACTS = [field.name for field in dataclasses.fields(Space) if field.name != "digest"]


def other(space, **facts):
    """Return the same space with other facts, and the matching digest."""
    return dataclasses.replace(space, digest="", **facts)


def old(space):
    """Return a record of the space as version 1 wrote it."""
    return {name: value for name, value in space.to_json().items() if name not in {"tokenizer", "config", "version"}}


def test_every_fact_is_tried():
    assert set(OTHERS) == set(FACTS)


@pytest.mark.parametrize("fact", FACTS)
def test_a_fact_alone_makes_another_space(fact):
    changed = other(LOCAL, **{fact: OTHERS[fact]})
    for pair in ((LOCAL, changed), (changed, LOCAL)):
        comparison = comparable(*pair)
        assert not comparison
        assert (comparison.differing, comparison.unknown) == ((fact,), ())
    assert changed.id != LOCAL.id
    if fact not in {"model", "dimensions"}:
        assert changed.facts_digest() != LOCAL.facts_digest()


def test_digests_are_for_people():
    other_digest = dataclasses.replace(LOCAL, digest="12345678")
    assert comparable(other_digest, LOCAL)
    assert comparable(other_digest, LOCAL).unknown == ()


def test_facts_that_an_old_record_lacks_are_accepted_and_named():
    record = Space.from_json(old(LOCAL))
    assert (record.tokenizer, record.config) == (None, None)
    comparison = comparable(LOCAL, record)
    assert comparison
    assert comparison.unknown == ("tokenizer", "config")
    known = record.with_facts(LOCAL)
    assert comparable(LOCAL, known).unknown == ()
    assert known.id == record.id
    assert not comparable(other(LOCAL, tokenizer="11" * 32), known)


def test_an_old_record_of_other_weights_is_refused():
    assert comparable(LOCAL, Space.from_json(old(other(LOCAL, weights="00" * 32)))).differing == ("weights",)


def test_services_have_no_facts_to_lack():
    record = Space.from_json(old(SERVICE))
    assert comparable(SERVICE, record).unknown == ()
    assert record.facts_digest() == SERVICE.facts_digest()
    # An older version can read it, because it is what that version writes.
    assert SERVICE.to_json() == old(SERVICE)


def test_the_same_id_with_other_facts_is_distinguished_by_the_facts():
    changed = dataclasses.replace(LOCAL, tokenizer="11" * 32)
    assert changed.id == LOCAL.id
    comparison = comparable(changed, LOCAL)
    assert explained(changed, comparison, LOCAL) == f"{LOCAL.id} (different tokenizer)"


spaces = st.builds(
    Space,
    model=st.text(min_size=1),
    weights=st.text(),
    dimensions=st.integers(1, 10_000),
    pooling=st.sampled_from(["mean", "cls", "last", "service"]),
    normalized=st.booleans(),
    query_prompt=st.text(),
    document_prompt=st.text(),
    head=st.text(),
    tokenizer=st.text(min_size=1),
    config=st.text(min_size=1),
)


@given(spaces, spaces)
def test_json_keeps_every_fact(one, two):
    assert Space.from_json(one.to_json()) == one
    assert bool(comparable(one, two)) == all(getattr(one, name) == getattr(two, name) for name in FACTS)


@pytest.mark.parametrize(
    "facts",
    [
        None,
        [],
        {},
        {**LOCAL.to_json(), "id": "another"},
        {**LOCAL.to_json(), "dimensions": "8"},
        {**LOCAL.to_json(), "dimensions": True},
        {**LOCAL.to_json(), "normalized": 1},
        {**LOCAL.to_json(), "pooling": "max"},
        {**LOCAL.to_json(), "tokenizer": 5},
        {**LOCAL.to_json(), "colour": "blue"},
        {**LOCAL.to_json(), "version": "2"},
        {**LOCAL.to_json(), "version": 0},
        {name: value for name, value in LOCAL.to_json().items() if name != "weights"},
    ],
    ids=str,
)
def test_what_is_no_space_is_refused(facts):
    with pytest.raises(ValueError, match=r"\w"):
        Space.from_json(facts)


def test_a_newer_version_is_named():
    with pytest.raises(SpaceVersionError, match=rf"version {VERSION + 1} .* up to {VERSION}:"):
        Space.from_json({**LOCAL.to_json(), "version": VERSION + 1, "colour": "blue"})
