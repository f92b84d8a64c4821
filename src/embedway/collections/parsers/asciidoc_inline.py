"""Inline text of AsciiDoc: formatting, links, references and attributes, in linear time."""

from __future__ import annotations

import html
import re

#: Attributes that AsciiDoc defines.
_INTRINSIC = {
    "amp": "&",
    "apos": "'",
    "asterisk": "*",
    "backslash": "\\",
    "backtick": "`",
    "blank": "",
    "brvbar": "\u00a6",
    "caret": "^",
    "cpp": "C++",
    "empty": "",
    "endsb": "]",
    "gt": ">",
    "ldquo": "\u201c",
    "litdd": "--",  # of AsciiDoc's predecessor for DocBook, as in the manuals of git
    "lsquo": "\u2018",
    "lt": "<",
    "nbsp": " ",
    "plus": "+",
    "quot": '"',
    "rdquo": "\u201d",
    "rsquo": "\u2019",
    "sp": " ",
    "startsb": "[",
    "tilde": "~",
    "two-colons": "::",
    "two-semicolons": ";;",
    "vbar": "|",
    "zwsp": "",
}
_MAX_VALUE = 4096
_ATTRIBUTE = re.compile(r"\\?\{([A-Za-z0-9_][\w-]*+)\}", re.ASCII)
_VALUE = r"\[((?:[^\[\]\\]|\\.|\[[^\[\]]*+\])*+)\]"
#: Parts of inline text, in the order in which they are tried. Each repetition ends at the character that ends the part,
#: so that each position is scanned a constant number of times.
_PART = re.compile(
    r"``(?P<wide>[^`]++)``"
    r"|(?<![\w`])`(?P<code>[^`\s](?:[^`]*+))`"
    r"|\(\(\((?P<index>[^()]*+)\)\)\)"
    r"|\(\((?P<term>[^()]*+)\)\)"
    r"|<<(?P<target>[^<>,]*+)(?:,(?P<reference>[^<>]*+))?>>"
    r"|\[\[[^\[\]\n]*+\]\]"
    r"|(?<![\w:])(?P<macro>link|mailto|xref|image|icon|kbd|btn|menu|footnote|footnoteref|anchor|pass|stem|latexmath|"
    r"asciimath|indexterm|indexterm2):(?P<place>[^\s\[\]:]*+)"
    + _VALUE
    + r"|(?P<url>(?:https?|ftp|irc)://[^\s\[\]<>]++)"
    r"(?:" + _VALUE.replace("(", "(?P<label>", 1) + r")?"
    r"|\*\*(?P<bold2>[^*]++)\*\*|(?<![\w*])\*(?P<bold>[^*\s][^*]*+)\*(?![\w*])"
    r"|__(?P<italic2>[^_]++)__|(?<![\w_])_(?P<italic>[^_\s][^_]*+)_(?!\w)"
    r"|(?:\[[^\[\]\n]*+\])?##(?P<mark2>[^#]++)##|(?:(?<!\w)\[[.%#\w \"-]*+\])?(?<![\w#&])#(?P<mark>[^#\s][^#]*+)#(?!\w)"
    r"|\+\+\+(?P<pass3>[^+]++)\+\+\+|\+\+(?P<pass2>[^+]++)\+\+|(?<![\w+])\+(?P<pass1>[^+\s][^+]*+)\+(?![\w+])"
)
_HARD_BREAK = re.compile(r"[ ]\+$", re.MULTILINE)
_FORMATTED = ("bold2", "bold", "italic2", "italic", "mark2", "mark")
_VERBATIM = ("wide", "pass3", "pass2", "pass1")
#: Values of a macro that are settings.
_SETTING = re.compile(r"""[\w-]+=(?:"[^"]*+"|[^,]*+)""")


