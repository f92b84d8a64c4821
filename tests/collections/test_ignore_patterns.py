"""Patterns of .gitignore: as git matches them, and in linear time."""

import time

import pytest

from embedway.collections.ignore_patterns import Patterns


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("a", "a x/a x/y/a a/ x/a/", "b ab a/b x/ab"),
        ("/a", "a a/", "x/a"),
        ("x/a", "x/a", "a y/x/a x/y/a"),
        ("a/", "a/ x/a/", "a x/a"),
        ("*.md", "b.md .md x/b.md", "b.mdx md b.md/c"),
        ("x/*", "x/a x/.a", "x x/a/b"),
        ("**/a", "a x/a x/y/a", "ab"),
        ("x/**", "x/a x/a/b", "x x/ y/x/a"),
        ("x/**/a", "x/a x/y/a x/y/z/a", "a y/x/a xa"),
        ("**/x/**/a", "x/a y/x/z/a", "a x"),
        ("**", "a x/a x/", ""),
        ("a**b", "ab axb", "a/b a/x/b"),
        ("x/a**b", "x/ab x/acb", "x/a/b"),
        ("?", "a x/b", "ab"),
        ("a*b*c", "abc axbxc abbcc", "acb ab"),
        ("*a*b", "ab xaxb aab", "ba aba"),
        ("[a-c]", "a b c", "d -"),
        ("[!a-c]", "d -", "a b"),
        ("[^a]", "b", "a"),
        ("[]a]", "] a", "b"),
        ("[a-]", "a -", "b"),
        ("[[:digit:]x]", "7 x", "a :"),
        ("[z-a]", "", "a z"),
        ("\\!a", "!a", "a"),
        ("\\#a", "#a", "a"),
        ("\\*", "*", "a"),
        ("a.c(d)+$", "a.c(d)+$", "abc(d)"),
        ("é?", "éx", "é"),
        ("[", "", "["),
        ("a\\", "", "a a\\"),
        ("/", "", "a a/"),
        ("x//a", "", "x/a"),
    ],
)
def test_a_pattern_matches_as_in_git(pattern, matching, others):
    patterns = Patterns([pattern])
    assert [path for path in matching.split() if not patterns.decide(path)] == []
    assert [path for path in others.split() if patterns.decide(path)] == []


def test_spaces_and_carriage_returns_at_the_end():
    assert Patterns(["a  "]).decide("a")
    assert Patterns(["a\\ "]).decide("a ")
    assert Patterns(["a/\r"]).decide("a/")


def test_the_last_pattern_that_matches_decides():
    patterns = Patterns(["*.log", "!a.log", "x/a.log"])
    assert [patterns.decide(path) for path in ("b.log", "a.log", "x/a.log", "c")] == [True, False, True, None]


def test_a_folder_stands_for_what_is_below_it():
    patterns = Patterns(["guide/", "/top", "*.md", "a/**/b"], below=True)
    for path in ("guide/x", "x/guide/y/z", "top", "top/x/y", "x.md", "x.md/y", "a/b/c", "a/x/b/c"):
        assert patterns.decide(path), path
    for path in ("guide", "x/top", "y.txt"):
        assert not patterns.decide(path), path


@pytest.mark.parametrize("below", [False, True])
@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a" * 100 + "b", "a" * 250),
        ("*?" * 100 + "b", "a" * 250),
        ("*[a-z]" * 50 + "b", "a" * 250),
        ("**/a/" * 100 + "b", "a/" * 1000 + "c"),
        ("**/*a*/" * 100 + "b", "aaa/" * 1000 + "c"),
        ("*/" * 500 + "b", "a/" * 2000 + "c"),
        ("x/**/" + "*a" * 100, "x/" + "a/" * 2000 + "b"),
    ],
)
def test_a_match_takes_linear_time(pattern, path, below):
    patterns = Patterns([pattern], below=below)
    started = time.process_time()
    assert not patterns.decide(path)
    assert time.process_time() - started < 1
