"""Names of sources, ids, and files that are skipped with a reason."""

import os

import pytest

from embedway.collections.documents import ByteCounter, ReadOptions
from embedway.collections.fault_list import FaultList
from embedway.collections.inventory import find_sources
from embedway.collections.readers import read_documents, read_files
from embedway.collections.skipped import MAX_NAMES, SkippedFiles
from embedway.errors import SourceError, UsageError


def skip(_fault):
    pass


def keys(sources, **options):
    read_options = ReadOptions(**options)
    inventory = find_sources([str(source) for source in sources], read_options)
    found = read_documents(inventory, read_options, faults=FaultList(pytest.fail), counter=ByteCounter())
    return [tuple(document.key) for document in found], dict(inventory.skipped.counts)


def write(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_ids_do_not_depend_on_how_a_source_is_spelled(tmp_path, monkeypatch):
    write(tmp_path / "docs", sub__a_md="a")
    monkeypatch.chdir(tmp_path)
    expected = [("docs", "sub/a.md")]
    for spelled in ("docs", "./docs/", "docs/sub/..", tmp_path / "docs"):
        assert keys([spelled])[0] == expected
    monkeypatch.chdir(tmp_path / "docs")
    assert keys(["."])[0] == expected
    assert keys(["handbook=."])[0] == [("handbook", "sub/a.md")]


def test_ids_of_files_and_rows(tmp_path):
    write(tmp_path, docs__a_md="a", docs__r_jsonl='{"text": "a", "id": "x"}\n{"text": "b"}\n', r_csv="id,text\n7,a\n")
    assert keys([tmp_path / "docs", tmp_path / "r.csv", tmp_path / "docs" / "a.md"]) == (
        [("docs", "a.md"), ("docs", "r.jsonl/x"), ("docs", "r.jsonl/2"), ("r.csv", "7")],
        {"named twice": 1},
    )


def test_two_sources_with_one_name_are_refused(tmp_path):
    write(tmp_path, a__r_jsonl='{"text": "a"}', b__r_jsonl='{"text": "b"}')
    sources = [str(tmp_path / "a" / "r.jsonl"), str(tmp_path / "b" / "r.jsonl")]
    with pytest.raises(UsageError, match=r"a/r\.jsonl and .*b/r\.jsonl have the same name, 'r\.jsonl'.* NAME="):
        find_sources(sources, ReadOptions())
    assert keys([sources[0], f"second={sources[1]}"])[0] == [("r.jsonl", "1"), ("second", "1")]


def test_missing_sources_are_all_named(tmp_path):
    with pytest.raises(SourceError, match=r"one: there is no such file") as caught:
        find_sources([str(tmp_path / "one"), str(tmp_path / "two")], ReadOptions())
    assert any("two" in note for note in caught.value.__notes__)


def test_a_row_with_the_id_of_another_is_refused_with_both_lines(tmp_path):
    write(tmp_path, r_jsonl='{"text": "a", "id": "x"}\n{"text": "b"}\n{"text": "c", "id": "x"}\n{"text":"d","id":2}\n')
    bad = []
    inventory = find_sources([str(tmp_path / "r.jsonl")], ReadOptions())
    found = list(read_files(inventory, ReadOptions(), on_bad_row=bad.append, counter=ByteCounter()))
    assert [document.text for document in found] == ["a", "b"]
    assert [(fault.line, fault.reason) for fault in bad] == [
        (3, "the id 'x' is also that of line 1; ids must be unique"),
        (4, "the id '2' is also that of line 2; ids must be unique"),
    ]
    assert [tuple(fault.key) for fault in bad] == [("r.jsonl", "x"), ("r.jsonl", "2")]


def test_many_ids_are_compared(tmp_path):
    write(tmp_path, r_csv="id,text\n" + "".join(f"row {n},text\n" for n in range(5000)) + "row 77,again\n")
    bad = []
    inventory = find_sources([str(tmp_path / "r.csv")], ReadOptions())
    assert (
        len(list(read_documents(inventory, ReadOptions(), faults=FaultList(bad.append), counter=ByteCounter()))) == 5000
    )
    assert [fault.reason for fault in bad] == ["the id 'row 77' is also that of line 79; ids must be unique"]


def test_names_that_are_not_utf8_stay_different(tmp_path):
    for name in (b"caf\xe9.md", b"caf\xe8.md"):
        (tmp_path / os.fsdecode(name)).write_text("x")
    assert keys([tmp_path])[0] == [(tmp_path.name, "caf\\xe8.md"), (tmp_path.name, "caf\\xe9.md")]
    (tmp_path / "caf\\xe9.md").write_text("y")
    (fault,) = find_sources([str(tmp_path)], ReadOptions()).faults
    assert "is written like another file" in fault.reason


def test_each_kind_of_skipped_file_has_its_reason(tmp_path):
    write(
        tmp_path,
        a_md="a",
        picture_xyz="x",
        fake_md="x",
        empty_md="",
        blank_md=" \n",
        app_min_js="x",
        yarn_lock="x",
        rows_csv="id,body\n1,x\n",
        _env="x",
        dist__a_md="x",
        package_json='{"a": 1}',
        docs__build__b_md="b",
        node_modules__c_md="x",
    )
    (tmp_path / "node.modules").rename(tmp_path / "node_modules")
    (tmp_path / "fake.md").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "long.js").write_text("x = 1;" * 2000)
    (tmp_path / "link.md").symlink_to("a.md")
    (tmp_path / "nothing.md").symlink_to("missing")
    os.mkfifo(tmp_path / "pipe.md")
    write(tmp_path / "venv", index_md="How to make one")
    write(tmp_path / "other", pyvenv_cfg="", lib_py="x")
    found, counts = keys([tmp_path])
    assert [document_id for _, document_id in found] == ["a.md", "package.json", "docs/build/b.md", "venv/index.md"]
    assert counts == {
        "ending": 1,
        "binary": 1,
        "empty": 2,
        "minified": 2,
        "lock file": 1,
        "no text field": 1,
        "hidden": 1,
        "build folder": 2,
        "environment": 1,
        "link": 1,
        "broken link": 1,
        "special file": 1,
    }


