"""Files and batches of a running gateway, with OpenAI's client: the answers are those of the online API."""

import json
import time

import openai
import pytest

from gateways import gateway_in_thread

MODEL = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture
def url(default_model_directory, tmp_path):
    settings = {
        "weights.directory": str(default_model_directory),
        "weights.offline": True,
        "server.state_directory": str(tmp_path),
    }
    with gateway_in_thread(**settings) as url:
        yield url


def line(number, **body):
    request = {"custom_id": str(number), "method": "POST", "url": "/v1/embeddings", "body": {"model": MODEL, **body}}
    return json.dumps(request).encode() + b"\n"


def test_a_batch_answers_as_the_online_api(url):
    texts = [f"text {number}" for number in range(20)]
    with openai.OpenAI(base_url=f"{url}/v1", api_key="unused") as client:
        data = b"".join(line(number, input=text) for number, text in enumerate(texts)) + line("bad", input="")
        file = client.files.create(file=("requests.jsonl", data), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")
        limit = time.monotonic() + 60
        while batch.status not in {"completed", "failed"}:
            assert time.monotonic() < limit
            time.sleep(0.1)
            batch = client.batches.retrieve(batch.id)
        assert (batch.request_counts.completed, batch.request_counts.failed) == (20, 1)
        lines = [json.loads(one) for one in client.files.content(batch.output_file_id).text.splitlines()]
        errors = [json.loads(one) for one in client.files.content(batch.error_file_id).text.splitlines()]
        online = client.embeddings.create(model=MODEL, input=texts, encoding_format="float").data
    found = {one["custom_id"]: one["response"]["body"]["data"][0]["embedding"] for one in lines}
    for number, vector in enumerate(online):
        assert found[str(number)] == pytest.approx(vector.embedding, abs=1e-5)
    assert errors[0]["custom_id"] == "bad"
    assert errors[0]["response"]["status_code"] == 400
