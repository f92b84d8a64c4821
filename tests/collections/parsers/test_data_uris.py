"""Encoded data in texts: what is replaced, what stays, and time."""

import base64
import hashlib
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway.collections.parsers.data_uris import without_data_uris

DATA = random.Random(7).randbytes(3000)
BASE64 = base64.b64encode(DATA).decode()
WRAPPED = "\n".join(BASE64[at : at + 64] for at in range(0, 1000, 64))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"![a](data:image/png;base64,{BASE64})", "![a]([image])"),
        (f"url(DATA:image/svg+xml;charset=utf-8,{'%3Csvg' * 20}) b", "url([image]) b"),
        (f"data:application/pdf;base64,{BASE64} end", "[data] end"),
        (f"key {BASE64} end", "key [data] end"),
        (f"hex {DATA[:100].hex()} end", "hex [data] end"),
        ("zeros " + "A" * 600, "zeros [data]"),
        (f"  {WRAPPED[:64]}\n  {WRAPPED[65:129]}\n  abc=\nnext", "  [data]\n\n\nnext"),
    ],
)
def test_data_is_replaced(text, expected):
    assert without_data_uris(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "data:text/plain,short",
        "the data: image/png and base64",
        hashlib.sha512(b"a").hexdigest(),
        base64.b64encode(hashlib.sha512(b"a").digest()).decode(),
        "https://example.org/" + "a-long-path/of-many-words/" * 12,
        "_" * 300,
        "-" * 300,
        "com/example/Package/" * 20,
        "word " * 100,
        "x" * 70 + "\n" + "y" * 70,
    ],
)
def test_text_stays(text):
    assert without_data_uris(text) == text


@given(st.lists(st.sampled_from([WRAPPED, BASE64, "text", "", "> ", "data:image/png;base64,", "a" * 130]), max_size=8))
def test_the_number_of_lines_is_unchanged(parts):
    text = "\n".join(parts)
    assert without_data_uris(text).count("\n") == text.count("\n")


@pytest.mark.parametrize(
    "part", ["data:", "data:a/b;", "data:a/b;c=d;", "data:image/png;base64,", "Aa1+", "Aa1 ", "A" * 64 + "\n"]
)
def test_hostile_texts_take_linear_time(part):
    text = part * (1_000_000 // len(part))
    begin = time.process_time()
    without_data_uris(text)
    assert time.process_time() - begin < 4
