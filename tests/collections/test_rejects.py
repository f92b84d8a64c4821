"""The file of rejected rows, in folders with links, pipes and names that are not UTF-8."""

import json
import os

import pytest

from embedway.collections.rejects import RejectsFile
from embedway.errors import SinkError, SourceError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out.rejects.jsonl"


@pytest.fixture
def rejects(path):
    return RejectsFile(path)


@pytest.mark.parametrize("content", [None, "precious\n", '{"source": "a", "line": 1, "field": null, "reason": "b"}\n'])
def test_nothing_is_written_through_a_link(path, rejects, tmp_path, content):
    target = tmp_path / "target.txt"
    if content is not None:
        target.write_text(content)
    path.symlink_to(target)
    rejects.add(SourceError("is odd", path="a.jsonl", line=1))
    rejects.commit()
    assert not path.is_symlink()
    assert json.loads(path.read_text())["reason"] == "is odd"
    assert (target.read_text() if target.exists() else None) == content


def test_a_pipe_of_that_name_is_not_opened(path, rejects):
    os.mkfifo(path)
    with pytest.raises(SinkError, match="a pipe or a socket"):
        rejects.refuse_existing()
    rejects.remove_outdated()
    assert path.exists()


def test_names_that_are_not_utf8_and_control_characters_are_written_as_json_escapes(path, rejects):
    name = "a\x1b\x9b\u202e\udcff.jsonl"
    rejects.add(SourceError("is odd", path=name))
    rejects.commit()
    assert path.read_text("ascii").rstrip("\n").isprintable()
    assert json.loads(path.read_text())["source"] == name


def fill_disk(rejects):
    """Let the file of rejects fail when its buffered rows are written."""
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, rejects._file.fileno())  # noqa: SLF001  a disk cannot be filled here
    os.close(full)


@pytest.mark.parametrize("commit", [True, False])
def test_a_full_disk_leaves_nothing(rejects, tmp_path, commit):
    rejects.add(SourceError("is odd", path="a.jsonl"))
    fill_disk(rejects)
    if commit:
        with pytest.raises(SinkError, match="cannot be written: No space left on device"):
            rejects.commit()
    rejects.abort()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("newer", [{}, {"id": None, "error": "SourceError"}])
def test_files_of_this_version_and_of_the_first_one_are_of_a_job(path, rejects, newer):
    row = {"source": "a", "line": 1, "field": None, "reason": "b"}
    path.write_text(json.dumps({**row, **newer}) + "\n")
    rejects.refuse_existing()
    path.write_text(json.dumps({**row, "other": 1}) + "\n")
    with pytest.raises(SinkError):
        rejects.refuse_existing()
