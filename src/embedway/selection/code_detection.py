"""Detection of code in texts: by fences, line patterns, JSON and YAML, and by magika if it is installed."""

from __future__ import annotations

import functools
import importlib.util
import json
import re
from typing import Any

from embedway.opt_out import opt_out_of_telemetry
from embedway.selection.code_lines import is_code_line

_FENCE = re.compile(r"^(?:```|~~~)", re.MULTILINE)
_STRING = re.compile(r"\"[^\"\n]*\"|'[^'\n]*'|`[^`\n]*`")
#: Lines, with string literals removed, that begin like statements, or end with or contain what only statements do.
_STATEMENT = re.compile(
    r"""^\s*(?:
        (?:async\s+)?def\s+\w+\s*\( | class\s+\w+\s*[:({] | (?:from\s+[\w.]+\s+)?import\s+[\w.*{"'] [\w.*{}"',\s]*;?$ |
        @\w[\w.]*(?:\(.*\))?$ | return\b.*[;)\]}\w]$ | (?:if|elif|for|while|with|except|else|try)\b.*:$ |
        (?:if|for|while|switch|catch)\s*\(.*\)\s*\{? | \}\s*(?:else|catch|finally)?\W*$ | [)\]]+[;,:]?$ |
        \#(?:include|define|ifdef|pragma)\b | template\s*< |
        (?:public|private|protected|static|export|const|func|fn|function|package|namespace|struct|enum|impl)
            \s+\S+.*[({;=] | pub\s.*\{$ | package\s+\w+$ |
        (?:let|var)\s+(?:mut\s+)?(?:[\w$]+|\{.*\}|\[.*\])\s*(?::.*)?[=;,].* |
        (?:use|using)\s+\w+(?:::|\.)[\w:.]+;$ |
        (?:SELECT|INSERT\s+INTO|UPDATE|DELETE\s+FROM|CREATE\s+TABLE)\s+.*(?:\b(?:FROM|VALUES|SET)\b|\() |
        (?:SELECT|FROM|WHERE|(?:LEFT\s+|INNER\s+)?JOIN|ORDER\s+BY|GROUP\s+BY|VALUES|LIMIT)\s+\S+ |
        \w+\s+(?:INTEGER|INT|TEXT|VARCHAR|BOOLEAN|TIMESTAMP|SERIAL|REAL)\b |
        (?!.*\b[A-Za-z]+\s[A-Za-z]+\s[A-Za-z]+\s[A-Za-z]+\b) [\w.\[\]"'$-]+\s*(?:=|\+=|:=)\s*\S+.* |
        [\w.]+!?\(.*\)[;:]?$ | .*\{$ | .*(?:\w\(|[=\]]|\+\+|--|->|::).*;$ | (?:break|continue|pass);?$ |
        [\w-]+\??:\s*\S+(?:\s\S+){0,3};$ | [\w:.]+(?:\(.*\))?\s*=>\s*.*,$ | \[[\w.-]+\]$ |
        (?:<!DOCTYPE\b|</?[a-zA-Z][\w-]*(?:\s[^<>]*)?/?>).* | (?://|/\*|\*/|\#!)\S*.*
    )""",
    re.VERBOSE,
)
_OPERATORS = re.compile(r"[{}()\[\];=<>]|->|=>|::|\.\w+\(")
#: Lines of shell scripts or container builds: a known command with a flag, variable, pipe or path, or with a verb.
_COMMAND = re.compile(
    r"""^\s*(?:\$\s+|sudo\s+)*(?:
        \#! | (?:if|while|until)\s.*;\s*(?:then|do)$ | for\s+\w+\s+in\s.*;\s*do$ | (?:fi|done|esac|then|else|do)$ |
        set\s+-\w | (?:export|local)\s+\w+= | \w+\(\)\s*\{$ | \}$ |
        (?:awk|cat|cd|chmod|chown|cp|curl|docker|echo|find|git|go|grep|head|kubectl|ls|make|mkdir|mv|npm|npx|pip3?|
            python3?|rm|rsync|sed|source|ssh|systemctl|tail|tar|touch|uv|wget|xargs)
            \s(?=.*(?:(?:^|\s)--?[a-zA-Z]|\$[\w{(]|\s\|\s|\s&&\s|\s>>?\s|[\s"][~.]?/[\w./-]+|\\$)).* |
        (?:apt|apt-get|brew|cargo|conda|docker|git|go|kubectl|make|npm|pip3?|python3?|systemctl|uv|yarn)
            \s+(?:add|apply|build|clone|commit|compose|enable|get|init|install|pull|push|restart|run|start|test|update)\b
            [^.]*$ |
        (?:ADD|ARG|CMD|COPY|ENTRYPOINT|ENV|EXPOSE|FROM|RUN|WORKDIR)\s+[^A-Z\s]\S*.*
    )""",
    re.VERBOSE,
)
_TARGET = re.compile(r"^[a-z][\w.-]*:[^=\n]*\n\t\S", re.MULTILINE)
#: Lines that never occur in prose; two of them mean that a text contains code.
_STRONG = re.compile(
    r"^[^\S\n]*(?:(?:async )?def \w+\(.*|class \w+(?:\(.*\))?:|from [\w.]+ import .+|import [\w.]+(?: as \w+)?;?|"
    r"#include [<\"].*|(?:export )?(?:async )?function \w*\(.*|(?:public|private) (?:static )?[\w<>]+ \w+.*[{;])"
    r"[^\S\n]*$",
    re.MULTILINE,
)
_JSON_KEY = re.compile(r"\"[^\"\n]+\"\s*:\s*[\[{\"\d\-tfn]")
_YAML_KEY = re.compile(r"^\s*(?:- )?[\"']?[A-Za-z_][\w./-]*[\"']?:(?:\s+\S.*)?$")
_YAML_ITEM = re.compile(r"^\s*- \S")
_YAML_NEST = re.compile(r"^([^\S\n]*)(?:- )?[\w./-]+:\s*\n(?:\1\s+\S|\1- )", re.MULTILINE)
#: Minimum shares in code: of statements in its lines and in its characters, and of operators in its characters.
_CODE_LINES = 0.4
_CODE_CHARACTERS = 0.45
_CODE_OPERATORS = 0.02
#: Minimum shares of lines for commands and data, which are higher because their patterns are weaker.
_COMMAND_LINES = 0.6
_DATA_LINES = 0.8
_YAML_KEYS, _JSON_KEYS = 3, 2
_MAGIKA_SURE = 0.9
#: Maximum characters that are inspected. Some patterns need quadratic time in the length of a line.
MAX_CHARACTERS = 4096


