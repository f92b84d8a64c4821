"""Rules of .gitignore and .embedwayignore, and --include and --exclude."""

import pytest

from embedway.collections.documents import ReadOptions
from embedway.collections.inventory import find_sources
from embedway.errors import SourceError, UsageError


@pytest.fixture
def tree(tmp_path):
    """Create files with text; return a function that finds (ids, counts of skipped files) below a folder."""

    def create(*names, **rules):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("text")
        for name, text in rules.items():
            (
                tmp_path / name.replace("__", "/").replace("git", ".gitignore").replace("own", ".embedwayignore")
            ).write_text(text)

        def find(folder=".", **options):
            inventory = find_sources([str(tmp_path / folder)], ReadOptions(**options))
            counts = {reason: count for reason, count in inventory.skipped.counts.items() if reason != "hidden"}
            return [file.document_id for file in inventory.files], counts

        return find

    return create


def test_nested_rules_and_the_lowest_folder_decides(tree):
    find = tree("a.md", "b.log", "sub/b.log", "sub/c.md", "out/d.md", git="*.log\n/out/\n", sub__git="!b.log\nc.md\n")
    assert find() == (["a.md", "sub/b.log"], {"ignored": 3})


def test_the_rules_of_the_repository_above_a_source_hold(tree, tmp_path):
    (tmp_path / ".git").mkdir()
    find = tree("docs/a.md", "docs/draft/b.md", git="docs/draft/\n")
    assert find("docs") == (["a.md"], {"ignored": 1})
    # The user named the ignored folder.
    assert find("docs/draft") == (["b.md"], {})


def test_only_the_patterns_above_that_ignore_the_source_are_left_out(tree, tmp_path):
    (tmp_path / ".git").mkdir()
    find = tree("build/a.md", "build/secret.md", "build/b.log", "build/c.md", git="secret.md\nbuild/\n*.log\n!c.md\n")
    assert find("build") == (["a.md", "c.md"], {"ignored": 2})


def test_a_linked_file_of_rules_is_not_read_as_in_git(tree, tmp_path):
    (tmp_path / ".git").mkdir()
    find = tree("docs/a.md", "docs/b.md", rules="b.md\n")
    for folder in ("", "docs"):
        (tmp_path / folder / ".gitignore").symlink_to(tmp_path / "rules")
    assert find("docs") == (["a.md", "b.md"], {})
    assert find("docs", follow_links=True) == (["a.md"], {"ignored": 1})
    (tmp_path / "docs" / ".embedwayignore").symlink_to(".embedwayignore")
    assert find("docs", follow_links=True) == (["a.md"], {"ignored": 1})


def test_rules_of_our_own_come_after_those_of_git(tree):
    find = tree("a.md", "b.md", "c.md", git="a.md\nb.md\n", own="!b.md\nc.md\n")
    assert find() == (["b.md"], {"ignored": 2})


def test_include_and_exclude(tree):
    find = tree("a.md", "b.xyz", "guide/c.md", "guide/old/d.md", "yarn.lock")
    assert find(include=("*.xyz", "guide/")) == (["b.xyz", "guide/c.md", "guide/old/d.md"], {"not included": 2})
    assert find(exclude=("old/", "a.*"))[0] == ["guide/c.md"]
    assert find(include=("yarn.lock",))[0] == ["yarn.lock"]


def test_an_excluded_folder_is_not_walked_and_its_files_cannot_be_included_again(tree):
    find = tree("a.md", "b.txt", "sub/c.md", "sub/d.txt")
    assert find(exclude=("*", "!*/", "!*.md"))[0] == ["a.md", "sub/c.md"]
    assert find(include=("sub/", "!*.txt"))[0] == ["sub/c.md"]


def test_a_pattern_longer_than_any_path_is_a_fault(tree):
    with pytest.raises(UsageError, match="the pattern has more than 4,096 characters"):
        tree("a.md", git="")(exclude=("x" * 5000,))
    # The folder cannot be walked as its owner wants it.
    assert tree("a.md", git="x" * 5000)() == ([], {"unreadable": 1})


def test_an_invalid_pattern_is_ignored_as_in_git(tree):
    assert tree("a.md", "b.md", git="!\nb.md\n")() == (["a.md"], {"ignored": 1})


def test_a_large_file_of_patterns_is_a_fault(tmp_path):
    (tmp_path / "a.md").write_text("a")
    (tmp_path / ".gitignore").write_text("x\n" * (1 << 20))
    (fault,) = find_sources([str(tmp_path)], ReadOptions()).faults
    assert isinstance(fault, SourceError)
    assert (fault.key, fault.key_is_prefix) == ((tmp_path.name, ""), True)
