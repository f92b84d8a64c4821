"""`embedway doctor`: what works here, what is missing, and how to get it."""

import http.server
import threading
import tomllib
from pathlib import Path

import pytest

from embedway.cli.checks.libraries import EXTRAS

SECRET = "hf_thisIsTheSecret1234567890"  # noqa: S105  not one


@pytest.fixture
def hub():
    """Run a hub on the loopback that answers and records its requests."""
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append((self.path, dict(self.headers)))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()
        thread.join()


@pytest.mark.subprocess
def test_text_says_it_all(command):
    done = command("doctor")
    assert (done.code, done.stderr) == (0, "")
    for word in (
        "python",
        "cpu",
        "memory",
        "onnxruntime",
        "lancedb",
        "weights",
        "default model",
        "cache",
        "hub",
        "pip",
    ):
        assert word in done.stdout
    assert "models pull" in done.stdout
    assert done.stdout.endswith("Texts can be embedded here.\n")


def test_json_holds_the_same(command, environment):
    report = command("doctor", "--json").json
    assert report["works"] is True
    assert report["default_model"] == {
        "name": "sentence-transformers/all-MiniLM-L6-v2",
        "here": False,
        "problem": None,
    }
    assert report["machine"]["cores"] >= 1
    assert report["machine"]["memory_bytes"] > report["machine"]["available_bytes"] > 0
    backends = {backend["name"]: backend for backend in report["backends"]}
    assert backends["onnxruntime"]["precisions"] == ["f32"]
    assert backends["onnxruntime"]["version"]
    assert report["weights"]["path"].startswith(environment["HOME"])
    assert report["weights"]["writable"] is True
    assert not Path(report["weights"]["path"]).exists(), "looking must not make the folder"
    assert report["hub"]["reachable"] is None
    assert report["cache"]["backend"] == "sqlite"
    assert report["cache"]["folder"]["path"].startswith(environment["HOME"])
    assert report["tuned"] == []


def test_a_cache_that_cannot_be_written_is_told(command, place):
    (place / "file").write_text("no folder")
    report = command("doctor", "--json", variables={"EMBEDWAY_CACHE__PATH": str(place / "file" / "v.sqlite")}).json
    assert report["works"] is True
    assert any("no vector is cached: set cache.path" in advice for advice in report["advice"])
    off = command("doctor", "--json", variables={"EMBEDWAY_CACHE__BACKEND": "none"}).json
    assert off["cache"] == {"backend": "none", "folder": None}


def test_default_model_that_is_here(command, with_model):
    report = command("doctor", "--json").json
    assert report["default_model"]["here"] is True
    assert not any("models pull" in advice for advice in report["advice"])


def test_exits_1_where_the_main_job_cannot_work(command):
    done = command("doctor", "--json", variables={"EMBEDWAY_WEIGHTS__OFFLINE": "1"})
    assert done.code == 1
    assert done.json["works"] is False
    assert "weights.offline" in done.json["advice"][0]
    done = command("doctor", variables={"EMBEDWAY_EMBEDDING__DEFAULT_MODEL": "nothing-like-it"})
    assert done.code == 1
    assert "nothing-like-it" in done.stdout
    assert done.stdout.endswith("Texts cannot be embedded here yet.\n")


def test_settings_are_told_with_what_set_them_and_secrets_are_not(own_settings, place):
    (place / "embedway.toml").write_text("[local]\nthreads = 2\n[weights]\nplaces = ['hub', 'wheel']\n")
    variables = {"HF_TOKEN": SECRET, "EMBEDWAY_LOCAL__STREAMS": "1"}
    done = own_settings("doctor", "--json", variables=variables)
    assert {item["key"]: (item["value"], item["source"]) for item in done.json["settings"]} == {
        "local.threads": ("2", "embedway.toml"),
        "local.streams": ("1", "environment: EMBEDWAY_LOCAL__STREAMS"),
        "weights.places": ("hub, wheel", "embedway.toml"),
        "weights.hub_token": ("set", "environment: HF_TOKEN"),
    }
    assert SECRET not in done.stdout + own_settings("doctor", variables=variables).stdout


def test_the_hub_is_asked_only_online_and_without_the_token(command, hub):
    endpoint, seen = hub
    variables = {"HF_ENDPOINT": endpoint, "HF_TOKEN": SECRET, "no_proxy": "127.0.0.1"}
    assert command("doctor", "--json", variables=variables).json["hub"]["reachable"] is None
    assert not seen
    report = command("doctor", "--json", "--online", variables=variables).json
    assert (report["hub"]["reachable"], report["hub"]["endpoint"]) == (True, endpoint)
    assert len(seen) == 1
    assert SECRET not in str(seen)


def test_a_hub_that_does_not_answer_is_a_hint_only(command):
    variables = {"HF_ENDPOINT": "http://127.0.0.1:9", "no_proxy": "127.0.0.1"}
    done = command("doctor", "--json", "--online", variables=variables)
    assert done.code == 0
    assert done.json["hub"]["reachable"] is False
    assert "refused" in done.json["hub"]["why_not"]


def test_extras_are_those_of_the_package():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    for_users = set(project["optional-dependencies"]) - {"dev", "peers"}
    assert set(EXTRAS) == for_users
