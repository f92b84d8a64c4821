"""Lines that are code by themselves: imports, definitions, statements, commands, queries."""

from __future__ import annotations

import re

_NAME = r"[A-Za-z_]\w*"
_PATH = rf"{_NAME}(?:\.{_NAME})*"
_TEXT = r"(?:\"[^\"]*\"|'[^']*'|`[^`]*`|<[\w./+-]+>)"
#: A part that prose does not have: a name with an underscore or a dot, a call, an index, an operator, a constant.
_CODE = (
    r"(?:\b\w+_\w*|\b_\w+|\b[A-Za-z]\w*\.[A-Za-z_]\w*|\w\(|\w\[|[=!<>+*/%:-]=|\s[<>+*/%|&^-]\s|->|=>|::|&&|\|\||"
    r"\bis\s(?:not\s)?None\b|\b(?:None|True|False|null|nil|self)\b(?!-)|\w\{|\"|'\w*'|;$)"
)
#: Not two words of prose in a row: words that join expressions do not count.
_JOINS = r"(?:and|as|async|await|else|for|if|in|is|lambda|not|or|yield|None|True|False)\b"
_NO_PROSE = rf"(?!.*\b(?!{_JOINS})[A-Za-z]+ (?!{_JOINS})[A-Za-z]+\b)"
#: Nouns after "import" in prose, where `import NAME` alone would be a statement.
_TRADE = (
    r"(?:agents?|bans?|business|competition|controls?|costs?|data|demand|dut(?:y|ies)|exports?|goods|laws?|licen[cs]es?|"
    r"markets?|oil|permits?|polic(?:y|ies)|prices?|products?|quotas?|restrictions?|rules?|services?|substitution|"
    r"tariffs?|tax(?:es)?|trade|values?|volumes?)"
)
_MODIFIERS = (
    r"(?:(?:abstract|async|const|data|default|export|final|inline|private|protected|pub|public|static|unsigned|virtual)"
    r" )*"
)
_KINDS = r"(?:class|interface|struct|enum|trait|impl|object|fn|fun|func|function|record)"
_TYPES = r"(?:void|int|long|short|char|bool|boolean|double|float|auto|String|string|size_t)"

