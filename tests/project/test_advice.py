"""Flags, commands and settings that messages and help texts name exist."""

import ast
import re
from pathlib import Path

import pytest
import typer

from embedway.cli import app
from embedway.collections.sync_settings import SyncSettings
from embedway.config.benchmarks import ModelBenchmark
from embedway.config.load import KEYS
from embedway.remedies import in_command, option

SOURCE = Path(__file__).parents[2] / "src" / "embedway"
#: Documents with commands; a test of its own compares the help of all commands.
DOCUMENTS = (*SOURCE.parents[1].glob("*.md"), *(SOURCE.parents[1] / "docs").glob("*.md"))
PAGES = [page for page in sorted(DOCUMENTS) if page.name not in {"CHANGELOG.md", "command-line.md"}]
#: Flags of other programs: pip in the wheel source, redis-cli in a comment on its dumps.
OTHERS = {"--no-deps", "--only-binary", "--disable-pip-version-check", "--no-input", "--quiet", "--dest", "--rdb"}
OTHERS |= {"--upgrade", "--force-reinstall"}
#: Files, and columns of the SQL statements of pins.
#: Names of files, and attributes of OpenTelemetry.
NO_KEYS = re.compile(r"\.(py|rs|toml|json|sqlite|html?|lock|tmp|pin)$|^server\.(address|port)$")


def commands(command, path=()):
    """Return each command by its words, with its flags."""
    found = {path: {flag for param in command.params for flag in (*param.opts, *param.secondary_opts)} | {"--help"}}
    for name, child in getattr(command, "commands", {}).items():
        found |= commands(child, (*path, name))
    return found


COMMANDS = commands(typer.main.get_command(app))
FLAGS = set().union(*COMMANDS.values())


def placeholder(node):
    """Return an option that `remedies.option` words, as the command line shows it; {} for anything else."""
    call = node.value
    if not isinstance(call, ast.Call) or getattr(call.func, "id", "") != "option":
        return "{}"
    with in_command():
        return option(*(one.value if isinstance(one, ast.Constant) else "{}" for one in call.args))


def texts():
    """Yield all string literals of the package with their place; placeholders of f-strings are {}."""
    for path in sorted(SOURCE.rglob("*.py")):
        inside = set()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                inside |= {id(part) for part in ast.walk(node)} - {id(node)}
                parts = (part.value if isinstance(part, ast.Constant) else placeholder(part) for part in node.values)
                yield f"{path.relative_to(SOURCE)}:{node.lineno}", "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
                yield f"{path.relative_to(SOURCE)}:{node.lineno}", node.value


TEXTS = list(texts())


def named_commands(text):
    """Return the words of each command that a text names in backticks."""
    return [words.split() for words in re.findall(r"`embedway ([^`]+)`", text)]


def wrong_words(words):
    """Return what is wrong with a command that a text names; "" if nothing."""
    while words and words[0].startswith("-"):
        if words[0] in {"--config", "-c"}:
            return wrong_words(words[2:])
        if words[0] not in COMMANDS[()]:
            return words[0]
        words = words[1:]
    path = ()
    while words and (*path, words[0]) in COMMANDS:
        path, words = (*path, words[0]), words[1:]
    is_group = any(len(one) == len(path) + 1 and one[: len(path)] == path for one in COMMANDS)
    if is_group and words and words[0] not in {"COMMAND", "…"}:
        # The first line of a module lists its commands: `embedway cache stats|clear|verify`.
        return " ".join(name for name in words[0].split("|") if (*path, name) not in COMMANDS)
    unknown = [word for word in words if word.startswith("--") and word not in COMMANDS[path]]
    return " ".join(unknown)


def test_flags_exist():
    wrong = [
        (place, flag)
        for place, text in TEXTS
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)
        if flag not in FLAGS | OTHERS and not flag.startswith("--help")
    ]
    assert wrong == []


def test_commands_exist_and_have_the_flags():
    named = [(place, words) for place, text in TEXTS for words in named_commands(text)]
    assert len(named) > 20
    assert [(place, words) for place, words in named if wrong_words(words)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_documents_exist_and_have_the_flags(page):
    text = page.read_text("utf-8")
    code = "\n".join(
        (*re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL), *re.findall(r"^    .*", text, re.MULTILINE))
    )
    lines = re.findall(r"^ *(?:\$ |.*\| )?embedway (.*)$", code, re.MULTILINE)
    named = [re.sub(r" +#.*", "", line).split() for line in lines]
    assert [words for words in named if wrong_words(words)] == []


def test_settings_exist():
    sections = {key.partition(".")[0] for key in KEYS.all}
    keys = {*KEYS.all, *(key.rpartition(".")[0] for key in KEYS.all), "embedding.model_benchmarks"}
    keys |= {f"embedding.model_benchmarks.*.{name}" for name in ModelBenchmark.model_fields}
    patterns = [re.compile(re.escape(key).replace(r"\*", "[^.]+")) for key in keys]
    # The table of public names has names of modules.
    named = [
        (place, key)
        for place, text in TEXTS
        if not place.startswith("__init__.py")
        for key in re.findall(rf"(?<![\w.:/-])(?:{'|'.join(sections)})\.[\w.{{}}*]*[\w}}*]", text)
    ]
    assert len(named) > 50
    wrong = [one for one in named if not any(pattern.fullmatch(one[1]) for pattern in patterns)]
    assert [one for one in wrong if not NO_KEYS.search(one[1])] == []


@pytest.mark.parametrize(
    "words",
    [["budget", "sett"], ["runn"], ["budget", "show", "--all"], ["--configs", "run"], ["run", "--json", "--too", "x"]],
    ids=" ".join,
)
def test_wrong_advice_is_found(words):
    assert wrong_words(words)


def test_messages_about_existing_files_name_the_flag():
    found = [(place, text) for place, text in TEXTS if re.search(r"already exists?\b.*[:;]", text)]
    assert len(found) >= 4
    assert [place for place, text in found if not re.search(r"--(overwrite|force)\b", text)] == []


def test_messages_of_collections_name_flags_only_in_commands():
    wrong = []
    for path in sorted((SOURCE / "collections").rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        documented = [
            node for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        ]
        commands = [node for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "command"]
        skipped = {id(part) for node in (*documented, *commands) for part in ast.walk(node)}
        texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        for node in texts:
            text = re.sub(r"`embedway [^`]*`", "", node.value)
            if id(node) not in skipped and re.search(r"(?<![\w-])--[a-z]", text):
                wrong.append((path.name, node.lineno, text))
    assert wrong == []


def test_options_of_messages_are_keywords_of_python():
    keywords = {"model", "mode", "source", "sample", "repair", "overwrite", *SyncSettings.__annotations__}
    trees = [ast.parse(path.read_text("utf-8")) for path in sorted((SOURCE / "collections").rglob("*.py"))]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    named = [node.args[0] for node in calls if getattr(node.func, "id", "") == "option"]
    names = [name.value for name in named if isinstance(name, ast.Constant)]
    assert len(names) > 10
    assert [name for name in names if name not in keywords] == []
