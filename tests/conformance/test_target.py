"""URLs of servers, and what must not be sent to them."""

import pytest

from embedway.conformance.target import parse_place
from embedway.errors import UsageError


@pytest.mark.parametrize(
    ("url", "bases"),
    [
        ("http://127.0.0.1:8000", ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000")),
        ("http://127.0.0.1:8000/", ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000")),
        ("http://127.0.0.1:8000/v1/", ("http://127.0.0.1:8000/v1",)),
        ("https://example.com/api/v3/embeddings", ("https://example.com/api/v3",)),
        ("https://example.com/vault", ("https://example.com/vault/v1", "https://example.com/vault")),
    ],
)
def test_a_url_with_or_without_a_version(url, bases):
    assert parse_place(url).base_urls == bases


@pytest.mark.parametrize(
    "url", ["example.com", "ftp://example.com", "http://user:pass@example.com", "http://e.com?k=1"]
)
def test_other_urls_are_wrong_usage_without_their_secrets(url):
    with pytest.raises(UsageError, match="URL must") as caught:
        parse_place(url)
    assert "pass@" not in str(caught.value)


def test_a_key_is_not_sent_in_the_clear():
    with pytest.raises(UsageError, match="--allow-http"):
        parse_place("http://example.com", key="sk-1")
    assert parse_place("http://example.com", key="sk-1", allow_http=True).key == "sk-1"
    assert parse_place("http://localhost:1", key="sk-1").key == "sk-1"
    assert parse_place("http://example.com").key is None