_PATTERNS = (
    # Imports.
    rf"import {_PATH}(?: as {_NAME})?(?:, ?{_PATH}(?: as {_NAME})?)*;?",
    rf"from \.*(?:{_PATH})? ?import (?:\*|\($|\(?{_NAME}(?: as {_NAME})?(?:, ?{_NAME}(?: as {_NAME})?)*,?\)?)",
    rf"import (?:static |type )?(?:{_NAME}, )?(?:{_PATH}(?:\.\*)?;|\{{.*|\* as {_NAME}.*)",
    rf"import (?:type )?(?:{_NAME} from )?{_TEXT};?",
    rf"import (?:qualified )?[A-Z]\w*(?:\.[A-Z]\w*)*(?: as {_NAME}| \(.*\))",
    rf"(?:require|require_relative|gem|load|source|include) {_TEXT}(?:,.*|;)?",
    r"#\s?(?:include\s*[<\"].*|define\s+[A-Z_]\w*.*|pragma\s+\w+.*|if(?:n?def)?\s+\w+|endif)",
    r"using (?:(?:namespace )?[\w.:]*[.:]\w+|namespace \w+|System);",
    r"(?:use (?:strict|warnings|[\w\\]*(?:::|\\).+)|mod \w+|(?:package|namespace) [\w.\\]+);",
    rf"(?:package (?:main|{_NAME}(?:\.{_NAME})+)|module [A-Z][\w.]* where|<\?php.*|library\(\w+\))",
    # Definitions.
    rf"(?:async )?def {_NAME}\??(?:\(.*|$)|class (?:[A-Z_]\w*|\w+\(.*\))(?:\(.*\))?:",
    rf"{_MODIFIERS}{_KINDS} {_NAME}\S*(?:\(.*| .*\{{|\s?\{{)\}}?",
    rf"{_MODIFIERS}{_TYPES}[*&]? [*&]?{_NAME}(?:\(.*| ?=.*;|;)",
    rf"(?:export )?(?:const|let|var|val)(?: mut)? {_NAME}(?:: ?\S+)? = \S+;?|my [$@%]{_NAME}.*;|\$\w+ = .+;",
    rf"@(?:{_PATH}\(.*\)|{_NAME}\.{_PATH}|property|staticmethod|classmethod|override|Override|Test|dataclass)",
    r"#!?\[\w+(?:\(.*\))?\]|#!\S*/\S+.*|\[\w+\(.*\)\]",
    rf"{_NAME} :: .*->.*|{_NAME} :: \w+(?: \(\))?|\((?:define|defn|defun|def|let|ns|require|setq) .*\)?",
    # Statements.
    rf"{_PATH}(?:, {_PATH})* = {_PATH}, .*|{_PATH} (?:<-|[-+*/|&]=) \S.*|{_NAME}: ?[A-Za-z_][\w.\[\], |]* = \S.*",
    r"(?:else|try|finally|except):|elif \S+:|while (?:True|1):",
    r"except \(?\w*(?:Error|Exception|Warning|Interrupt|Exit|Iteration).*:",
    r"for (?P<one>\w+) in (?P=one)\w*:|for \w{1,2}(?:, ?\w{1,2})* in \w+:",
    rf"(?:if|elif|while|with|for|async with|async for|match|case|except) {_NO_PROSE}.*{_CODE}.*:",
    rf"(?:return|yield|await|assert|del|raise|throw|print|puts|echo|global|nonlocal) {_NO_PROSE}.*{_CODE}.*",
    r"(?:return|yield|throw) (?:\w+|-?\d+|\[\]|\{\}|\(\));",
    r"raise [A-Z]\w*(?:Error|Exception|Exit|Iteration|Interrupt)(?:\(.*)?",
    r"return (?:None|True|False|null|true|false|nil|self|-?\d+|\[\]|\{\}|\(\))|assert \S+ (?:==|!=|<|>|in|is) \S+",
    rf"(?:puts|echo|print) {_TEXT};?|del {_PATH}\[?.*\]?(?<=[.\]_]\w)|lambda\b.*:.+|\[.+ for \w+ in .+\]",
    r"[.#]?[\w-]+(?:[ ,>]+[.#]?[\w-]+)* \{ ?[\w-]+: ?[^{}]+;? ?\}",
    # Queries and commands.
    r"(?=.*[a-z*=(;_])(?:SELECT .+ FROM [\w.\"`]+.*|DELETE FROM [\w.\"`]+.*)",
    r"(?=.*[a-z*=(;_])(?:DROP|ALTER|TRUNCATE|CREATE) (?:TABLE|INDEX|VIEW|DATABASE)\b.*",
    r"select (?:\*|[\w.]+(?:, ?[\w.]+)+|\w+\(.*\)) from [\w.]+.*|select [\w.]+ from [\w.]+(?:;| where \S+ ?[=<>].*)",
    r"(?:cd (?:\.\.?|[~/]\S*|\S+/)|ls -\w+.*|(?:curl|wget) \S*(?:://|-\w).*|chmod [+\d]\S+ .+|export [A-Z_]+=.*)",
)
_LINE = re.compile("(?:" + "|".join(f"(?:{pattern})" for pattern in _PATTERNS) + ")")
_PROSE = re.compile(rf"import {_TRADE}|from \w+ import {_TRADE}|import {_NAME}, {_NAME} and\b.*")
#: The end of a sentence of several words.
_SENTENCE = re.compile(r"[a-z] .*[A-Za-z]{2}[.?!]$")
_STRING = re.compile(r"\"[^\"]*\"|'[^']*'|`[^`]*`")
#: A comment at the end of a line.
_COMMENT = re.compile(r"\s+(?:#|//|--)\s.*$")
#: Longest line that is matched: patterns need quadratic time in the length of a line.
_LONGEST = 300


def is_code_line(line: str) -> bool:
    """Return whether a line is code whatever is around it."""
    line = _STRING.sub('""', line.strip())
    if not line or len(line) > _LONGEST or _PROSE.fullmatch(line) or _SENTENCE.search(line):
        return False
    return _LINE.fullmatch(line) is not None or _LINE.fullmatch(_COMMENT.sub("", line)) is not None
