"""Parser of conditions: values of `--where`.

    condition = all {"or" all}
    all = one {"and" one}
    one = "not" one | "(" condition ")" | column test
    test = operator value | ["not"] "in" "(" value {"," value} ")" | "is" ["not"] "null"
    operator = "=" | "!=" | "<>" | "<" | "<=" | ">" | ">=" | "contains"
    value = number | text | "true" | "false"

A text is in single quotes, with '' for a quote in it. A column whose name is a keyword, or is not a word, is in double
quotes, with "" for a quote in it. Upper and lower case of keywords are equal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from embedway.collections.where import And, Compare, Condition, In, IsNull, Not, Operator, Or
from embedway.collections.where_types import MAX_DEPTH, MAX_PARTS, check_leaf
from embedway.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from embedway.collections.values import ColumnType

#: Maximum length of a condition, in characters.
MAX_LENGTH = 20_000
_KEYWORDS = frozenset({"and", "or", "not", "in", "is", "null", "contains", "true", "false"})
_OPERATORS: dict[str, Operator] = {
    "=": "=",
    "!=": "!=",
    "<>": "!=",
    "<": "<",
    "<=": "<=",
    ">": ">",
    ">=": ">=",
    "contains": "contains",
}
_OPERATOR_NAMES = "=, !=, <, <=, >, >=, contains, in (…), is null or is not null"
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>'(?:[^']|'')*')
      | (?P<quoted>"(?:[^"]|"")+")
      | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?!\w))
      | (?P<word>[^\W\d]\w*)
      | (?P<sign><=|>=|<>|!=|[=<>(),])
      | (?P<end>\Z)
    )""",
    re.VERBOSE,
)
_MAX_DIGITS = 400


def parse(text: str, columns: Mapping[str, ColumnType] | None) -> Condition:
    """Return the condition in a text; see `where.parse_where`."""
    if len(text) > MAX_LENGTH:
        raise UsageError(f"the condition has {len(text):,} characters; at most {MAX_LENGTH:,} are possible")
    return _Parser(text, columns).parse()


@dataclass(frozen=True, slots=True)
class _Token:
    """A token: its kind is the name of a group of the pattern, or `keyword`."""

    kind: str
    value: str
    start: int

    def is_a(self, *values: str) -> bool:
        """Return whether this is one of some keywords or signs."""
        return self.kind in {"keyword", "sign"} and self.value in values


class _Parser:
    """Parser by recursive descent; its depth is bounded."""

    def __init__(self, text: str, columns: Mapping[str, ColumnType] | None) -> None:
        self._text = text
        self._columns = columns
        self._parts = 0
        self._depth = 0
        self._token = self._read(0)

    def parse(self) -> Condition:
        """Parse the whole text."""
        if self._token.kind == "end":
            raise UsageError("the condition is empty; write one such as lang = 'de'")
        condition = self._any()
        if self._token.kind != "end":
            self._refuse(self._token, "expected `and`, `or` or the end")
        return condition

    def _any(self) -> Condition:
        parts = [self._all()]
        while self._accept("or"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _all(self) -> Condition:
        parts = [self._one()]
        while self._accept("and"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _one(self) -> Condition:
        start = self._token
        if not self._token.is_a("not", "("):
            return self._test()
        # Parentheses hold two levels of the tree: an `or` of `and`s.
        self._depth += 2
        if self._depth > MAX_DEPTH - 2:
            self._refuse(start, f"is nested deeper than {MAX_DEPTH // 2 - 1} levels of parentheses or `not`")
        condition: Condition
        if self._accept("not"):
            condition = Not(self._one())
        else:
            self._expect("(")
            condition = self._any()
            self._expect(")")
        self._depth -= 2
        return condition

    def _test(self) -> Condition:
        token = self._token
        if token.kind not in {"word", "quoted"}:
            self._refuse(token, "expected the name of a column")
        self._advance()
        self._parts += 1
        if self._parts > MAX_PARTS:
            self._refuse(token, f"has more than {MAX_PARTS:,} comparisons")
        name, negated = token.value, False
        if self._accept("is"):
            negated = self._accept("not")
            self._expect("null")
            return self._checked(token, IsNull(name), negated=negated)
        if self._token.is_a("not"):
            negated = True
            self._advance()
            if not self._token.is_a("in"):
                self._refuse(self._token, "expected `in`")
        if self._accept("in"):
            return self._checked(token, In(name, self._values()), negated=negated)
        operator = _OPERATORS.get(self._token.value) if self._token.kind in {"sign", "keyword"} else None
        if operator is None:
            self._refuse(self._token, f"expected an operator after the column: {_OPERATOR_NAMES}")
        self._advance()
        return self._checked(token, Compare(name, operator, self._value(name)), negated=False)

    def _values(self) -> tuple[str | int | float | bool, ...]:
        self._expect("(")
        values = [self._value("X")]
        while self._accept(","):
            values.append(self._value("X"))
        self._expect(")")
        return tuple(values)

    def _value(self, column: str) -> str | int | float | bool:
        token = self._token
        if token.is_a("null"):
            self._refuse(token, f"null is no value; write `{column} is null` or `{column} is not null`")
        self._advance()
        if token.kind == "text":
            return token.value
        if token.is_a("true", "false"):
            return token.value == "true"
        if token.kind == "number":
            if len(token.value) > _MAX_DIGITS:
                self._refuse(token, "has too many digits")
            return int(token.value) if token.value.lstrip("+-").isdigit() else float(token.value)
        hint = "; double quotes are for names of columns" if token.kind == "quoted" else ""
        return self._refuse(token, f"expected a value: a text in single quotes, a number, true or false{hint}")

    def _checked(self, token: _Token, condition: Compare | In | IsNull, *, negated: bool) -> Condition:
        try:
            checked = condition if self._columns is None else check_leaf(condition, self._columns)
        except UsageError as error:
            self._refuse(token, str(error))
        return Not(checked) if negated else checked

    def _accept(self, value: str) -> bool:
        found = self._token.is_a(value)
        if found:
            self._advance()
        return found

    def _expect(self, value: str) -> None:
        if not self._accept(value):
            self._refuse(self._token, f"expected `{value}`")

    def _advance(self) -> None:
        self._token = self._read(self._end)

    def _read(self, start: int) -> _Token:
        found = _TOKEN.match(self._text, start)
        if found is None or found.lastgroup is None:
            place = start + len(self._text[start:]) - len(self._text[start:].lstrip())
            open_quote = self._text[place : place + 1]
            reason = "the closing quote is missing" if open_quote in {"'", '"'} else "is no part of a condition"
            self._refuse(_Token("other", open_quote, place), reason)
        self._end = found.end()
        kind, value = found.lastgroup, found[found.lastgroup]
        if kind == "word" and value.lower() in _KEYWORDS:
            kind, value = "keyword", value.lower()
        elif kind in {"text", "quoted"}:
            value = value[1:-1].replace(value[0] * 2, value[0])
        return _Token(kind, value, found.start(found.lastgroup))

    def _refuse(self, token: _Token, reason: str) -> NoReturn:
        near = self._text[token.start : token.start + 20]
        place = f"at character {token.start + 1}, near {near!r}" if near else "at its end"
        raise UsageError(f"the condition, {place}: {reason}")
