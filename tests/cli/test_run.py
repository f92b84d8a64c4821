"""Costs and progress of `run` and `embed` with a service that fails, as a user sees them."""

import errno
import http.server
import json
import re
import threading
import time
from pathlib import Path

import pytest

from embedway.providers.fake import vector_of
from embedway.telemetry import exposition

TEXTS = ["one two", "three four", "five six", "seven eight"]


class Service(http.server.BaseHTTPRequestHandler):
    """Embeddings API of a server with `faults`: statuses of the next requests. It refuses texts with `odd`."""

    def log_message(self, *_):
        pass

    def do_PUT(self):
        self.server.pushed.append(self.rfile.read(int(self.headers["content-length"])).decode())
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def do_POST(self):
        texts = json.loads(self.rfile.read(int(self.headers["content-length"])))["input"]
        faults = self.server.faults
        status = faults.pop(0) if faults else 400 if any("odd" in text for text in texts) else 200
        rows = [{"index": row, "embedding": vector_of(text, 16).tolist()} for row, text in enumerate(texts)]
        tokens = sum(len(text.split()) for text in texts)
        answer = {"data": rows, "usage": {"total_tokens": tokens, "prompt_tokens": tokens}}
        data = json.dumps(answer if status == 200 else {"error": {"message": "no"}}).encode()
        self.send_response(status)
        if status == 429:
            self.send_header("retry-after", "3600")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def service(place):
    """Run the service, with settings that name it, and yield it."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        server.faults, server.pushed = [], []
        (place / "embedway.toml").write_text(
            '[models.m]\nname = "acme/m"\ndimensions = 16\nmax_tokens = 50\nprice_usd_per_million_tokens = "1000"\n'
            '[routes.r]\nmodel = "acme/m"\nprovider = "openai-compatible"\noptions.max_inputs = "2"\n'
            f'base_url = "http://127.0.0.1:{server.server_port}/v1"\n'
            "[upstream]\nfirst_wait_s = 0.001\nlongest_wait_s = 0.002\ndeadline_s = 30\n"
        )
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def run(own_settings, place):
    def start(texts, *more):
        rows = [json.dumps({"id": f"row-{number}", "text": text}) for number, text in enumerate(texts)]
        (place / "in.jsonl").write_text("\n".join(rows) + "\n")
        return own_settings("run", "in.jsonl", "--to", "out.jsonl", "--model", "acme/m", "--no-chunk", *more)

    return start


def test_the_unsure_part_of_a_cost_is_shown(run, service, own_settings):
    service.faults = [500]
    done = run(["one two three four"])
    assert done.code == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("cost"))
    assert ", of which $0.0" in line
    assert "is unsure (failed requests may be billed, or the reported usage is implausible)" in line
    assert "unsure: a failed request may be billed" in own_settings("budget", "ledger").stdout


def test_the_document_has_the_attempts_the_routes_and_the_unsure_cost(run, service):
    service.faults = [500]
    summary = run(["one two three four"], "--json").json
    assert (summary["attempts"], summary["routes"], summary["estimated"]) == (2, ["routes.r"], False)
    assert 0 < summary["unsure_nanousd"] < summary["cost_nanousd"]


def test_one_rejected_row_is_one_row(run, service, place):
    done = run([*TEXTS, "odd"], "--on-error", "skip")
    assert done.code == 4
    assert "1 row or file was rejected; the reasons are in out.jsonl.rejects.jsonl" in done.stderr
    (reject,) = map(json.loads, (place / "out.jsonl.rejects.jsonl").read_text().splitlines())
    assert (reject["id"], reject["error"]) == ("row-4", "RefusedInputError")


def test_a_limit_that_is_used_up_names_what_is_done_and_when_to_continue(run, service):
    service.faults = [200, 429, 429]
    stopped = run(TEXTS)
    assert stopped.code == 1
    assert "\n2 of 4 texts are computed and kept; run the same command again in 3,600 s\n" in stopped.stderr
    service.faults = []
    done = run(TEXTS, "--json")
    assert (done.code, done.json["resumed"]) == (0, 2)


def test_a_service_that_answers_nothing_is_at_fault_and_not_its_rows(run, service):
    service.faults = [503] * 200
    stopped = run(TEXTS, "--on-error", "skip")
    assert stopped.code == 1
    assert (
        "none of the 4 texts was answered, so the service is taken to be at fault and no row is skipped"
        in stopped.stderr
    )


def test_embed_says_how_many_of_the_other_texts_are_in_the_cache(own_settings, service):
    stopped = own_settings("embed", "--model", "acme/m", *TEXTS[:3], "odd")
    assert (stopped.code, stopped.stdout) == (1, "")
    assert "text 3: " in stopped.stderr
    assert "the other 3 texts are in the cache" in stopped.stderr
    assert "cache" not in own_settings("embed", "--model", "acme/m", "odd").stderr


@pytest.mark.parametrize(("faults", "code"), [([], 0), ([401], 1)])
def test_the_metrics_are_in_a_file_also_after_an_error(run, service, place, faults, code):
    service.faults = faults
    assert run(TEXTS, "--metrics-file", "out.prom").code == code
    assert "embedway_attempts_total{" in (place / "out.prom").read_text()


def test_a_complete_job_shows_its_summary_also_if_its_metrics_cannot_be_written(run, service, place, monkeypatch):
    def full(_path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(exposition, "write_metrics_file", full)
    done = run(TEXTS, "--metrics-file", "out.prom")
    assert done.code == 1
    assert "written to" in done.stdout
    assert "--metrics-file: the metrics could not be written: No space left on device" in done.stderr
    assert len((place / "out.jsonl").read_text().splitlines()) == 4


def test_a_file_for_metrics_in_a_missing_folder_is_refused_before_the_work(run, service, place):
    done = run(TEXTS, "--metrics-file", "none/out.prom")
    assert done.code == 2
    assert "its folder does not exist" in done.stderr
    assert not (place / "out.jsonl").exists()


@pytest.fixture
def run_values(place):
    """Return a function that reads the metrics of the last run in a file."""

    def read(name):
        text = (place / f"{name}.prom").read_text()
        # The commands of all tests run in one process, and have other names.
        pairs = re.findall(rf'^embedway_run_(\w+){{run="{name}"}} (.+)$', text, re.MULTILINE)
        return {metric: float(value) for metric, value in pairs}

    return read


def test_the_metrics_of_a_run_say_whether_it_was_completed(run, service, run_values):
    assert run([*TEXTS, "odd"], "--on-error", "skip", "--metrics-file", "rejecting.prom").code == 4
    found = run_values("rejecting")
    assert (found["success"], found["rejected_rows"]) == (1, 1)
    assert found["seconds"] > 0
    assert time.time() - found["end_timestamp_seconds"] < 60


@pytest.mark.parametrize("source", ["nosuch", "bad.csv"])
def test_the_metrics_of_a_run_that_could_not_read_its_source(own_settings, place, service, run_values, source):
    (place / "bad.csv").write_bytes(b"id,text\n1,\xff\xfe\n")
    done = own_settings("run", source, "--to", "out.jsonl", "--metrics-file", f"{Path(source).stem}.prom")
    assert done.code != 0
    assert run_values(Path(source).stem)["success"] == 0


def test_the_option_for_a_file_wins_over_the_setting(run, service, place, run_values):
    settings = place / "embedway.toml"
    settings.write_text(settings.read_text() + "[telemetry]\nprometheus = false\n")
    assert run(TEXTS, "--metrics-file", "off.prom").code == 0
    assert run_values("off")["success"] == 1


@pytest.mark.parametrize(("faults", "success"), [([], 1.0), ([401], 0.0)])
def test_the_last_push_has_the_end_of_the_run(run, service, place, faults, success):
    service.faults = faults
    settings = place / "embedway.toml"
    job = f"nightly-{success:g}"
    gateway = f'push_gateway = "http://127.0.0.1:{service.server_port}"\npush_job = "{job}"\n'
    settings.write_text(settings.read_text() + f"[telemetry]\n{gateway}")
    run(TEXTS)
    series = f'embedway_run_success{{run="{job}"}}'
    assert f"{series} {success}\n" in service.pushed[-1]
    assert all(series not in text for text in service.pushed[:-1])