def detect_code(text: str) -> tuple[bool, bool]:
    """Return whether the beginning of a text contains code, and whether it is only code."""
    text = text[:MAX_CHARACTERS]
    fences = len(_FENCE.findall(text))
    if looks_like_code(strip_fenced_blocks(text)) or _magika_detects_code(text):
        return True, True
    # One fence is enough: the end of a block may be truncated.
    return fences > 0 or len(_STRONG.findall(text)) > 1 or _has_indented_code(text), False


def looks_like_code(text: str) -> bool:
    """Return whether most of the beginning of a text is code, by line patterns and operators."""
    text = text[:MAX_CHARACTERS]
    lines = [_STRING.sub('""', line) for line in text.splitlines() if line.strip()]
    if not lines or (len(lines) == 1 and text.strip().isalpha()):
        return False  # a word alone, such as "done", is not a statement
    statements = [line for line in lines if _STATEMENT.match(line)]
    characters = sum(map(len, statements))
    dense = len(_OPERATORS.findall(text)) >= _CODE_OPERATORS * len(text)
    most = len(statements) >= _CODE_LINES * len(lines) and characters >= _CODE_CHARACTERS * sum(map(len, lines))
    if dense and statements and most:
        return True
    alone = sum(map(is_code_line, text.splitlines()))
    if alone >= _COMMAND_LINES * len(lines):
        return True
    commands = sum(_COMMAND.match(line) is not None for line in text.splitlines())
    return commands >= max(_COMMAND_LINES * len(lines), 1) or _is_json(text) or _is_yaml(text) or _is_makefile(text)


def strip_fenced_blocks(text: str) -> str:
    """Remove the fenced blocks of a Markdown text."""
    return "\n".join(part for number, part in enumerate(re.split(r"(?m)^(?:```|~~~).*$", text)) if number % 2 == 0)


def _has_indented_code(text: str) -> bool:
    """Return whether prose contains an indented block that looks like code, as in Markdown and docstrings."""
    block = [line for line in text.splitlines() if line.startswith(("    ", "\t")) or line.lstrip().startswith(">>> ")]
    return len(block) > 1 and looks_like_code("\n".join(line.lstrip().removeprefix(">>> ") for line in block))


def _is_json(text: str) -> bool:
    """Return whether a text is a JSON object or list with keys; its end may be truncated."""
    text = text.strip()
    if not text.startswith(("{", "[")):
        return False
    keys = len(_JSON_KEY.findall(text))
    if keys >= _JSON_KEYS:
        return True
    try:
        return keys > 0 and bool(json.loads(text))
    except (ValueError, RecursionError):
        return False


def _is_yaml(text: str) -> bool:
    """Return whether a text consists almost only of nested keys and items."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    keys = sum(_YAML_KEY.match(line) is not None for line in lines)
    items = sum(_YAML_ITEM.match(line) is not None and _YAML_KEY.match(line) is None for line in lines)
    return keys >= _YAML_KEYS and keys + items >= _DATA_LINES * len(lines) and _YAML_NEST.search(text) is not None


def _is_makefile(text: str) -> bool:
    return len(_TARGET.findall(text)) > 1


@functools.cache
def magika_classifier() -> Any:
    """Return the classifier of the extra `magika`, or None if it is not installed."""
    if importlib.util.find_spec("magika") is None:
        return None
    opt_out_of_telemetry()
    from magika import Magika  # noqa: PLC0415  an extra

    return Magika()


def _magika_detects_code(text: str) -> bool:
    classifier = magika_classifier()
    if classifier is None:
        return False
    answer = classifier.identify_bytes(text.encode("utf-8", "replace"))
    return bool(answer.output.group == "code" and answer.score >= _MAGIKA_SURE)
