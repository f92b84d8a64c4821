"""Parts of texts, the part that answers a query best, and the snippet around it."""

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway.collections.passages import MAX_PART_CHARACTERS, parts_of
from embedway.collections.snippets import SNIPPET_CHARACTERS, Highlighter, best_part, snippet_of

LONG = "This sentence has nothing to do with it, and it is here to fill the text. "
TEXT = """Kafka connector

Short intro of the connector.

Timeouts

The connector waits thirty seconds, e.g. for a broker.
After that it raises TimeoutError.

- First item about brokers
  and their addresses.
- Second item: three retries.
1. Numbered.

option | default | meaning
poll.ms | 500 | Interval between polls
linger.ms | 5 | Time that a batch waits

def connect(host):
    # open the socket
    client = Client(host)

    return client

>>> connect("a")
<Client>
>>> close()
"""


def parts(text):
    return [(part.kind, text[part.start : part.end]) for part in parts_of(text)]


def test_sentences_items_rows_and_statements_are_parts():
    assert parts(TEXT) == [
        ("heading", "Kafka connector"),
        ("sentence", "Short intro of the connector."),
        ("heading", "Timeouts"),
        ("sentence", "The connector waits thirty seconds, e.g. for a broker."),
        ("sentence", "After that it raises TimeoutError."),
        ("item", "First item about brokers\n  and their addresses."),
        ("item", "Second item: three retries."),
        ("item", "Numbered."),
        ("row", "option | default | meaning"),
        ("row", "poll.ms | 500 | Interval between polls"),
        ("row", "linger.ms | 5 | Time that a batch waits"),
        ("code", "def connect(host):\n    # open the socket\n    client = Client(host)\n\n    return client"),
        ("code", '>>> connect("a")\n<Client>'),
        ("code", ">>> close()"),
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("See Fig. 3 of Dr. Who vs. the rest. Then stop.", ["See Fig. 3 of Dr. Who vs. the rest.", "Then stop."]),
        ("A wrapped line goes on over the margin and\nends here. Next.", 2),
        ("It goes after the ? in a URL, or after the ! in a shell. Then stop.", 2),
        ("Version 3.5 is new. It is fast.", ["Version 3.5 is new.", "It is fast."]),
        ("犬がいる。私は猫が好きです。終わり。", ["犬がいる。", "私は猫が好きです。", "終わり。"]),
        ("Name: a\nSize: 3\nColour: red", ["Name: a", "Size: 3", "Colour: red"]),
        ("| a | b |\n| --- | --- |\n| 1 | 2 |", ["| a | b |", "| 1 | 2 |"]),
        ("", []),
        (" \n\n \n", []),
    ],
)
def test_ends_of_parts(text, found):
    own = [shown for _, shown in parts(text)]
    assert (len(own) if isinstance(found, int) else own) == found


@given(st.text(max_size=2000) | st.text(alphabet="a b.\n-|>>>=(){}:1\t", max_size=400))
def test_parts_are_in_order_bounded_and_not_blank(text):
    found = parts_of(text)
    assert all(0 <= one.start < one.end <= len(text) for one in found)
    assert all(one.end <= other.start for one, other in pairwise(found))
    assert all(one.end - one.start <= MAX_PART_CHARACTERS for one in found)
    assert all(text[one.start : one.end].strip() == text[one.start : one.end] for one in found)


def test_no_prose_is_lost():
    text = "\n\n".join([LONG * 3, "A line", "x" * 1000, LONG])
    assert "".join("".join(shown.split()) for _, shown in parts(text)) == "".join(text.split())


