import os
from types import SimpleNamespace

import pytest

from embedway.collections.journal import Journal, vector_facts
from embedway.errors import StateError
from embedway.types import Space
from fake_embedder import DIMENSIONS, vectors_of

SPACE = Space("fake", "ab" * 32, DIMENSIONS, "mean", normalized=True)
TEXTS = [f"text {number}" for number in range(20)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "jobs" / "a.journal"


def saved(path, texts=TEXTS, space=SPACE):
    journal = Journal(path, space)
    journal.read()
    found = journal.find(texts)
    journal.close()
    return found


def save(path, *parts):
    journal = Journal(path, SPACE)
    journal.read()
    for texts in parts:
        journal.add(texts, vectors_of(texts))
    journal.close()


def test_vectors_of_several_jobs_are_found_by_text(path):
    save(path, TEXTS[:5], TEXTS[5:8])
    save(path, TEXTS[12:])
    found = saved(path)
    assert sorted(found) == [*range(8), *range(12, 20)]
    assert all((found[row] == vectors_of([TEXTS[row]])[0]).all() for row in found)


def test_those_of_another_space_are_not_found_and_replaced(path):
    save(path, TEXTS)
    other = Space("other", "cd" * 32, DIMENSIONS, "mean", normalized=True)
    assert saved(path, space=other) == {}
    journal = Journal(path, other)
    journal.read()
    journal.add(TEXTS[:2], vectors_of(TEXTS[:2]))
    journal.close()
    assert saved(path) == {}
    assert sorted(saved(path, space=other)) == [0, 1]


@pytest.mark.parametrize("lost", [1, 30, 200])
def test_an_incomplete_end_is_dropped_and_the_rest_is_used(path, lost):
    save(path, TEXTS)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - lost)
    kept = len(saved(path))
    assert kept == 20 - -(-lost // (16 + 4 + 4 * DIMENSIONS))
    save(path, TEXTS[kept:])
    assert len(saved(path)) == 20


def test_a_damaged_vector_is_not_used(path):
    save(path, TEXTS)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    assert sorted(saved(path)) == list(range(19))


def test_clearing_removes_the_file_and_what_was_read_stays_usable(path):
    save(path, TEXTS[:10])
    journal = Journal(path, SPACE)
    journal.read()
    journal.add(TEXTS[10:15], vectors_of(TEXTS[10:15]))
    journal.clear()
    assert not path.exists()
    assert journal.count == 0
    assert sorted(journal.find(TEXTS)) == list(range(10))
    journal.add(TEXTS[15:], vectors_of(TEXTS[15:]))
    journal.close()
    assert sorted(saved(path)) == list(range(15, 20))


@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
def test_something_else_at_its_path_is_an_error_with_the_path_and_a_remedy(path, kind):
    path.parent.mkdir()
    {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "link": lambda: path.symlink_to(path.parent / "elsewhere"),
    }[kind]()
    with pytest.raises(StateError, match=r"vectors of an interrupted job cannot be read .*remove it") as caught:
        Journal(path, SPACE).read()
    assert caught.value.file == str(path)


def test_a_folder_that_cannot_be_written_is_warned_of_once_and_the_job_goes_on(path, caplog):
    path.parent.write_text("a file in place of the folder")
    journal = Journal(path, SPACE)
    journal.read()
    for part in (TEXTS[:3], TEXTS[3:]):
        journal.add(part, vectors_of(part))
    assert journal.count == 0
    assert len(caplog.records) == 1
    assert "cannot be kept" in caplog.text


def test_vectors_of_another_limit_or_variant_are_not_found(path):
    def journal(**more):
        described = SimpleNamespace(**{"max_tokens": 32, "variant": "fp32", **more})
        made = Journal(path, SPACE, vector_facts(described, "truncate"))
        made.read()
        return made

    first = journal()
    first.add(TEXTS, vectors_of(TEXTS))
    first.close()
    assert len(journal().find(TEXTS)) == len(TEXTS)
    assert journal(max_tokens=4000).find(TEXTS) == {}
    assert journal(variant="int8").find(TEXTS) == {}


def test_a_journal_that_is_read_keeps_its_content_when_a_job_of_another_space_replaces_it(path):
    save(path, TEXTS)
    reading = Journal(path, SPACE)
    reading.read()
    inode = path.stat().st_ino
    with path.open("rb") as old:
        other = Journal(path, Space("other", "cd" * 32, DIMENSIONS, "mean", normalized=True))
        other.read()
        other.add(TEXTS[:1], vectors_of(TEXTS[:1]))
        # Checked before `find`, because a shorter file would end this process with SIGBUS.
        assert path.stat().st_ino != inode
        assert os.fstat(old.fileno()).st_size > path.stat().st_size
    other.close()
    assert len(reading.find(TEXTS)) == len(TEXTS)


def test_a_closed_journal_keeps_no_more_vectors(path):
    save(path, TEXTS)
    journal = Journal(path, SPACE)
    journal.read()
    journal.remove()
    journal.add(TEXTS, vectors_of(TEXTS))
    assert not path.exists()
