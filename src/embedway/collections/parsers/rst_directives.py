"""Kinds of directives of docutils, Sphinx and common extensions, as data."""

from __future__ import annotations

from typing import Literal, TypeAlias

#: `content` is shown without arguments, `titled` with them as a paragraph before; `note` and `version` get a label.
DirectiveKind: TypeAlias = Literal[
    "dropped", "code", "definition", "note", "version", "titled", "content", "image", "unknown"
]

#: Labels that Sphinx shows.
LABELS = {
    "attention": "Attention: ",
    "caution": "Caution: ",
    "danger": "Danger: ",
    "error": "Error: ",
    "hint": "Hint: ",
    "important": "Important: ",
    "note": "Note: ",
    "tip": "Tip: ",
    "warning": "Warning: ",
    "seealso": "See also: ",
    "todo": "Todo: ",
    "impl-detail": "CPython implementation detail: ",
    "availability": "Availability: ",
    "versionadded": "New in version",
    "versionchanged": "Changed in version",
    "deprecated": "Deprecated since version",
    "versionremoved": "Removed in version",
    "deprecated-removed": "Deprecated since version",
}
_VERSIONS = "versionadded versionchanged deprecated versionremoved deprecated-removed"
_DROPPED = (
    "index highlight highlightlang toctree sectionauthor moduleauthor codeauthor contents sectnum meta raw include "
    "literalinclude role default-role title date header footer target-notes program default-domain tabularcolumns "
    "audit-event-table testsetup testcleanup rst-class cssclass restructuredtext-test-directive module currentmodule "
    "py:module py:currentmodule js:module c:namespace cpp:namespace c:namespace-push cpp:namespace-push "
    "c:namespace-pop cpp:namespace-pop"
)
_CODE = (
    "code code-block sourcecode parsed-literal math productionlist doctest testcode testoutput prompt ipython "
    "ipython3 jupyter-execute graphviz digraph graph mermaid uml plantuml literal code-cell"
)
_DEFINITIONS = (
    "function class method attribute data option describe object exception staticmethod classmethod decorator "
    "decoratormethod abstractmethod property type member macro struct union enum enumerator var cmdoption envvar "
    "opcode confval coroutinefunction coroutinemethod awaitablefunction awaitablemethod cfunction cmacro ctype "
    "cmember cvar pdbcommand 2to3fixer autofunction autoclass automodule automethod autoattribute autoexception "
    "autodata autoproperty monitoring-event"
)
_TITLED = "admonition topic sidebar rubric centered tab tab-item dropdown card grid-item-card collapse audit-event"
_CONTENT = (
    "compound container only ifconfig tabs tab-set grid grid-item epigraph highlights pull-quote hlist glossary "
    "centered-content line-block autosummary"
)
_KINDS: dict[str, DirectiveKind] = {
    **dict.fromkeys(LABELS, "note"),
    **dict.fromkeys(_VERSIONS.split(), "version"),
    **dict.fromkeys(_DROPPED.split(), "dropped"),
    **dict.fromkeys(_CODE.split(), "code"),
    **dict.fromkeys(_DEFINITIONS.split(), "definition"),
    **dict.fromkeys(_TITLED.split(), "titled"),
    **dict.fromkeys(_CONTENT.split(), "content"),
    "image": "image",
    "figure": "image",
}


def directive_kind(name: str) -> DirectiveKind:
    """Return the kind of a directive; `name` is in lower case, and may begin with a domain."""
    if known := _KINDS.get(name):
        return known
    domain, _, local = name.rpartition(":")
    if domain:
        # Directives of a domain describe its objects.
        return _KINDS.get(local) if _KINDS.get(local) == "dropped" else "definition"  # type: ignore[return-value]
    return "unknown"


def sets_module(name: str) -> bool:
    """Return whether a directive names the module of the definitions that follow."""
    return name in {"module", "currentmodule", "py:module", "py:currentmodule"}
