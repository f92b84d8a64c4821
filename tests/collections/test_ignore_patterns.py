"""Patterns of .gitignore: as git matches them, and in linear time."""

import itertools
import shutil
import subprocess
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

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
        ("[z-a]", "z", "a b"),
        ("[[:letter:]a]", "", "a l"),
        ("\\!a", "!a", "a"),
        ("\\#a", "#a", "a"),
        ("\\*", "*", "a"),
        ("a.c(d)+$", "a.c(d)+$", "abc(d)"),
        ("é?", "éx", "é"),
        ("[", "", "["),
        ("a\\", "", "a a\\"),
        ("/", "", "a a/"),
        ("x//a", "", "x/a"),
        ("[!]x", "", "ax !x ]x"),
        ("[!]a]x", "bx", "]x ax"),
        ("[a-\\]]x", "ax", "]x a]x"),
        ("[\\[-\\]]x", "]x [x", "ax"),
        ("a[/b]c", "abc", "x/abc a/c"),
        ("***/b", "b x/b x/y/b", "xb"),
        ("a/***/b", "a/b a/x/b a/x/y/b", "ab"),
        ("foo\\/bar", "foo/bar", "foobar x/foo/bar"),
        ("a/**\\/b", "a/x/b a/x/y/b", "a/b"),
        ("ab**/c", "abc ab/c ab/x/c abx/y/c", "ac"),
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
    assert Patterns(["a\\\\ "]).decide("a\\")
    assert Patterns(["a\\  "]).decide("a ")


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
        ("[[:" * 1300, "a" * 250),
        ("**/" + "[a-b]**" * 100 + "/b", "a" * 1000 + "/c"),
        ("x/**/" + "*a" * 100, "x/" + "a/" * 2000 + "b"),
    ],
)
def test_a_match_takes_linear_time(pattern, path, below):
    patterns = Patterns([pattern], below=below)
    started = time.process_time()
    assert not patterns.decide(path)
    assert time.process_time() - started < 1


PIECES = ["[", "]", "!", "^", "\\", "*", "**", "/", "-", "a", "b", "?", " ", "**/", "/**", "[a-b]", "[!", "[:alpha:]"]
PATTERNS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join)
NAMES = ["a", "b", "ab", "-", "]", "[", "\\", "!a", "^", "*", "a b", "aab"]


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Create a repository; return a function that asks git which of the paths in it these lines ignore."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    root = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q", root], check=True)
    folders = [*NAMES[:7], *(f"{outer}/{inner}" for outer, inner in itertools.product(NAMES[:3], NAMES[:3]))]
    files = [f"{folder}/{name}x" for folder in ["", *folders] for name in NAMES]
    paths = [*(f"{folder}/" for folder in folders), *(path.removeprefix("/") for path in files)]
    for path in paths:
        (root / path).mkdir(parents=True, exist_ok=True) if path.endswith("/") else (root / path).touch()
    # Names without the `x` at their end are folders at the root and one level below.
    asked = "".join(f"{path.removesuffix('/')}\0" for path in paths).encode()
    command = ["git", "-C", root, "-c", "core.ignoreCase=false", "check-ignore", "--no-index", "-z", "--stdin"]

    def ask(lines):
        (root / ".gitignore").write_text("\n".join(lines) + "\n")
        answer = subprocess.run(command, input=asked, capture_output=True, check=False)
        assert answer.returncode in {0, 1}, answer.stderr
        ignored = set(answer.stdout.decode().split("\0"))
        return {path for path in paths if path.removesuffix("/") in ignored}, paths

    return ask


def _is_ignored(patterns, path):
    """Return whether a path or a folder above it is ignored."""
    ends = [at + 1 for at, character in enumerate(path) if character == "/" and at + 1 < len(path)]
    return any(patterns.decide(path[:end]) for end in ends) or bool(patterns.decide(path))


@settings(max_examples=300, deadline=None)
@given(st.lists(PATTERNS, min_size=1, max_size=3))
@example(["[!]x"])
@example(["a/***/b", "!***/bx"])
@example(["[a-\\]]x"])
@example(["ab**/ax"])
def test_any_patterns_match_as_in_git(repository, lines):
    lines = [line for line in lines if not line.startswith("#")]
    ignored, paths = repository(lines)
    patterns = Patterns(lines)
    assert {path for path in paths if _is_ignored(patterns, path)} == ignored
