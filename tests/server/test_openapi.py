"""The OpenAPI document is true: schemathesis finds no violation of it, with all its default checks."""

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from embedway import __version__
from embedway.server import replies
from embedway.server.batches.api import BatchApi
from embedway.server.batches.description import batch_operations
from embedway.server.endpoints import ENDPOINTS
from embedway.server.openapi import document
from embedway.server.origins import cors_headers
from served_models import FAKE, gateway_settings, running  # noqa: F401 - a fixture

SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture
def url(gateway_settings):  # noqa: F811
    settings = {**gateway_settings, "embedding.default_model": FAKE, "cache.backend": "none"}
    with running(settings) as address:
        yield address


def test_headers_of_answers_are_described_told_and_readable_by_pages():
    source = (Path(replies.__file__)).read_text("utf-8")
    sent = set(re.findall(r'b"(x-[\w-]+|retry-after)"', source)) | {"x-embedway-request-id"}
    assert len(sent) == 10
    found = document(ENDPOINTS, keys=False, max_deadline_s=600)
    answered = found["paths"]["/v1/embeddings"]["post"]["responses"]["200"]["headers"]
    refused = found["components"]["responses"]["openai-503"]["headers"]
    assert answered.keys() | refused.keys() == sent
    exposed = dict(cors_headers([(b"origin", b"https://a.example")], ["https://a.example"]))
    assert set(exposed[b"access-control-expose-headers"].decode().split(", ")) == sent
    told = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text("utf-8")
    assert {name for name in sent if f"`{name}" not in told} == set()


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/embeddings", {"content-encoding": "gzip"}, 415),
        ("/embed", {"content-encoding": "gzip"}, 415),
        ("/api/embed", {"content-encoding": "gzip"}, 415),
    ],
)
def test_an_encoded_body_has_the_status_of_the_document(url, path, headers, status):
    answer = httpx.post(url + path, content=b"{}", headers=headers)
    responses = document(ENDPOINTS, keys=False, max_deadline_s=600)["paths"][path]["post"]["responses"]
    assert answer.status_code == status
    assert str(status) in responses
    assert "408" not in responses  # a client that is too slow is disconnected


def test_the_fields_of_a_batch_are_those_of_its_page():
    page = (Path(__file__).parents[2] / "docs" / "batches.md").read_text("utf-8")
    told = re.search(r"create a batch \((.*)\)", page)[1]
    content = batch_operations()["/v1/batches"]["post"]["requestBody"]["content"]
    assert set(content["application/json"]["schema"]["properties"]) == set(re.findall(r"`(\w+)`", told))


def judge(url, settings, folder, *options):
    """Run schemathesis on a gateway."""
    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            *("run", f"{url}/openapi.json", "--no-color", "--seed", "1"),
            # One worker: CPython 3.11 cannot parse source code, as hypothesis does, in two threads at the same time.
            *("--max-examples", "2", "--workers", "1", "--suppress-health-check", "all"),
            *options,
        ],
        env={
            **os.environ,
            "PYTHONPATH": str(SUPPORT),
            "RERANKER": settings["rerank.default_model"],
            "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
        },
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "generated" in done.stdout


#: They are the same endpoints at other paths.
REPEATED = "^/(cohere|tei|ollama|$)"


def test_schemathesis_finds_no_violation_with_random_requests(url, gateway_settings, tmp_path):  # noqa: F811
    judge(url, gateway_settings, tmp_path, "--phases", "examples,fuzzing", "--exclude-path-regex", REPEATED)


def test_schemathesis_finds_no_violation_at_the_bounds_of_embeddings(url, gateway_settings, tmp_path):  # noqa: F811
    judge(url, gateway_settings, tmp_path, "--phases", "coverage", "--include-path", "/v1/embeddings")


@pytest.mark.schemathesis
def test_schemathesis_finds_no_violation_at_the_bounds_of_all_endpoints(url, gateway_settings, tmp_path):  # noqa: F811
    judge(url, gateway_settings, tmp_path, "--phases", "coverage", "--exclude-path-regex", REPEATED)


def test_the_document_lists_all_endpoints_and_the_version(url):
    found = httpx.get(f"{url}/openapi.json").json()
    assert found["info"]["version"] == __version__
    listed = {(method, path) for path, item in found["paths"].items() for method in item}
    batches = {(method, path) for path, item in batch_operations().items() for method in item}
    assert listed == {(one.method.lower(), one.path) for one in ENDPOINTS} | batches
    assert "securitySchemes" not in found["components"]
    deadline = found["components"]["schemas"]["EmbeddingsBody"]["properties"]["deadline"]
    assert deadline["anyOf"][0]["maximum"] == 600


def test_a_gateway_with_keys_says_which_addresses_need_one():
    found = document(ENDPOINTS, keys=True, max_deadline_s=60)
    assert set(found["components"]["securitySchemes"]) == {"key", "header"}
    assert found["paths"]["/v1/embeddings"]["post"]["security"] == [{"key": []}, {"header": []}]
    assert found["paths"]["/health/live"]["get"]["security"] == []


def test_operations_have_names_of_their_own():
    names = [
        operation["operationId"]
        for item in document(ENDPOINTS, keys=False, max_deadline_s=60)["paths"].values()
        for operation in item.values()
    ]
    assert len(names) == len(set(names))


def test_all_addresses_of_files_and_batches_are_described():
    routes = BatchApi(None, None, None).routes()
    described = {(method, path) for path, item in batch_operations().items() for method in item}
    assert {(one.method.lower(), one.path) for one in routes} == described
