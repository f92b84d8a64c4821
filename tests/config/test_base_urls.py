"""URLs of services as people paste them."""

import pytest

from embedway import Config
from embedway.config.base_urls import BaseUrl, complete_base_url
from embedway.errors import ConfigError

HOST = "https://gateway.example.com"
AZURE = "https://name.openai.azure.com"
DATED = "2024-10-21"


@pytest.mark.parametrize(
    ("provider", "given", "completed"),
    [
        ("openai-compatible", f"{HOST}/v1", f"{HOST}/v1"),
        ("openai-compatible", f" {HOST}/v1/ \n", f"{HOST}/v1"),
        ("openai-compatible", f"{HOST}//v1//", f"{HOST}/v1"),
        ("openai-compatible", f"{HOST}/v1/embeddings", f"{HOST}/v1"),
        ("openai-compatible", f"{HOST}/v1/embeddings/", f"{HOST}/v1"),
        ("openai-compatible", f"{HOST}/v1/rerank", f"{HOST}/v1"),
        ("openai-compatible", f"{HOST}/a/embeddings-v2/v1", f"{HOST}/a/embeddings-v2/v1"),
        ("openai-compatible", HOST, HOST),
        ("openai-compatible", "https://api.openai.com", "https://api.openai.com"),
        ("openai", "https://api.openai.com", "https://api.openai.com/v1"),
        ("openai", "https://api.openai.com/", "https://api.openai.com/v1"),
        ("openai", "https://eu.api.openai.com/v1/embeddings", "https://eu.api.openai.com/v1"),
        ("openai", HOST, HOST),
        ("voyage", "https://api.voyageai.com", "https://api.voyageai.com/v1"),
        ("jina", "https://api.jina.ai/v1/rerank", "https://api.jina.ai/v1"),
        ("mistral", "https://api.mistral.ai/", "https://api.mistral.ai/v1"),
        ("cohere", "https://api.cohere.com/v2", "https://api.cohere.com"),
        ("cohere", "https://api.cohere.com/v2/embed", "https://api.cohere.com"),
        ("cohere", f"{HOST}/v1", f"{HOST}/v1"),
        ("gemini", "https://generativelanguage.googleapis.com", "https://generativelanguage.googleapis.com/v1beta"),
        ("gemini", f"{HOST}/v1beta/models/gemini-embedding-001:batchEmbedContents", f"{HOST}/v1beta"),
        (
            "gemini",
            "https://generativelanguage.googleapis.com/v1beta/openai/",
            "https://generativelanguage.googleapis.com/v1beta",
        ),
        ("acme", "acme://a//b/embeddings?x=1", "acme://a//b/embeddings?x=1"),
        ("openai", "", ""),
    ],
)
def test_a_pasted_url_is_completed(provider, given, completed):
    assert complete_base_url(provider, given) == BaseUrl(completed)
    assert complete_base_url(provider, completed) == BaseUrl(completed)


@pytest.mark.parametrize(
    ("given", "version", "url", "options", "model"),
    [
        (AZURE, "", f"{AZURE}/openai/v1", "", ""),
        (f"{AZURE}/openai", "", f"{AZURE}/openai/v1", "", ""),
        (f"{AZURE}/openai/v1/", "", f"{AZURE}/openai/v1", "", ""),
        (f"{AZURE}/openai/v1/embeddings?api-version=preview", "", f"{AZURE}/openai/v1", "preview", ""),
        (f"{AZURE}/openai/v1", DATED, AZURE, DATED, ""),
        (f"{AZURE}/?api-version={DATED}", "", AZURE, DATED, ""),
        (AZURE, DATED, AZURE, DATED, ""),
        (f"{AZURE}/openai/deployments/my%20one/embeddings?api-version={DATED}", "", AZURE, DATED, "my one"),
        (f"{AZURE}/openai/deployments/d", DATED, AZURE, DATED, "d"),
        (f"{AZURE}/openai/deployments/d?api-version=2023-05-15", DATED, AZURE, DATED, "d"),
        (f"{HOST}/aoai/openai/deployments/d/embeddings", DATED, f"{HOST}/aoai", DATED, "d"),
        (f"{HOST}/aoai", "", f"{HOST}/aoai", "", ""),
        (f"{HOST}/aoai", DATED, f"{HOST}/aoai", DATED, ""),
    ],
)
def test_azures_urls_never_contain_a_path_twice(given, version, url, options, model):
    found = complete_base_url("azure-openai", given, version=version)
    assert found == BaseUrl(url, {"api_version": options} if options else {}, model)


@pytest.mark.parametrize(
    ("provider", "given", "said"),
    [
        (
            "openai-compatible",
            f"{HOST}/v1?api-version=1",
            f"without ?, such as {HOST}/v1; a key in it belongs in headers",
        ),
        ("openai", f"{HOST}/v1/embeddings?key=sEcr3t", f"such as {HOST}/v1;"),
        ("openai", f"{AZURE}/openai/v1?api-version=1", 'provider = "azure-openai"'),
        ("azure-openai", f"{AZURE}/openai/v1?api-version=1&code=sEcr3t", "no other query than ?api-version="),
        ("azure-openai", f"{AZURE}/openai/deployments/d", "options = { api_version"),
    ],
)
def test_what_cannot_be_sent_is_an_error_with_the_url_to_write(provider, given, said):
    config = Config.load(
        environ={}, overrides={"routes.r": {"model": "m", "provider": provider, "base_url": given, "api_key": "k"}}
    )
    with pytest.raises(ConfigError) as caught:
        config.access(provider, "r")
    assert (caught.value.where, caught.value.key) == ("routes.r", "base_url")
    assert said in str(caught.value)
    assert "sEcr3t" not in str(caught.value)


def test_a_deployment_in_the_url_is_the_model_and_must_be_the_only_one():
    url = f"{AZURE}/openai/deployments/d/embeddings?api-version={DATED}"
    route = {"model": "text-embedding-3-small", "provider": "azure-openai", "base_url": url, "api_key": "k"}
    access = Config.load(environ={}, overrides={"routes.r": route}).access("azure-openai", "r")
    assert (access.model, access.options, access.base_url) == ("d", {"api_version": DATED}, AZURE)
    with pytest.raises(ConfigError, match="another deployment than upstream_model"):
        Config.load(environ={}, overrides={"routes.r": {**route, "upstream_model": "e"}}).access("azure-openai", "r")


def test_variables_of_urls_are_completed_too():
    environ = {"OPENAI_BASE_URL": f"{HOST}/v1/embeddings", "AZURE_OPENAI_ENDPOINT": f"{AZURE}/openai/deployments/d"}
    config = Config.load(environ={**environ, "OPENAI_API_VERSION": DATED, "OPENAI_API_KEY": "k"})
    assert config.access("openai").base_url == f"{HOST}/v1"
    assert config.access("azure-openai").model == "d"
    config = Config.load(environ={"OPENAI_BASE_URL": f"{HOST}/v1?a=sEcr3t", "OPENAI_API_KEY": "k"})
    with pytest.raises(ConfigError, match=r"^OPENAI_BASE_URL: must be a URL without \?") as caught:
        config.access("openai")
    assert "sEcr3t" not in str(caught.value) + str(config.addresses)