@pytest.mark.parametrize(
    "unit", ["a", " ", "\n", "(", "{  ", ". ", "- ", "|", "a.b", "\t", ">>> ", "e.g. ", "=:", "\n "]
)
def test_hostile_texts_take_linear_time(unit):
    started = time.process_time()
    text = unit * (200_000 // len(unit))
    highlighter = Highlighter("a b e.g")
    passages = highlighter.passages(text)
    snippet_of(passages, best_part(passages)[0])
    assert time.process_time() - started < 5


def shown(query, text, headings="", cosines=None, **options):
    highlighter = Highlighter(query)
    highlighter.learn([text])
    passages = highlighter.passages(text, headings)
    best, score = best_part(passages, cosines)
    return snippet_of(passages, best, score=score, **options)


@pytest.mark.parametrize(
    ("query", "text", "best"),
    [
        ("limit of retries", "It has a cache. Retries have a limit. The end.", "Retries have a limit."),
        ("timeout", "| name | use |\n| timeout | seconds to wait |\n| x | y |", "| timeout | seconds to wait |"),
        ("猫が好き", "犬がいる。私は猫が好きです。終わり。", "私は猫が好きです。"),
        ("def close", "x = 1\ndef close():\n    pass", "def close():\n    pass"),
        ("zebra", "Nothing here. Or there.", "Nothing here."),
        ("three retries", TEXT, "Second item: three retries."),
        ("timeouts", "Timeouts\n\nThe timeouts are long.", "The timeouts are long."),
    ],
)
def test_the_best_part_shares_the_rarest_words(query, text, best):
    snippet, highlight = shown(query, text)
    assert text[highlight.start : highlight.end] == str(highlight) == best
    assert snippet.text[slice(*snippet.best)].split() == best.split()
    assert all(0 <= a < b <= len(snippet.text) for a, b in snippet.words)


@pytest.mark.parametrize(
    ("query", "weights", "marked"),
    [
        ("what is the pressure of the pump", {"the": 1e-6, "of": 0.2, "is": 0.3, "pressure": 3.1, "pump": 2.0}, "both"),
        ("the pressure of a pump 4711", {"the": 1e-6, "of": 0.2, "pressure": 1.7, "pump": 1.8, "4711": 8.0}, "both"),
        ("what is the pressure of the pump", {}, "both"),
        ("of the", {"the": 1e-6, "of": 1e-6}, "all"),
    ],
)
def test_common_words_are_not_marked_beside_rarer_ones(query, weights, marked):
    text = "It is the pressure of the pump. " + " ".join(f"The end of the part {n} is here." for n in range(9))
    highlighter = Highlighter(query, weights)
    highlighter.learn([text])
    snippet, _ = snippet_of(highlighter.passages(text), 0)
    words = [snippet.text[a:b] for a, b in snippet.words]
    assert set(words) == ({"pressure", "pump"} if marked == "both" else {"the", "The", "of"})


def test_cosines_decide_and_words_help():
    text = "The first sentence. The second sentence. The third one."
    assert str(shown("zebra", text, cosines=[0.1, 0.2, 0.6])[1]) == "The third one."
    assert str(shown("second", text, cosines=[0.1, 0.2, 0.4])[1]) == "The second sentence."
    assert str(shown("second", text, cosines=[0.1, 0.2, 0.9])[1]) == "The third one."


def test_a_short_text_is_whole_and_a_long_one_starts_at_the_match():
    assert shown("two", "One is here. Two is there. ")[0].text == "One is here. Two is there."
    snippet, _ = shown("match", LONG * 5 + "The match is here. " + LONG * 5)
    assert snippet.text.startswith("The match is here. This sentence")
    assert snippet.text.endswith("fill the text.")
    assert len(snippet.text) <= SNIPPET_CHARACTERS
    snippet, _ = shown("match", LONG * 5 + "The match is here.")
    assert snippet.text == LONG * 2 + "The match is here."
    assert (
        shown("limits", "One ends here.\n\nLimits\n\nTen a minute.")[0].text == "One ends here.\nLimits\nTen a minute."
    )


def test_a_heading_is_never_a_snippet_alone():
    long = "x" + " word" * 45 + "."
    assert shown("limits", f"{LONG * 3}\n\nThe limits\n\n{long}\n\n{LONG}")[0].text == f"The limits\n{long}"


def test_a_sentence_with_an_emoji_at_its_end_is_no_heading():
    long = "x" + " word" * 45 + " limits."
    assert shown("limits", f"{LONG * 3}\n\nThat is all. \U0001f36a\n\n{long}\n\n{LONG}")[0].text == long
    assert parts_of("Limits \U0001f36a\n\nTen a minute.")[0].kind == "heading"


def test_a_row_comes_with_its_header_and_items_without_their_markers():
    rows = "\n".join(f"option{n}.ms | {n} | the meaning of this option in many words {n}" for n in range(30))
    text = f"option | default | meaning\n{rows}"
    snippet, highlight = shown("option20.ms", text)
    lines = snippet.text.split("\n")
    assert lines[:2] == ["option | default | meaning", "option20.ms | 20 | the meaning of this option in many words 20"]
    assert text[snippet.start :].startswith("option20.ms")
    assert str(highlight) == lines[1]
    snippet, _ = shown("brokers", f"{LONG * 4}\n\n- First item about brokers.\n- Second one.\n\n{LONG * 4}")
    assert snippet.text.startswith("First item about brokers.\nSecond one.")


def test_code_starts_at_its_statement():
    body = "\n".join(f"    value_{n} = compute({n})" for n in range(30))
    text = f"{LONG}\n\ndef function(host):\n{body}\n    return the_answer\n"
    snippet, _ = shown("compute", text)
    assert snippet.text.startswith("def function(host):\n    value_0 = ")
    snippet, _ = shown("value_29", text)
    assert snippet.text.startswith("def function(host):\n…\n")
    assert "value_29" in snippet.text


def test_lines_are_those_of_the_snippet():
    text = "\n\n".join([LONG.strip()] * 6 + ["The match is here."] + [LONG.strip()] * 6)
    assert shown("match", text, start_line=10)[0].line == 22
    assert shown("match", text, start_line=10, counts_lines=False)[0].line == 10


def test_headings_above_the_text_are_not_repeated():
    headings = "Kafka connector \u203a Timeouts"
    assert shown("timeouts", "Timeouts\n\nWait.", headings)[0].text == "Wait."
    assert shown("timeouts", "Other\n\nWait.", headings)[0].text == "Other\nWait."
    assert shown("timeouts", "Timeouts", headings)[0].text == "Timeouts"
    assert shown("timeouts", "")[0].text == ""


@given(st.text(max_size=500), st.text(max_size=20))
def test_spans_of_a_snippet_are_in_it(text, query):
    snippet, highlight = shown(query, text)
    assert 0 <= snippet.start <= highlight.start <= highlight.end <= snippet.end <= len(text)
    start, end = snippet.best
    assert snippet.text[start:end].split() == text[highlight.start : highlight.end].split()
    assert all(0 <= first < last <= len(snippet.text) for first, last in snippet.words)
