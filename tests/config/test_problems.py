"""Advice in messages names settings, flags and commands that exist."""

import ast
import re
from pathlib import Path

import typer.main

import embedway
from embedway.cli import app
from embedway.config import sections
from embedway.config.load import KEYS
from embedway.config.types import Section

SOURCE = Path(embedway.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
#: Tables with names given by users.
NAMED_TABLES = ("models", "routes", "budgets")


def texts_of(path):
    """Return all strings of a module but docstrings; parts of an f-string are joined by `{}`."""
    tree = ast.parse(path.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    skipped = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, documented) and is_text(node.body)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
            yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node.value


def is_text(body):
    return bool(body) and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)


def options_and_commands():
    """Return all flags of the commands, and the commands with their groups."""
    flags, commands, waiting = {"--help"}, set(), [("embedway", typer.main.get_command(app))]
    while waiting:
        name, command = waiting.pop()
        commands.add(name)
        flags |= {flag for one in command.params for flag in (*one.opts, *one.secondary_opts) if flag.startswith("--")}
        waiting += [(f"{name} {sub}", inner) for sub, inner in getattr(command, "commands", {}).items()]
    return flags, commands


MESSAGES = [(path, text) for path in FILES for text in texts_of(path) if " " in text]


def test_settings_that_messages_name_exist():
    section = "|".join(KEYS.sections)
    fields = {key.rpartition(".")[2] for key in KEYS.all}
    wrong = []
    for path, text in MESSAGES:
        if "json_extract" in text:
            continue  # SQL, with names of tables and columns
        for table, name in re.findall(rf"(?<![\w./\[-])({section})\.([a-z_]+)\b(?!\()", text):
            if table in NAMED_TABLES:
                known = name in fields
            else:
                known = any(f"{key}.".startswith(f"{table}.{name}.") for key in KEYS.all)
            if not known:
                wrong.append(f"{path.relative_to(SOURCE)}: {table}.{name}")
    assert not wrong, "\n".join(wrong)


def test_flags_and_commands_that_messages_name_exist():
    flags, commands = options_and_commands()
    named = [(path, flag) for path, text in MESSAGES for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)]
    own = {(path, flag) for path, flag in named if flag not in flags}
    # Flags of other programs: pip, and Valkey's client.
    others = {
        "--rdb",
        "--no-deps",
        "--disable-pip-version-check",
        "--no-cache-dir",
        "--only-binary",
        "--dest",
        "--no-input",
        "--force-reinstall",
        "--upgrade",
    }
    assert sorted(f"{path.relative_to(SOURCE)}: {flag}" for path, flag in own if flag not in others) == []
    for path, text in MESSAGES:
        for words in re.findall(r"`embedway ([a-z]+(?: [a-z]+)?)", text):
            first, _, second = words.partition(" ")
            is_group = any(command.startswith(f"embedway {first} ") for command in commands)
            assert f"embedway {first}" in commands, (path, words)
            assert not is_group or not second or f"embedway {words}" in commands, (path, words)


def test_fields_that_rules_of_sections_name_exist():
    classes = [one for one in vars(sections).values() if isinstance(one, type) and issubclass(one, Section)]
    fields = {name for one in classes for name in one.model_fields}
    for text in texts_of(Path(sections.__file__)):
        for name in re.findall(r"\b[a-z]+_[a-z_]+\b", text if " " in text else ""):
            assert name in fields, name
