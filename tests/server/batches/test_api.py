"""The endpoints, as the official client uses them."""

import asyncio
import io
import json
import uuid

import httpx
import openai
import pytest

from batch_gateway import FakeCompute, expected_results, make_app, request_line, results_of, serving_batches
from batch_stores import open_stores
from embedway.server.batches.values import BatchLimits

LIMITS = BatchLimits(file_bytes=2_000_000, tenant_bytes=8_000_000, lines=50, inputs=60, line_bytes=100_000)


@pytest.fixture
def compute():
    return FakeCompute()


@pytest.fixture
def url(place, compute):
    (store,) = open_stores(*place)
    with serving_batches(make_app(store, compute, limits=LIMITS)) as url:
        yield url


@pytest.fixture
def client(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="a", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Return a server for tests that do not depend on the store, and its computation."""
    compute = FakeCompute()
    (store,) = open_stores("sqlite", tmp_path_factory.mktemp("shared"), "")
    with serving_batches(make_app(store, compute, limits=LIMITS)) as url:
        yield url, compute


@pytest.fixture
def guest(shared):
    """Return a client of the shared server, as a tenant without files."""
    with openai.OpenAI(base_url=f"{shared[0]}/v1", api_key=uuid.uuid4().hex, max_retries=0) as client:
        yield client


@pytest.fixture
def stranger(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="b", max_retries=0) as client:
        yield client


def upload(client, data, **options):
    return client.files.create(file=("input.jsonl", data), purpose="batch", **options)


def start(client, data, **options):
    file = upload(client, data)
    return client.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h", **options)


def wait(client, batch):
    while batch.status not in {"completed", "failed", "expired", "cancelled"}:
        batch = client.batches.retrieve(batch.id)
    return batch


def test_a_batch_from_upload_to_download(client, compute):
    batch = start(client, b"".join(map(request_line, range(20))), metadata={"job": "nightly"})
    assert batch.status == "validating"
    assert batch.metadata == {"job": "nightly"}
    assert batch.expires_at == batch.created_at + 86_400
    batch = wait(client, batch)
    assert batch.status == "completed"
    assert batch.model == "m"
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (20, 20, 0)
    assert batch.usage.total_tokens == 60
    assert batch.in_progress_at <= batch.finalizing_at <= batch.completed_at
    assert batch.error_file_id is None
    output = client.files.retrieve(batch.output_file_id)
    content = client.files.content(output.id).content
    assert len(content) == output.bytes
    assert output.purpose == "batch_output"
    assert output.filename == f"{batch.id}_output.jsonl"
    found = results_of(content)
    assert {name: line["response"]["body"] for name, line in found.items()} == expected_results(20)
    assert {line["response"]["status_code"] for line in found.values()} == {200}
    assert {line["error"] for line in found.values()} == {None}
    assert sorted(compute.inputs) == sorted(f"text {n}" for n in range(20))
    assert {caller.key_name for caller in compute.callers} == {"a"}
    assert [one.id for one in client.batches.list()] == [batch.id]


def test_files_are_described_listed_and_deleted(client):
    files = [upload(client, io.BytesIO(b"x" * n)) for n in range(1, 6)]
    assert [file.bytes for file in files] == [1, 2, 3, 4, 5]
    assert files[0].filename == "input.jsonl"
    assert files[0].status == "processed"
    assert client.files.retrieve(files[0].id) == files[0]
    assert [one.id for one in client.files.list(order="asc")] == [one.id for one in files]
    page = client.files.list(limit=2, purpose="batch")
    assert [one.id for one in page] == [one.id for one in files[::-1]], "the client asks for all pages"
    assert client.files.content(files[4].id).content == b"xxxxx"
    deleted = client.files.delete(files[0].id)
    assert deleted.deleted
    with pytest.raises(openai.NotFoundError, match="No such File object"):
        client.files.retrieve(files[0].id)
    with pytest.raises(openai.NotFoundError):
        client.files.delete(files[0].id)


def test_large_files_come_back_as_they_were(client):
    data = bytes(range(256)) * 6000
    assert client.files.content(upload(client, data).id).content == data
    assert client.files.content(upload(client, b"").id).content == b""


def test_files_may_expire_earlier(client):
    file = upload(client, b"x", expires_after={"anchor": "created_at", "seconds": 3600})
    assert file.expires_at == file.created_at + 3600
    assert upload(client, b"x").expires_at - file.created_at >= 30 * 86_400
    with pytest.raises(openai.BadRequestError, match="expires_after"):
        upload(client, b"x", expires_after={"anchor": "created_at", "seconds": 3599})


def test_another_tenant_sees_nothing(client, stranger):
    batch = wait(client, start(client, request_line(1)))
    output = batch.output_file_id
    unknown = "0" * 32
    for real, made_up in ((output, f"file-{unknown}"), (batch.input_file_id, f"file-{unknown}")):
        for call in (stranger.files.retrieve, stranger.files.content, stranger.files.delete):
            answers = []
            for one in (real, made_up):
                with pytest.raises(openai.NotFoundError) as raised:
                    call(one)
                answers.append(raised.value.response.text.replace(one, "ID"))
            assert answers[0] == answers[1]
    for call in (stranger.batches.retrieve, stranger.batches.cancel):
        answers = []
        for one in (batch.id, f"batch_{unknown}"):
            with pytest.raises(openai.NotFoundError) as raised:
                call(one)
            answers.append(raised.value.response.text.replace(one, "ID"))
        assert answers[0] == answers[1]
    with pytest.raises(openai.NotFoundError):
        stranger.batches.create(input_file_id=batch.input_file_id, endpoint="/v1/embeddings", completion_window="24h")
    assert list(stranger.files.list()) == []
    assert list(stranger.batches.list()) == []
    with pytest.raises(openai.NotFoundError):
        stranger.files.list(after=output)
    assert client.files.content(output).content


@pytest.mark.parametrize(
    ("data", "code", "line", "param"),
    [
        (request_line(1) + request_line(1), "duplicate_custom_id", 2, "custom_id"),
        (request_line(1) + b"\n" + b"{not json}\n", "invalid_json_line", 3, None),
        (b"[]\n", "invalid_json_line", 1, None),
        (b"\xff\n", "invalid_json_line", 1, None),
        (request_line(1, url="/v1/chat/completions"), "url_mismatch", 1, "url"),
        (request_line(1, method="GET"), "invalid_method", 1, "method"),
        (request_line(1, body=None), "missing_required_parameter", 1, "body"),
        (request_line(1, body=[1]), "invalid_type", 1, "body"),
        (request_line(1, custom_id=7), "invalid_type", 1, "custom_id"),
        (request_line(1) + request_line(2, body={"model": "n", "input": "x"}), "model_mismatch", 2, "model"),
        (b"".join(map(request_line, range(51))), "too_many_tasks", None, None),
        (request_line(1, body={"model": "m", "input": ["x"] * 61}), "too_many_tasks", None, None),
        (request_line(1, "x" * 100_001), "line_too_long", 1, None),
        (b"x" * 300_000, "line_too_long", 1, None),
        (b"\n \n", "empty_file", None, None),
        (b"", "empty_file", None, None),
    ],
)
def test_an_invalid_input_file_fails_the_batch(guest, shared, data, code, line, param):
    batch = wait(guest, start(guest, data))
    assert batch.status == "failed"
    assert batch.failed_at
    error = batch.errors.data[0]
    assert (error.code, error.line, error.param) == (code, line, param)
    assert error.message
    assert batch.output_file_id is None
    assert batch.error_file_id is None
    assert guest.api_key not in {caller.key_name for caller in shared[1].callers}


def test_all_invalid_lines_are_named(guest):
    batch = wait(guest, start(guest, b"x\n" * 40))
    assert [error.line for error in batch.errors.data] == list(range(1, 41))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input_file_id"),
        ({"endpoint": "/v1/chat/completions"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
        ({"metadata": {"k": 1}}, "metadata"),
        ({"metadata": {"k" * 65: ""}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
        ({"metadata": []}, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "output_expires_after"),
        ({"output_expires_after": 7}, "output_expires_after"),
        ({"input_file_id": 7}, "input_file_id"),
    ],
)
def test_invalid_batches_are_refused(guest, shared, body, param):
    whole = {
        "input_file_id": upload(guest, b"x").id,
        "endpoint": "/v1/embeddings",
        "completion_window": "24h",
        **body,
    }
    headers = {"authorization": f"Bearer {guest.api_key}"}
    answer = httpx.post(f"{shared[0]}/v1/batches", json=whole if body else {}, headers=headers)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param


def test_results_are_no_input(guest):
    batch = wait(guest, start(guest, request_line(1)))
    with pytest.raises(openai.BadRequestError, match="purpose"):
        guest.batches.create(input_file_id=batch.output_file_id, endpoint="/v1/embeddings", completion_window="24h")


def test_an_ended_batch_cannot_be_cancelled(guest):
    batch = wait(guest, start(guest, request_line(1)))
    with pytest.raises(openai.ConflictError, match="Cannot cancel a batch with status 'completed'"):
        guest.batches.cancel(batch.id)


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=-1", "limit=99999999", "order=up"])
def test_invalid_queries_are_refused(shared, query):
    assert httpx.get(f"{shared[0]}/v1/files?{query}").status_code == 400


def test_a_file_that_is_too_large_is_refused_while_it_is_read(url, client):
    with pytest.raises(openai.APIStatusError) as raised:
        upload(client, b"x" * 2_000_001)
    assert raised.value.status_code == 413

    def endless():
        yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n'
        for _ in range(40):
            yield b"x" * 100_000

    headers = {"content-type": "multipart/form-data; boundary=b", "authorization": "Bearer a"}
    assert httpx.post(f"{url}/v1/files", content=endless(), headers=headers).status_code == 413
    assert list(client.files.list()) == []


def test_files_of_a_tenant_are_bounded_together(client, stranger):
    for _ in range(4):
        file = upload(client, b"x" * 2_000_000)
    with pytest.raises(openai.BadRequestError, match="maximum size"):
        upload(client, b"x" * 600_000)
    upload(stranger, b"x")
    client.files.delete(file.id)
    upload(client, b"x" * 600_000)


FILE_PART = b'--b\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\nx\r\n'
PURPOSE_PART = b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
END = b"--b--\r\n"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "multipart/form-data; boundary=b"),
        (FILE_PART + PURPOSE_PART, "multipart/form-data; boundary=b"),
        (FILE_PART + END, "multipart/form-data; boundary=b"),
        (PURPOSE_PART + END, "multipart/form-data; boundary=b"),
        (FILE_PART + FILE_PART + PURPOSE_PART + END, "multipart/form-data; boundary=b"),
        (FILE_PART + PURPOSE_PART.replace(b"\r\nbatch", b"\r\nvision") + END, "multipart/form-data; boundary=b"),
        (FILE_PART + PURPOSE_PART.replace(b"\r\nbatch", b"\r\n" + b"x" * 20_000), "multipart/form-data; boundary=b"),
        (PURPOSE_PART * 25 + END, "multipart/form-data; boundary=b"),
        (FILE_PART + PURPOSE_PART + END, "multipart/form-data"),
        (FILE_PART + PURPOSE_PART + END, "application/json"),
        (b"garbage", "multipart/form-data; boundary=b"),
        (b"--b\r\nno colon\r\n\r\n", "multipart/form-data; boundary=b"),
        (FILE_PART + PURPOSE_PART + END, "multipart/form-data; boundary=" + "b" * 1000),
    ],
)
def test_invalid_forms_are_refused_and_leave_nothing(guest, shared, content, kind):
    headers = {"content-type": kind, "authorization": f"Bearer {guest.api_key}"}
    answer = httpx.post(f"{shared[0]}/v1/files", content=content, headers=headers)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"]
    assert list(guest.files.list()) == []


def test_a_form_is_accepted_in_any_order(shared):
    for content in (FILE_PART + PURPOSE_PART + END, PURPOSE_PART + FILE_PART + END):
        headers = {"content-type": "multipart/form-data; boundary=b", "authorization": "Bearer a"}
        assert httpx.post(f"{shared[0]}/v1/files", content=content, headers=headers).json()["bytes"] == 1


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"a": ' + b"[" * 5000, b" " * 70_000])
def test_invalid_json_is_refused(shared, content):
    answer = httpx.post(f"{shared[0]}/v1/batches", content=content)
    assert answer.status_code in {400, 413}
    assert json.loads(answer.text)["error"]["type"] == "invalid_request_error"


def test_the_input_of_a_running_batch_stays(place):
    async def never(body):
        await asyncio.Event().wait()

    (store,) = open_stores(*place)
    with (
        serving_batches(make_app(store, FakeCompute(never))) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="a", max_retries=0) as client,
    ):
        batch = start(client, request_line(1))
        with pytest.raises(openai.BadRequestError, match="input of a batch") as raised:
            client.files.delete(batch.input_file_id)
        assert raised.value.code == "file_in_use"
        batch = client.batches.cancel(batch.id)
        assert batch.status in {"cancelling", "cancelled"}
        batch = wait(client, batch)
        assert batch.status == "cancelled"
        assert batch.cancelled_at >= batch.cancelling_at
        assert client.files.delete(batch.input_file_id).deleted


def test_a_store_that_cannot_be_used_is_told_without_names_of_this_machine(tmp_path, caplog):
    (tmp_path / "blocked").write_text("")
    (store,) = open_stores("sqlite", tmp_path / "blocked", "")
    with (
        serving_batches(make_app(store, FakeCompute())) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="a", max_retries=0) as client,
    ):
        for call in (lambda: upload(client, b"x"), client.files.list, lambda: client.batches.retrieve("batch_x")):
            with pytest.raises(openai.APIStatusError) as raised:
                call()
            assert raised.value.status_code == 503
            assert raised.value.response.headers["retry-after"]
            assert "blocked" not in raised.value.response.text
    assert "blocked" in caplog.text
