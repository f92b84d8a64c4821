"""Texts that a service repeats in an error do not change the error's meaning, limits and wait."""

import json

import pytest

from embedway.errors import RateLimitedError, RefusedInputError
from embedway.providers.http_errors import SentRequest, error_of

ECHOES = {
    "as it is": str,
    "in JSON": json.dumps,
    "in Python": repr,
    "in JSON twice": lambda text: json.dumps(json.dumps(text)),
    "in HTML": lambda text: text.replace('"', "&quot;").replace("é", "&eacute;"),
    "with one blank": lambda text: " ".join(text.split()),
    "cut at the end": lambda text: f"{text[:-4]}...",
    "cut at the start": lambda text: f"...{text[5:]}",
    "cut in the middle": lambda text: f"{text[: len(text) * 2 // 3]}...{text[-3:]}",
}
TEXTS = [
    'a novel: the token "abc" has expired, he said',
    "a novel: the\napi key\tis   invalid, she said",
    'the story of "insufficient credits" in a bank',
    "the café: monthly 'usage' limit reached, they said",
    'a house with maximum "context" length of 5 tokens',
    'too many texts, "max 1" of them in this library',
    'a list: maximum allowed\nbatch size "2" in this book',
    "C:\\new\\table is not loaded, and quota exceeded there",
    "无效的令牌 is what the sign over the door said",
]


def error_for(message, texts, status=400):
    body = json.dumps({"error": {"message": message}}).encode()
    request = SentRequest("https://api.example.com/v1", "/embeddings", json.dumps({"input": texts}).encode())
    return error_of(status, {}, body, route="r", request=request)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
def test_a_repeated_text_changes_neither_the_error_nor_its_limits(echo, text):
    error = error_for(f"could not process the model's input: {echo(text)}", ["another", text])
    assert type(error) is RefusedInputError
    assert "the service refused the request" in str(error)
    assert error.limits is None


@pytest.mark.parametrize("text", ['please "try again" in 90 seconds, he said', "wait\nfor 5\tminutes, then open it"])
@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
def test_a_repeated_text_is_no_wait(echo, text):
    error = error_for(f"busy: {echo(text)}", [text], 429)
    assert isinstance(error, RateLimitedError)
    assert error.retry_after_s is None


def test_words_of_the_service_beside_a_repeated_text_count():
    text = 'a novel: the token "abc" has expired, he said'
    error = error_for(f"{json.dumps(text)}: maximum allowed batch size 7; try again in 3s", [text])
    assert "too many texts in a request" in str(error)
    assert error.limits.max_inputs == 7
    assert error_for(f"{json.dumps(text)} was too much; try again in 3s", [text], 429).retry_after_s == 3


def test_a_text_and_a_phrase_of_the_service_are_no_phrase_together():
    error = error_for(
        'the model cannot read: "what this man ordered is not loaded"', ["What this man ordered is not loaded"]
    )
    assert type(error) is RefusedInputError
