"""Folders with links, pipes and many levels."""

import os
import socket
from pathlib import Path

import pytest

from embedway.collections.documents import ByteCounter, ReadOptions
from embedway.collections.readers import find_sources, read_files
from embedway.errors import SourceError


@pytest.fixture
def docs(tmp_path):
    """Return a folder with links to a file and a folder outside of it, to a file inside, to itself, and to nothing."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text("secret")
    folder = tmp_path / "docs"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.md").write_text("a")
    (folder / "sub" / "b.md").write_text("b")
    (folder / "notes.txt").symlink_to("../outside/secret.txt")
    (folder / "linked").symlink_to("../outside")
    (folder / "again.md").symlink_to("a.md")
    (folder / "loop").symlink_to(".")
    (folder / "self.md").symlink_to("self.md")
    (folder / "nothing.md").symlink_to("missing")
    (folder / ".hidden.md").symlink_to("a.md")
    (folder / "picture.png").symlink_to("a.md")
    return folder


def found(sources, **options):
    read_options = ReadOptions(**options)
    files = find_sources([str(source) for source in sources], read_options)

    def refuse(fault):
        raise fault

    texts = [d.text for d in read_files(files, read_options, on_bad_row=refuse, counter=ByteCounter())]
    return texts, sorted(Path(link).name for link in files.skipped.names("link"))


def test_links_in_a_folder_are_not_followed(docs):
    assert found([docs]) == (["a", "b"], ["again.md", "linked", "loop", "notes.txt"])


def test_links_are_followed_on_request_and_a_text_is_read_once(docs):
    assert found([docs], follow_links=True) == (["a", "secret", "b"], [])


def test_a_named_link_is_followed(docs):
    assert found([docs / "notes.txt"]) == (["secret"], [])
    assert found([docs / "linked"]) == (["secret"], [])
    assert found([docs / "sub" / ".." / "a.md"]) == (["a"], [])


def test_a_folder_of_links_only_says_so(tmp_path, docs):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "a.md").symlink_to(docs / "a.md")
    with pytest.raises(SourceError, match=r"1 link .follow_links=True follows links"):
        found([tmp_path / "links"])


def test_a_file_that_becomes_a_link_is_not_read(docs):
    options = ReadOptions()
    files = find_sources([str(docs)], options)
    (docs / "a.md").unlink()
    (docs / "a.md").symlink_to("../outside/secret.txt")
    bad = []
    documents = list(read_files(files, options, on_bad_row=bad.append, counter=ByteCounter()))
    assert [d.text for d in documents] == ["b"]
    assert [(fault.path, fault.reason) for fault in bad] == [
        (str(docs / "a.md"), "cannot be read: Too many levels of symbolic links")
    ]


def test_pipes_and_sockets_are_skipped(docs, monkeypatch):
    os.mkfifo(docs / "pipe.md")
    with socket.socket(socket.AF_UNIX) as server:
        with monkeypatch.context() as short:  # names of sockets are short
            short.chdir(docs)
            server.bind("socket.md")
        assert found([docs])[0] == ["a", "b"]
        files = find_sources([str(docs)], ReadOptions())
        (docs / "a.md").unlink()
        os.mkfifo(docs / "a.md")
        bad = []
        list(read_files(files, ReadOptions(), on_bad_row=bad.append, counter=ByteCounter()))
        assert [fault.reason for fault in bad] == ["is not a regular file"]


def test_a_deep_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(1500):
        Path("d").mkdir()
        monkeypatch.chdir("d")
    Path("a.md").write_text("deep")
    deepest = os.open(".", os.O_RDONLY)
    monkeypatch.chdir(tmp_path)
    assert found(["d"])[0] == ["deep"]
    # pytest removes its folders recursively, and would fail.
    os.fchdir(deepest)
    os.close(deepest)
    Path("a.md").unlink()
    for _ in range(1500):
        os.chdir("..")
        Path("d").rmdir()
