"""Thirty percent of all requests fail, over real HTTP: no answered text is sent again, and attempts are limited."""

import collections
import math
import random

import numpy as np
import pytest

from provider_suite import APIS, assert_right, embed, limited

RATE = 0.3
TEXTS = [f"text {number}" for number in range(2000)]
A_REQUEST, ATTEMPTS = 32, 4
#: A rate limit counts as a success of the circuit breaker, so that the circuit stays closed for any order of faults.
LIMITS = ["429", "429 at once", "429 date"]
#: Failures that a text may have caused: the texts are halved.
FAILURES = ["500", "reset", "hang up"]


def fault(seed, faults, texts, attempt):
    """Return the fault of a request. It depends on its texts and their number of tries, not on other requests."""
    chance = random.Random(f"{seed} {texts} {attempt}")
    return chance.choice(faults) if chance.random() < RATE else None


def attempts_until_answered(seed, texts):
    """Return the number of requests that these texts need if attempts are not limited."""
    attempt = 1
    while fault(seed, LIMITS, texts, attempt):
        attempt += 1
    return attempt


class Failing(APIS["openai"].server):
    def __init__(self, seed, faults):
        super().__init__()
        self.seed = seed
        self.faults = faults
        self.asked = collections.Counter()
        self.width = 16

    def misdeed_for(self, body):
        texts = self.texts_of(body)
        self.asked.update(texts)
        return fault(self.seed, self.faults, texts, self.asked[texts[0]])


def sent_and_answered(server):
    """Return how often each text was sent, and the answered texts. No answered text is sent again."""
    sent, answered = collections.Counter(), set()
    for served in server.log:
        assert not answered & set(served.texts)
        sent.update(served.texts)
        if served.fate == "answered":
            answered.update(served.texts)
    return sent, answered


@pytest.mark.parametrize("seed", [2, 24, 29])
def test_no_answered_text_is_sent_again_and_none_more_than_the_attempts(seed, monkeypatch):
    limited(monkeypatch, A_REQUEST)
    server = Failing(seed, LIMITS)
    result = embed("openai", server, TEXTS, settings={"upstream.max_attempts": ATTEMPTS}, partial=True)

    parts = [tuple(TEXTS[start : start + A_REQUEST]) for start in range(0, len(TEXTS), A_REQUEST)]
    needed = {part: attempts_until_answered(seed, part) for part in parts}
    # Some need all attempts and some would need more, so that one attempt too many is detected.
    assert ATTEMPTS in needed.values()
    assert max(needed.values()) > ATTEMPTS

    sent, answered = sent_and_answered(server)
    assert max(sent.values()) == ATTEMPTS
    assert sent == {text: min(ATTEMPTS, number) for part, number in needed.items() for text in part}

    # Each result is the right row, or an error if its attempts are used up.
    lost = {text for part, number in needed.items() if number > ATTEMPTS for text in part}
    assert {TEXTS[row] for row in result.errors} == lost == set(TEXTS) - answered
    kept = [row for row, text in enumerate(TEXTS) if text not in lost]
    assert_right(result.vectors[kept], [TEXTS[row] for row in kept], server)
    assert np.isnan(result.vectors[list(result.errors)]).all()
    assert result.receipt.attempts == len(server.log)
    failed = [served for served in server.log if served.fate != "answered"]
    assert len(failed) == pytest.approx(RATE * len(server.log), rel=0.2)


@pytest.mark.parametrize("seed", [2, 24, 29])
def test_texts_of_failed_requests_are_halved_within_a_limit(seed, monkeypatch):
    limited(monkeypatch, A_REQUEST)
    server = Failing(seed, LIMITS + FAILURES)
    result = embed("openai", server, TEXTS, settings={"upstream.max_attempts": ATTEMPTS}, partial=True)

    sent, answered = sent_and_answered(server)
    assert max(sent.values()) <= ATTEMPTS + math.log2(A_REQUEST)
    assert {TEXTS[row] for row in result.errors} == set(TEXTS) - answered
    assert all(sent[TEXTS[row]] >= ATTEMPTS for row in result.errors)
    kept = [row for row, text in enumerate(TEXTS) if text in answered]
    assert_right(result.vectors[kept], [TEXTS[row] for row in kept], server)
    assert result.receipt.attempts == len(server.log)
