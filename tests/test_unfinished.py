"""Temporary files, children and commits that are registered until they are finished."""

import subprocess
import sys
import threading

import pytest

from embedway import unfinished
from embedway.files import write_private_whole


def test_files_and_folders_are_removed_at_an_end_at_once(tmp_path):
    file, folder, new = (unfinished.track(tmp_path / "file"), unfinished.track(tmp_path / "folder"), tmp_path / "new")
    unfinished.track_empty(new)
    file.write_text("half")
    (folder / "inside").mkdir(parents=True)
    new.mkdir()
    finished = unfinished.track(tmp_path / "finished")
    finished.write_text("complete")
    unfinished.forget(finished)
    unfinished.clean_up()
    assert list(tmp_path.iterdir()) == [finished]


def test_a_new_folder_with_other_content_stays(tmp_path):
    unfinished.track_empty(tmp_path)
    (tmp_path / "other").write_text("")
    unfinished.clean_up()
    assert (tmp_path / "other").exists()


def test_nothing_is_removed_during_a_commit(tmp_path):
    file = unfinished.track(tmp_path / "file")
    file.write_text("half")
    with unfinished.commit():
        unfinished.clean_up()
        assert file.exists()
    unfinished.clean_up()
    assert not file.exists()


def test_a_finished_file_is_not_registered(tmp_path):
    write_private_whole(tmp_path / "file", b"complete")
    unfinished.clean_up()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_temporary_folder_is_removed_after_its_block_and_at_an_end_at_once():
    with unfinished.temporary_folder() as folder:
        (folder / "file").write_text("")
    assert not folder.exists()
    with unfinished.temporary_folder() as folder:
        unfinished.clean_up()
        assert not folder.exists()


def test_children_are_killed():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        with unfinished.child(process):
            unfinished.clean_up()
            assert process.wait(60) == -9
        unfinished.clean_up()


def test_an_end_waits_for_commits():
    begun, finish, done = threading.Event(), threading.Event(), []

    def commit():
        with unfinished.commit():
            begun.set()
            finish.wait()
            done.append("committed")

    thread = threading.Thread(target=commit)
    thread.start()
    begun.wait()
    unfinished.wait_for_commits(0)
    assert done == []
    finish.set()
    unfinished.wait_for_commits(60)
    assert done == ["committed"]
    thread.join()


def test_what_a_signal_delayed_is_raised_after_the_commit(monkeypatch):
    class DelayedError(Exception):
        pass

    def delayed():
        raise DelayedError

    monkeypatch.setattr(unfinished, "_after_commit", [])
    unfinished.call_after_commits(delayed)
    done = []

    def commit():
        with unfinished.commit():
            with unfinished.commit():
                done.append("one")
            done.append("all")

    with pytest.raises(DelayedError):
        commit()
    assert done == ["one", "all"]


def test_each_change_is_reported(monkeypatch, tmp_path):
    monkeypatch.setattr(unfinished, "_listeners", [])
    told = []
    unfinished.listen(lambda event, value: told.append((event, value)))
    path = unfinished.track(tmp_path / "file")
    with unfinished.commit():
        unfinished.remove(path)
    assert told == [("+", str(path)), ("c", ""), ("-", str(path)), ("d", "")]


def test_functions_are_called_at_an_end_within_their_block_and_never_keep_the_program(tmp_path, monkeypatch):
    monkeypatch.setattr(unfinished, "LAST_S", 0.05)
    file, calls, never = unfinished.track(tmp_path / "file"), [], threading.Event()
    file.write_text("half")
    with unfinished.at_the_end(lambda: calls.append(file.exists())), unfinished.at_the_end(lambda: never.wait(30)):
        unfinished.clean_up()
    never.set()
    assert calls == [True]
    assert not file.exists()
    unfinished.clean_up()
    assert calls == [True]
