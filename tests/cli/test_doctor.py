"""`embedway doctor`: what works here, what is missing, and how to get it."""

import dataclasses
import http.server
import json
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest

from embedway.cli.checks import registry
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


# ------------------------------------------------------------ whatever is wrong

#: Fields of the JSON document; scripts depend on them.
FIELDS = {
    *("embedway", "python", "machine", "backends", "extras", "weights", "default_model", "cache", "hub", "pip"),
    *("settings", "ignored", "tuned", "works", "advice", "checks"),
}
STATUSES = {"ok", "warning", "problem", "failed", "skipped"}
SECTIONS = ["Settings", "Libraries", "Machine", "Storage", "Models", "Routes", "Network"]
BROKEN = {
    "no TOML": ("a.toml", b"[run\n", "a.toml:1:5: is not TOML"),
    "unknown key": ("a.toml", b"[run]\noverlapp = 1\n", "a.toml: run.overlapp: is not a setting"),
    "wrong value": ("a.toml", b"[run]\noverlap = 'x'\n", "a.toml: run.overlap: is 'x'; must be an integer"),
    "no UTF-8": ("a.toml", b"\xff", "a.toml:1:1: is not UTF-8"),
    "no JSON": ("a.json", b"{", "a.json:1:2: is not JSON"),
    "too deep": ("a.json", b'{"a":' * 5000 + b"1" + b"}" * 5000, "a.json: contains"),
    "other type": ("a.yaml", b"", "a.yaml: a settings file must end in .toml or .json"),
    "control characters": ("a.toml", b'["\\u001b[31m"]\nx = 1\n', "\\x1b[31m"),
}


def check_document(report):
    assert set(report) == FIELDS
    for check in report["checks"]:
        assert set(check) == {"section", "name", "status", "detail", "remedy"}
        assert check["status"] in STATUSES
        assert all(isinstance(value, str) for value in check.values())
        assert check["remedy"] or check["status"] in {"ok", "skipped"}, check
    assert {check["section"] for check in report["checks"]} >= {
        "settings",
        "libraries",
        "machine",
        "storage",
        "network",
    }


def test_the_document_has_every_check_with_its_status(command):
    done = command("doctor", "--json")
    check_document(done.json)
    assert done.stderr == ""
    assert [check["name"] for check in done.json["checks"]].count("memory") == 1


@pytest.mark.parametrize("kind", BROKEN)
def test_settings_that_cannot_be_loaded_are_a_line_and_the_rest_is_checked(command, place, kind):
    name, content, said = BROKEN[kind]
    (place / name).write_bytes(content)
    done = command("--config", name, "doctor")
    assert (done.code, done.stderr) == (1, "")
    assert [line for line in done.stdout.splitlines() if line in SECTIONS] == SECTIONS
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("  problem"))
    assert said in line
    assert " -> " in line
    assert "the other checks use the defaults" in done.stdout
    assert "\x1b" not in done.stdout
    report = command("--config", name, "doctor", "--json")
    assert report.code == 1
    check_document(report.json)
    assert report.json["works"] is False
    assert said in report.json["advice"][0]


def test_all_mistakes_of_several_files_and_variables_are_listed(command, place):
    (place / "good.toml").write_text("[run]\noverlap = 3\n")
    (place / "bad.toml").write_text("[run\n")
    files = ("-c", "good.toml", "-c", "bad.toml", "-c", "none.toml", "-c", ".")
    done = command(*files, "doctor", "--json", variables={"EMBEDWAY_NOTHING": "1"})
    assert done.code == 1
    found = [check for check in done.json["checks"] if check["name"] == "settings"]
    assert {check["status"] for check in found} == {"problem"}
    details = " ".join(check["detail"] for check in found)
    assert all(part in details for part in ("bad.toml:1:5", "none.toml: cannot be read", "nothing: is not a setting"))
    assert len(found) == 4


def test_a_discovered_file_that_is_no_toml_is_a_line(command, place):
    (place / "embedway.toml").write_text("[run\n")
    done = command("doctor")
    assert (done.code, done.stderr) == (1, "")
    assert "embedway.toml:1:5: is not TOML" in done.stdout
    assert "  memory " in done.stdout