class Attributes:
    """Attributes of a document, and their references, which add a bounded number of characters.

    The name of an undefined attribute stays without its braces, because its value is defined elsewhere.
    """

    def __init__(self, budget: int) -> None:
        self._values: dict[str, str] = {}
        self._budget = budget

    def define(self, name: str, value: str) -> None:
        """Set an attribute; `name!` and `!name` remove it."""
        if name.startswith("!") or name.endswith("!"):
            self._values.pop(name.strip("!").lower(), None)
        else:
            self._values[name.lower()] = self.replace(value)[:_MAX_VALUE]

    def replace(self, text: str, *, keep_unknown: bool = False) -> str:
        """Replace references; unknown ones lose their braces, or stay as in code."""
        if "{" not in text:
            return text
        return _ATTRIBUTE.sub(lambda found: self._value(found, keep_unknown=keep_unknown), text)

    def _value(self, found: re.Match[str], *, keep_unknown: bool) -> str:
        if found[0].startswith("\\"):
            return found[0][1:]
        name = found[1].lower()
        value = self._values.get(name, _INTRINSIC.get(name))
        if value is None:
            return found[0] if keep_unknown else found[1]
        self._budget -= len(value)
        return value if self._budget >= 0 else ""


def inline_text(text: str, attributes: Attributes) -> str:
    """Return the text that readers see, of a paragraph, cell or title."""
    text = _HARD_BREAK.sub("", text)
    text = attributes.replace(_PART.sub(_Replacement(attributes), text))
    return html.unescape(text) if "&" in text else text


class _Replacement:
    """Text of a part. Formatted text contains no mark of its own kind, so the depth is bounded."""

    def __init__(self, attributes: Attributes) -> None:
        self._attributes = attributes

    def __call__(self, found: re.Match[str]) -> str:  # noqa: PLR0911  one return for each kind of part
        for name in _FORMATTED:
            if (inner := found[name]) is not None:
                return _PART.sub(self, inner)
        for name in _VERBATIM:
            if (inner := found[name]) is not None:
                return self._code(inner)
        if (code := found["code"]) is not None:
            return self._code(code[1:-1] if len(code) > 2 and code[0] == code[-1] == "+" else code)
        if (term := found["term"]) is not None:
            return term
        if (target := found["target"]) is not None:
            return found["reference"] or _label(target)
        if found["url"] is not None:
            return self._link(found["url"], found["label"])
        return self._macro(found) if found["macro"] else ""

    def _code(self, text: str) -> str:
        """Return code whose braces that name no attribute are kept, as in `/users/{id}`."""
        text = self._attributes.replace(text, keep_unknown=True)
        return _ATTRIBUTE.sub(lambda found: "\\" + found[0].removeprefix("\\"), text)

    def _link(self, target: str, label: str | None) -> str:
        if not label:
            return target
        return _PART.sub(self, _visible(label)) or target

    def _macro(self, found: re.Match[str]) -> str:
        name, place, value = found["macro"], found["place"], _macro_value(found[0])
        if name in {"image", "icon"}:
            return _visible(value).partition(",")[0].strip()
        if name in {"kbd", "btn", "pass", "stem", "latexmath", "asciimath"}:
            return value
        if name == "menu":
            return " > ".join(filter(None, (place, value)))
        if name in {"footnote", "footnoteref"}:
            return f" ({_PART.sub(self, value)})" if value else ""
        if name in {"anchor", "indexterm"}:
            return ""
        return _PART.sub(self, _visible(value)) or _label(place)


def _macro_value(macro: str) -> str:
    return macro[macro.index("[") + 1 : -1].replace("\\]", "]")


def _visible(value: str) -> str:
    """Return the text of a macro's value without its settings."""
    value = value.removesuffix("^")
    if value.startswith('"') and value.count('"') > 1:
        return value[1 : value.index('"', 1)]
    return re.sub(r",[ \t]*$", "", _SETTING.sub("", value)).strip(" ,") if "=" in value else value


def _label(target: str) -> str:
    """Return a readable form of a reference without text: `guide/set-up.adoc#first_steps` is `first steps`."""
    name = target.rpartition("#")[2] or target.rstrip("#").rpartition("/")[2].removesuffix(".adoc")
    return name.strip("_").replace("_", " ")
