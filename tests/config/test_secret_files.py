"""Files of keys that other programs replace."""

import os
from pathlib import Path

import pytest

from embedway.config.request_headers import check_key
from embedway.config.secret_files import SecretFile, read_secret
from embedway.errors import ConfigError


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "key"
    path.write_text("sk-old\n")
    return path


@pytest.fixture
def file(path):
    file = SecretFile(path, "sk-old", check_key)
    assert file.current() == "sk-old"
    return file


def test_a_rewritten_file_is_read_again(path, file):
    path.write_text("sk-new-and-longer\n")
    assert file.current() == "sk-new-and-longer"


def test_a_renamed_file_is_read_again(path, file, tmp_path):
    (tmp_path / "other").write_text("sk-new\n")
    os.utime(tmp_path / "other", ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    (tmp_path / "other").replace(path)
    assert file.current() == "sk-new"


def test_a_folder_that_kubernetes_replaces_is_read_again(tmp_path):
    for name in ("..1", "..2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "key").write_text(f"sk-{name}")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "key").symlink_to("..data/key")
    file = SecretFile(tmp_path / "key", "sk-..1", check_key)
    assert file.current() == "sk-..1"
    (tmp_path / "..tmp").symlink_to("..2")
    (tmp_path / "..tmp").replace(tmp_path / "..data")
    assert file.current() == "sk-..2"


def test_the_old_value_remains_while_the_file_is_missing_empty_or_invalid(path, file, caplog):
    path.unlink()
    assert (file.current(), file.read_again()) == ("sk-old", "sk-old")
    for content in (b"", b" \n", b"sk-\xff", b"sk-a\nsk-b"):
        path.write_bytes(content)
        assert (file.current(), file.read_again()) == ("sk-old", "sk-old")
    assert len(caplog.messages) == 1
    assert "the value read before remains in use" in caplog.text
    path.write_text("sk-new")
    assert file.current() == "sk-new"


def test_a_file_that_looks_unchanged_is_read_on_request(path, file):
    before = path.stat()
    path.write_text("sk-new\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert file.current() == "sk-old"
    assert file.read_again() == "sk-new"


def test_a_pipe_is_read_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    file = SecretFile(tmp_path / "pipe", "sk-old", check_key)
    assert (file.current(), file.read_again()) == ("sk-old", "sk-old")


def test_no_value_is_in_a_repr_or_an_error(path, file):
    assert "sk-old" not in repr(file)
    path.write_text("sk-a\nsk-b")
    with pytest.raises(ConfigError) as caught:
        read_secret(path, check_key)
    assert "sk-a" not in str(caught.value)
    assert caught.value.__context__ is None
    path.write_bytes(b"\xef\xbb\xbfsk-new\r\n")
    assert read_secret(path, check_key) == "sk-new"


def test_the_key_of_a_pipe_is_kept_for_later_readers():
    reader, writer = os.pipe()
    try:
        os.write(writer, b"sk-piped\n")
        os.close(writer)
        path = Path(f"/dev/fd/{reader}")
        assert [read_secret(path, check_key) for _ in range(3)] == ["sk-piped"] * 3
    finally:
        os.close(reader)


def test_an_empty_file_is_an_error(path):
    path.write_text(" \n")
    with pytest.raises(ConfigError, match=f"^{path}: is empty"):
        read_secret(path, check_key)
