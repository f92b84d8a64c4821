"""Messages for redirects: they say where base_url should point, and repeat nothing else of the location."""

import pytest

from embedway.providers.redirects import redirect_message

HTTP, HTTPS = "http://api.example.com:8080/v1", "https://api.example.com/v1"


@pytest.mark.parametrize(
    ("base_url", "location", "says"),
    [
        (HTTPS, "/v1/embeddings/", "to the path /v1/embeddings/; check base_url, and the server or proxy behind it"),
        (HTTPS, "/api/v1/embeddings", "to the path /api/v1/embeddings; base_url must end in /api/v1"),
        (
            HTTPS,
            "../openai/v1/embeddings?key=SECRET#x",
            "to the path /openai/v1/embeddings; base_url must end in /openai/v1",
        ),
        (HTTPS, "/SECRET/v1/embeddings", "to the path /…/v1/embeddings; base_url must end in /…/v1"),
        (HTTPS, "/v1/SECRET", "to the path /v1/…; check base_url"),
        (HTTPS, "/embeddings", "to the path /embeddings; check base_url"),
        (HTTPS, "/", "to the path /"),
        (HTTP, "https://api.example.com/v1/embeddings", "to https; start base_url with https://api.example.com"),
        (HTTPS, "http://api.example.com/v1/embeddings", "to another port or scheme of its host"),
        (HTTP, "http://api.example.com:9090/v1/embeddings", "to another port or scheme of its host"),
        (HTTPS, "https://SECRET.example.com/v1/embeddings", "to another host, where keys and texts are not sent"),
        (HTTPS, "//user:SECRET@elsewhere.example/", "to another host"),
        (
            HTTPS,
            "https://user:SECRET@api.example.com/v1/embeddings?SECRET",
            "to the path /v1/embeddings; check base_url",
        ),
        (HTTPS, "https://portal.example/login?to=SECRET", "to a login page"),
        (HTTPS, "/oauth2/authorize?SECRET", "to a login page"),
        (HTTPS, "", "without an address; check base_url"),
        (HTTPS, "https://[SECRET", "to an invalid address; check base_url"),
        (HTTPS, "https://api.example.com:SECRET/", "to an invalid address; check base_url"),
        (HTTPS, "mailto:SECRET", "to another host"),
    ],
)
def test_a_redirect_is_described_without_its_secrets(base_url, location, says):
    message = redirect_message(location, base_url, "/embeddings")
    assert message.startswith(f"the service redirects {says}")
    assert "secret" not in message.lower()


def test_a_base_url_s_own_path_is_not_shown_in_full():
    message = redirect_message("/TOKEN/v1/embeddings/", "https://gateway.example/TOKEN/v1", "/embeddings")
    assert message.startswith("the service redirects to the path /…/v1/embeddings/; check base_url")