def test_a_summary_of_skipped_files():
    skipped = SkippedFiles()
    assert skipped.summary() == ""
    for number in range(MAX_NAMES + 1):
        skipped.add("ending", f"{number}.png")
    skipped.add("build folder", "dist/")
    assert skipped.summary() == (
        "1,002 files and folders skipped: 1,001 unknown endings (.png), 1 build folder (embedway -v names them)"
    )
    assert [*skipped.lines()][-2:] == ["skipped 1 more: unknown ending", "skipped dist/: build folder"]
    value = skipped.to_json()
    assert (value["count"], value["reasons"]["ending"]["count"]) == (1002, 1001)
    assert SkippedFiles.of_json(value).summary() == skipped.summary()


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_unreadable_files_and_folders_are_faults(tmp_path):  # pragma: no cover
    write(tmp_path, a_md="a", sub__b_md="b", c_md="c")
    (tmp_path / "sub").chmod(0)
    (tmp_path / "c.md").chmod(0)
    bad = []
    inventory = find_sources([str(tmp_path)], ReadOptions())
    found = list(read_documents(inventory, ReadOptions(), faults=FaultList(bad.append), counter=ByteCounter()))
    (tmp_path / "sub").chmod(0o700)
    assert [document.key.document_id for document in found] == ["a.md"]
    assert [(fault.key, fault.key_is_prefix) for fault in bad] == [
        ((tmp_path.name, "sub/"), True),
        ((tmp_path.name, "c.md"), False),
    ]


def test_a_folder_that_cannot_be_listed_is_one_fault(tmp_path, monkeypatch):
    write(tmp_path, a_md="a", sub__b_md="b")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    bad = []
    inventory = find_sources([str(tmp_path)], ReadOptions())
    found = list(read_documents(inventory, ReadOptions(), faults=FaultList(bad.append), counter=ByteCounter()))
    assert [document.key.document_id for document in found] == ["a.md"]
    assert [(fault.key, fault.key_is_prefix, fault.reason) for fault in bad] == [
        (
            (tmp_path.name, "sub/"),
            True,
            "cannot be listed: Permission denied; make it readable, or skip it with exclude",
        )
    ]


def test_all_bad_files_are_named_at_once(tmp_path):
    write(tmp_path, a_md="a", d_jsonl='{"text": "x"}\n{}\n')
    for name in ("b.md", "c.txt"):
        (tmp_path / name).write_bytes(b"\xff")

    def refuse(fault):
        raise fault

    inventory = find_sources([str(tmp_path)], ReadOptions())
    found = read_files(inventory, ReadOptions(), on_bad_row=refuse, counter=ByteCounter())
    with pytest.raises(SourceError, match=r"b\.md:1: is not UTF-8") as caught:
        list(found)
    assert [note.split(": ")[0].rpartition("/")[2] for note in caught.value.__notes__[:-1]] == ["c.txt:1", "d.jsonl:2"]


def test_the_list_of_bad_files_is_bounded(tmp_path):
    for number in range(50):
        (tmp_path / f"{number}.md").write_bytes(b"\xff")

    def refuse(fault):
        raise fault

    inventory = find_sources([str(tmp_path)], ReadOptions())
    with pytest.raises(SourceError) as caught:
        list(read_documents(inventory, ReadOptions(), faults=FaultList(refuse), counter=ByteCounter()))
    assert len(caught.value.__notes__) == 21
    assert caught.value.__notes__[-2] == "and more"


def test_the_hash_of_a_document_changes_with_its_content_and_encoding(tmp_path):
    write(tmp_path, a_md="a", r_jsonl='{"text": "a", "x": 1}')

    def hashes(**options):
        read_options = ReadOptions(**options)
        inventory = find_sources([str(tmp_path / "a.md"), str(tmp_path / "r.jsonl")], read_options)
        found = read_documents(inventory, read_options, faults=FaultList(skip), counter=ByteCounter())
        return [document.content_hash for document in found]

    first = hashes()
    assert hashes() == first
    assert hashes(encoding="latin-1")[0] != first[0]
    assert hashes(keep=("x",))[1] != first[1]
    write(tmp_path, a_md="b", r_jsonl='{"text": "a", "x": 1, "y": 2}')
    assert hashes()[0] != first[0]
    assert hashes()[1] == first[1]