def test_a_file_that_is_not_trusted_is_a_warning(command, place):
    (place / "embedway.toml").write_text("[cache]\nbackend = 'none'\n")
    lines = {check["name"]: check for check in command("doctor", "--json").json["checks"]}
    assert lines["embedway.toml"]["status"] == "warning"
    assert "is not trusted, so these settings are ignored: cache.backend" in lines["embedway.toml"]["detail"]
    (place / "embedway.toml").write_text("[run]\noverlap = 3\n")
    lines = {check["name"]: check for check in command("doctor", "--json").json["checks"]}
    assert "all its settings are safe and apply" in lines["embedway.toml"]["detail"]
    command("trust")
    lines = {check["name"]: check for check in command("doctor", "--json").json["checks"]}
    assert (lines["embedway.toml"]["status"], "is trusted" in lines["embedway.toml"]["detail"]) == ("ok", True)
    (place / "embedway.toml").write_text("[cache]\nbackend = 'none'\n")
    lines = {check["name"]: check for check in command("doctor", "--json").json["checks"]}
    assert "has changed since it was trusted" in lines["embedway.toml"]["detail"]
    lines = {check["name"]: check for check in command("-c", "embedway.toml", "doctor", "--json").json["checks"]}
    assert lines["embedway.toml"]["status"] == "skipped"


def test_a_service_may_be_the_default_model(command):
    variables = {"EMBEDWAY_EMBEDDING__DEFAULT_MODEL": "text-embedding-3-small"}
    done = command("doctor", variables=variables)
    assert done.code == 1
    assert "no key: set OPENAI_API_KEY" in done.stdout
    assert command("doctor", variables={**variables, "OPENAI_API_KEY": "sk-12345678"}).code == 0


def test_a_traceback_is_shown_only_on_request(command, monkeypatch):
    def fail(_):
        raise OSError("no \x1b[31m memory")

    checks = (dataclasses.replace(check, run=fail) if check.name == "machine" else check for check in registry.CHECKS)
    monkeypatch.setattr(registry, "CHECKS", tuple(checks))
    done = command("doctor")
    assert (done.code, done.stderr) == (0, "")
    assert "check machine failed: OSError: no \\x1b[31m memory" in done.stdout
    assert "1 check failed." in done.stdout
    done = command("--traceback", "doctor", "--json")
    assert "Traceback (most recent call last)" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    check_document(done.json)


def test_nothing_is_changed(command, place, environment, tmp_path):
    def everything():
        return sorted((str(path), path.lstat().st_mtime_ns) for path in tmp_path.rglob("*") if not path.is_dir())

    (place / "embedway.toml").write_text("[run]\noverlap = 3\n")
    assert command("embed", "hello", "--model", "fake").code != 0
    before = everything()
    command("doctor")
    command("doctor", "--json")
    assert everything() == before
    assert not (Path(environment["HOME"]) / ".cache" / "embedway").exists()


@pytest.mark.subprocess
@pytest.mark.parametrize(
    "before", ["exec <&-", "rmdir $PWD", "unset HOME", "HOME=/no/such/home", "TMPDIR=/none", "ulimit -n 64"]
)
def test_it_works_in_an_odd_process(environment, tmp_path, before):
    place = tmp_path / "odd"
    place.mkdir()
    command = f'{before}; exec "$0" doctor'
    done = subprocess.run(
        ["/bin/sh", "-c", command, Path(sys.executable).with_name("embedway")],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("Texts can be embedded here.\n")
    assert "failed" not in done.stdout


@pytest.mark.subprocess
@pytest.mark.parametrize("error", ["ImportError('odd')", "Panic('unwrap')"])
@pytest.mark.parametrize("library", ["numpy", "aiohttp", "packaging", "platformdirs", "onnxruntime", "redis"])
def test_a_broken_library_does_not_end_the_report(environment, tmp_path, library, error):
    """A file of the library's name precedes the installed library, and raises when it is imported."""
    (tmp_path / f"{library}.py").write_text(f"class Panic(BaseException): pass\nraise {error}\n")
    more = {"PYTHONPATH": str(tmp_path), "EMBEDWAY_LEDGER__BACKEND": "redis"}
    command = [Path(sys.executable).with_name("embedway"), "doctor", "--json"]
    done = subprocess.run(command, env={**environment, **more}, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    check_document(report)
    lines = {check["name"]: check["status"] for check in report["checks"]}
    assert (lines["memory"], lines["python"]) == ("ok", "ok")
    assert done.returncode == (library in {"platformdirs", "redis", "numpy"})
    assert any(error[:5] in check["detail"] for check in report["checks"]) or library == "aiohttp"
