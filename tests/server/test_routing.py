"""Addresses of endpoints, with a parameter that may contain slashes."""

from embedway.server.dialects import openai
from embedway.server.endpoint import Endpoint
from embedway.server.routing import Routes


def endpoint(method, path):
    async def handler(exchange): ...

    return Endpoint(method, path, handler, "", openai.error, "test")


MODEL, FILE, CONTENT, FILES = (
    endpoint("GET", "/v1/models/{model}"),
    endpoint("GET", "/v1/files/{file}"),
    endpoint("GET", "/v1/files/{file}/content"),
    endpoint("POST", "/v1/files"),
)
ROUTES = Routes((MODEL, FILE, CONTENT, FILES))


def test_a_path_without_a_parameter_is_exact():
    assert ROUTES.find("POST", "/v1/files") == (FILES, "")
    assert ROUTES.find("GET", "/v1/files") == (None, "")
    assert ROUTES.methods("/v1/files") == ["POST"]


def test_a_parameter_may_contain_slashes_but_not_be_empty():
    assert ROUTES.find("GET", "/v1/models/owner/name") == (MODEL, "owner/name")
    assert ROUTES.find("GET", "/v1/models/") == (None, "")
    assert ROUTES.methods("/v1/models/") == []


def test_the_most_specific_path_is_found():
    assert ROUTES.find("GET", "/v1/files/file-1") == (FILE, "file-1")
    assert ROUTES.find("GET", "/v1/files/file-1/content") == (CONTENT, "file-1")


def test_the_methods_of_a_path_with_a_parameter():
    assert ROUTES.methods("/v1/models/owner/name") == ["GET"]
    assert ROUTES.find("POST", "/v1/models/owner/name") == (None, "owner/name")


def test_an_unknown_path_belongs_to_the_api_with_its_first_part():
    other = endpoint("POST", "/api/embed")
    routes = Routes((MODEL, FILE, other, endpoint("POST", "/")))
    assert routes.family("/api/pull") is other
    assert routes.family("/v1/chat/completions") is MODEL
    assert routes.family("/unknown") is None
    assert routes.family("*") is routes.family("/")
