"""Calls of routes with --online: one text each, with the reason and the advice of a failure."""

import base64
import http.server
import json
import threading

import numpy as np
import pytest

from embedway.cli.checks import online

SMALL = "text-embedding-3-small"
KEY = "sk-the-key-of-the-test"


class Service:
    """Loopback service in OpenAI's format. `status`, `body` and `width` change its answers; `seen` has the requests."""

    def __init__(self):
        self.status, self.body, self.width, self.seen = 200, None, 1536, []
        self.url = ""

    def answer(self, texts):
        if self.body is not None:
            return self.body
        if self.status != 200:
            return b'{"error": {"code": "some_code", "message": "text of the service"}}'
        data = base64.b64encode(np.eye(1, self.width, dtype=np.float32).tobytes()).decode()
        rows = [{"object": "embedding", "index": row, "embedding": data} for row in range(len(texts))]
        usage = {"prompt_tokens": 3, "total_tokens": 3}
        return json.dumps({"object": "list", "data": rows, "model": SMALL, "usage": usage}).encode()


@pytest.fixture
def service():
    made = Service()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            texts = body["input"] if "input" in body else body["documents"]
            made.seen.append(texts)
            answer = made.answer(texts)
            self.send_response(made.status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        made.url = f"http://127.0.0.1:{server.server_port}/v1"
        yield made
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def patient(monkeypatch, environment):
    """Wait long on a busy machine, and contact no hub."""
    monkeypatch.setattr(online, "CALL_S", 60.0)
    monkeypatch.setattr("embedway.cli.checks.routes.CALL_LIMIT_S", 120.0)
    environment["EMBEDWAY_WEIGHTS__OFFLINE"] = "1"


@pytest.fixture
def lines(command, place):
    """Return a function that runs `doctor --online` with a settings file, and returns its lines by name."""

    def run(settings, *arguments, **variables):
        (place / "s.toml").write_text(settings)
        done = command("--config", "s.toml", "doctor", "--json", *(arguments or ("--online",)), variables=variables)
        assert KEY not in done.stdout + done.stderr
        return {one["name"]: one for one in done.json["checks"]}

    return run


def route(name, url, model=SMALL, provider="openai", more=""):
    return (
        f'[routes.{name}]\nmodel = "{model}"\nprovider = "{provider}"\nbase_url = "{url}"\napi_key = "{KEY}"\n'
        f"{more}[routes.{name}.options]\n" + ('allow_http = "true"\n' if provider == "openai-compatible" else "")
    )


def test_a_route_that_answers_is_called_once_and_booked(lines, service, command):
    line = lines(route("good", service.url))["route good"]
    assert line["status"] == "ok"
    assert "answered in" in line["detail"]
    assert "1536 dimensions" in line["detail"]
    assert service.seen == [["embedway doctor"]]
    entries = command("budget", "ledger", "--json").json
    assert len(entries["entries"] if isinstance(entries, dict) else entries) == 1


def test_without_online_nothing_is_sent_and_no_file_is_created(lines, service, environment, tmp_path):
    assert "answered" not in lines(route("good", service.url), "--json")["route good"]["detail"]
    assert service.seen == []


def test_each_route_of_a_model_has_its_own_line(lines, service):
    found = lines(route("bad", "http://127.0.0.1:1/v1") + route("good", service.url))
    assert (found["route bad"]["status"], found["route good"]["status"]) == ("warning", "ok")
    assert "UnavailableError: the service is unreachable" in found["route bad"]["detail"].replace("routes.bad: ", "")
    assert "base_url" in found["route bad"]["remedy"]
    assert len(service.seen) == 1


@pytest.mark.parametrize(
    ("status", "error", "advice"),
    [
        (401, "AuthenticationError", "correct the key"),
        (403, "AuthenticationError", "correct the key"),
        (404, "ProtocolError", "upstream_model and base_url"),
        (429, "RateLimitedError", "try again later"),
        (400, "RefusedInputError", "upstream_model"),
        (503, "UnavailableError", "state of the service"),
    ],
)
def test_each_kind_of_error_has_its_advice(lines, service, status, error, advice):
    service.status = status
    line = lines(route("r", service.url))["route r"]
    assert line["status"] == "warning"
    assert error in line["detail"]
    assert advice in line["remedy"]
    assert "text of the service" not in line["detail"]
    assert len(service.seen) == 1, "one attempt, without retries"


def test_an_answer_that_is_not_the_api_s(lines, service):
    service.body = b"<html>"
    line = lines(route("r", service.url))["route r"]
    assert "ProtocolError" in line["detail"]
    assert "base_url" in line["remedy"]


def test_vectors_of_another_size(lines, service):
    service.width = 8
    line = lines(route("r", service.url))["route r"]
    assert "BadVectorsError" in line["detail"]
    assert "dimensions" in line["remedy"]


def test_a_budget_holds(lines, service):
    line = lines(route("r", service.url) + "[budgets.none]\nusd = 0\n")["route r"]
    assert "BudgetExceededError" in line["detail"]
    assert "raise the budget" in line["remedy"]
    assert service.seen == []


def test_a_service_of_the_environment_is_called_with_its_key(lines, service):
    line = lines("", OPENAI_API_KEY=KEY, OPENAI_BASE_URL=service.url)["service openai"]
    assert line["status"] == "ok"
    assert "key in OPENAI_API_KEY" in line["detail"]
    assert "answered in" in line["detail"]
    assert len(service.seen) == 1


def test_a_reranker_is_called(lines, service):
    service.body = json.dumps({"results": [{"index": 0, "relevance_score": 0.5}]}).encode()
    settings = '[models.m]\nname = "acme/reranker"\ntask = "rerank"\nmax_tokens = 512\n' + route(
        "r", service.url, "acme/reranker", "openai-compatible"
    )
    line = lines(settings)["route r"]
    assert line["status"] == "ok"
    assert "answered in" in line["detail"]
    assert len(service.seen) == 1


def test_weights_that_check_a_server_are_not_downloaded(lines, service):
    line = lines(route("r", service.url, "all-MiniLM-L6-v2", "openai-compatible"))["route r"]
    assert line["status"] == "warning"
    assert "models pull" in line["remedy"]
    assert service.seen == []
