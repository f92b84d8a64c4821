"""Folders with links, pipes and many levels."""

import os
import socket
from pathlib import Path

import pytest

from embedway.collections import folders
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


@pytest.mark.parametrize("kind", ["file", "folder", "link", "rows"])
def test_what_vanishes_during_the_walk_is_a_fault_with_its_key(tmp_path, monkeypatch, kind):
    (tmp_path / "docs" / "sub").mkdir(parents=True)
    (tmp_path / "docs" / "stays.md").write_text("stays")
    path = tmp_path / "docs" / "sub" / {"rows": "a.parquet", "folder": "a"}.get(kind, "a.md")
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        (tmp_path / "target.md").write_text("target")
        path.symlink_to(tmp_path / "target.md")
    else:
        path.write_text("a")
    listed = folders._entries  # noqa: SLF001  files vanish between the list and the look at each

    def list_and_remove(folder):
        found = listed(folder)
        if Path(folder) == path.parent:
            path.rmdir() if kind == "folder" else path.unlink()
        return found

    monkeypatch.setattr(folders, "_entries", list_and_remove)
    files = find_sources([str(tmp_path / "docs")], ReadOptions(follow_links=True))
    assert [Path(file.path).name for file in files.files] == ["stays.md"]
    if kind == "link":
        assert files.skipped.counts["broken link"] == 1
        return
    (fault,) = files.faults
    assert fault.reason.startswith(("cannot be read: No such file", "cannot be listed: No such file"))
    assert (fault.path, fault.key) == (str(path), ("docs", "sub/a/" if kind == "folder" else f"sub/{path.name}"))
    assert files.skipped.counts["unreadable"] == 1


@pytest.mark.parametrize("name", ["a.md", "a.jsonl", "a.parquet"])
def test_a_file_that_vanishes_before_it_is_read_says_so(tmp_path, name):
    (tmp_path / name).write_text("text")
    (tmp_path / "b.md").write_text("stays")
    files = find_sources([str(tmp_path)], ReadOptions())
    (tmp_path / name).unlink()
    bad = []
    found = read_files(files, ReadOptions(), on_bad_row=bad.append, counter=ByteCounter())
    assert [document.text for document in found] == ["stays"]
    assert [(fault.path, fault.reason) for fault in bad] == [
        (str(tmp_path / name), "cannot be read: No such file or directory")
    ]


def test_a_named_file_that_vanishes_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "exists", lambda _: True)
    with pytest.raises(SourceError, match="there is no such file or folder"):
        find_sources([str(tmp_path / "a.md")], ReadOptions())
