"""Keys never collide."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway.cache.key import KEY_BYTES, KeyMaker
from embedway.types import Space

SPACE = Space("m", "weights", 4, "mean", normalized=True)


ASKED = {"variant": "f32", "input_type": "document", "on_overflow": "truncate", "max_tokens": 256, "namespace": ""}


CHANGES = [
    {"variant": "bf16"},
    {"input_type": "query"},
    {"on_overflow": "mean"},
    {"max_tokens": 128},
    {"namespace": "tenant"},
    {"space": dataclasses.replace(SPACE, weights="others", digest="")},
    {"space": dataclasses.replace(SPACE, pooling="cls", digest="")},
    {"space": dataclasses.replace(SPACE, document_prompt="x: ", digest="")},
    {"space": dataclasses.replace(SPACE, dimensions=8)},
    {"space": dataclasses.replace(SPACE, model="n")},
]


def key(text="a text", space=SPACE, **changes):
    return KeyMaker(space, **{**ASKED, **changes}).keys([text])[0]


def test_a_key_is_the_same_in_every_process():
    assert key().hex() == key().hex()
    assert len(key()) == KEY_BYTES == 32
    # Fixed values: another key would make all existing caches useless.
    assert key().hex().startswith("d03d8877ef48686fd405dbdbed586eed")


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: str(*change))
def test_every_fact_is_in_the_key(change):
    assert key(**change) != key()


@given(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8), st.text(max_size=8))
def test_fields_never_run_together(namespace, text, other_namespace, other_text):
    same = (namespace, text) == (other_namespace, other_text)
    try:
        first, second = key(text, namespace=namespace), key(other_text, namespace=other_namespace)
    except UnicodeEncodeError:
        return  # surrogates are refused earlier
    assert (first == second) == same


def test_texts_that_differ_in_case_space_or_form_have_keys_of_their_own():
    texts = ["Polish", "polish", " polish", "polish ", "polish\x00", "\u00e9", "e\u0301"]
    assert len(set(KeyMaker(SPACE, **ASKED).keys(texts))) == len(texts)


KINDS = ["good", "changed", "short", "missing", "f16", "wide", "of another version", "another's"]
