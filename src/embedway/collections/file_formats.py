"""Formats of documents and rows, and the endings and names of files that have them, as data."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from embedway.collections.documents import Kind
    from embedway.collections.parsers.base import BinaryParser, Parser
    from embedway.collections.values import SourceFormat

_PARSERS = "embedway.collections.parsers"


@dataclass(frozen=True, slots=True)
class Format:
    """How files of a format are read.

    `parser` is "module:function" below the package of parsers; without one, the text is used as it is. A `binary`
    parser gets bytes. Each row of a file of `rows` is a document. `library` is a module that the parser imports, and
    `extra` installs it.
    """

    kind: Kind = "text"
    parser: str = ""
    binary: bool = False
    rows: bool = False
    library: str = ""
    extra: str = ""


FORMATS: dict[SourceFormat, Format] = {
    "text": Format(),
    "lines": Format(rows=True),
    "markdown": Format("markdown", "markdown:parse_markdown"),
    "mdx": Format("markdown", "mdx:parse_mdx"),
    "rst": Format("rst", "rst:parse_rst"),
    "html": Format("html", "html:parse_html"),
    "asciidoc": Format("text", "asciidoc:parse_asciidoc"),
    "ipynb": Format("text", "notebook:parse_notebook"),
    "code": Format("code"),
    "pdf": Format("text", "pdf:parse_pdf", binary=True, library="pypdfium2", extra="pdf"),
    "docx": Format("text", "office:parse_docx", binary=True, library="docx", extra="office"),
    "pptx": Format("text", "office:parse_pptx", binary=True, library="pptx", extra="office"),
    "epub": Format("text", "epub:parse_epub", binary=True),
    "jsonl": Format(rows=True),
    "json": Format(rows=True),
    "csv": Format(rows=True),
    "tsv": Format(rows=True),
    "parquet": Format(rows=True),
}

_DOCUMENTS: dict[SourceFormat, str] = {
    "markdown": ".md .markdown .mkd",
    "mdx": ".mdx",
    "rst": ".rst",
    "html": ".html .htm .xhtml",
    "asciidoc": ".adoc .asciidoc",
    "ipynb": ".ipynb",
    "pdf": ".pdf",
    "docx": ".docx",
    "pptx": ".pptx",
    "epub": ".epub",
    "jsonl": ".jsonl .ndjson",
    "json": ".json",
    "csv": ".csv",
    "tsv": ".tsv",
    "parquet": ".parquet",
    "text": (
        ".txt .text .log .org .tex .textile .wiki .srt .vtt .eml .yaml .yml .toml .ini .cfg .conf .properties .xml .rtx"
    ),
}
#: Languages of source code, in the names of tree-sitter's grammars where there is one.
_LANGUAGES = {
    "bash": ".sh .bash .zsh .fish .ksh",
    "batch": ".bat .cmd",
    "c": ".c .h",
    "clojure": ".clj .cljs .cljc .edn",
    "cmake": ".cmake",
    "cpp": ".cc .cpp .cxx .hpp .hh .hxx .ino",
    "csharp": ".cs",
    "css": ".css .scss .less",
    "cuda": ".cu .cuh",
    "d": ".d",
    "dart": ".dart",
    "elixir": ".ex .exs",
    "elm": ".elm",
    "erlang": ".erl .hrl",
    "fortran": ".f90 .f95 .f03 .f",
    "fsharp": ".fs .fsx",
    "go": ".go",
    "graphql": ".graphql .gql",
    "groovy": ".groovy .gradle",
    "haskell": ".hs",
    "hcl": ".tf .hcl .tfvars",
    "java": ".java",
    "javascript": ".js .mjs .cjs .jsx",
    "julia": ".jl",
    "kotlin": ".kt .kts",
    "lua": ".lua",
    "make": ".mk .mak",
    "matlab": ".m",
    "nim": ".nim",
    "nix": ".nix",
    "objc": ".mm",
    "ocaml": ".ml .mli",
    "pascal": ".pas .pp",
    "perl": ".pl .pm",
    "php": ".php",
    "powershell": ".ps1 .psm1",
    "proto": ".proto",
    "python": ".py .pyi .pyw .pyx",
    "r": ".r",
    "ruby": ".rb .rake .gemspec",
    "rust": ".rs",
    "scala": ".scala .sc",
    "solidity": ".sol",
    "sql": ".sql",
    "starlark": ".bzl",
    "svelte": ".svelte",
    "swift": ".swift",
    "tcl": ".tcl",
    "tsx": ".tsx",
    "typescript": ".ts .mts .cts",
    "verilog": ".v .sv",
    "vhdl": ".vhd .vhdl",
    "vim": ".vim",
    "visualbasic": ".vb",
    "vue": ".vue",
    "zig": ".zig",
}
ENDINGS: dict[str, tuple[SourceFormat, str]] = {
    **{ending: (name, "") for name, endings in _DOCUMENTS.items() for ending in endings.split()},
    **{ending: ("code", language) for language, endings in _LANGUAGES.items() for ending in endings.split()},
}
_TEXT_NAMES = (
    "authors",
    "changelog",
    "changes",
    "contributing",
    "copying",
    "history",
    "install",
    "license",
    "licence",
    "news",
    "notice",
    "readme",
    "todo",
)
#: Files without an ending, in lower case.
NAMES: dict[str, tuple[SourceFormat, str]] = {
    **dict.fromkeys(
        _TEXT_NAMES,
        ("text", ""),
    ),
    "makefile": ("code", "make"),
    "gnumakefile": ("code", "make"),
    "dockerfile": ("code", "dockerfile"),
    "containerfile": ("code", "dockerfile"),
    "jenkinsfile": ("code", "groovy"),
    "rakefile": ("code", "ruby"),
    "gemfile": ("code", "ruby"),
    "justfile": ("code", "make"),
}
#: Names of files that record versions of dependencies; they contain nothing to search for.
LOCK_FILES = frozenset(
    (
        "package-lock.json",
        "package-lock.yaml",
        "npm-shrinkwrap.json",
        "pnpm-lock.yaml",
        "bun.lockb",
        "go.sum",
        "packages.lock.json",
        "gradle.lockfile",
        "package.resolved",
        "cabal.project.freeze",
    )
)
_LOCK_ENDINGS = (".lock", "-lock.json", "-lock.yaml", "-lock.yml")
_MINIFIED = (".min.js", ".min.mjs", ".min.cjs", ".min.css", ".bundle.js", ".min.html")
_GZIP = ".gz"


def format_of(name: str) -> tuple[SourceFormat, str, bool] | None:
    """Return the format of a file's name, the language of source code, and whether it is gzipped; None if unknown."""
    lowered = name.lower()
    gzipped = lowered.endswith(_GZIP)
    if gzipped:
        lowered = lowered.removesuffix(_GZIP)
    stem, dot, ending = lowered.rpartition(".")
    found = ENDINGS.get(f".{ending}") if stem and dot else NAMES.get(lowered)
    if found is None or (gzipped and not _may_be_gzipped(found[0])):
        return None
    return *found, gzipped


def _may_be_gzipped(name: SourceFormat) -> bool:
    return name != "parquet" and not FORMATS[name].binary


def is_lock_file(name: str) -> bool:
    """Return whether a file's name is that of a lock file."""
    lowered = name.lower()
    return lowered in LOCK_FILES or lowered.endswith(_LOCK_ENDINGS)


def is_named_minified(name: str) -> bool:
    """Return whether a file's name is that of minified code."""
    return name.lower().endswith(_MINIFIED)


def lacks_library(name: SourceFormat) -> bool:
    """Return whether the library that parses a format is not installed."""
    form = FORMATS[name]
    needed = [form.library] if form.library else []
    if form.parser:
        needed.append(f"{_PARSERS}.{form.parser.partition(':')[0]}")
    return not all(_is_installed(module) for module in needed)


@cache
def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def text_parser(name: SourceFormat) -> Parser | None:
    """Return the parser of a format's texts, or None. Imports it."""
    return cast("Parser | None", _load(FORMATS[name].parser))


def binary_parser(name: SourceFormat) -> BinaryParser:
    """Return the parser of a binary format. Imports it. Raises MissingExtraError at the latest when it is called."""
    return cast("BinaryParser", _load(FORMATS[name].parser))


def _load(parser: str) -> Any:
    if not parser:
        return None
    module, _, function = parser.partition(":")
    return getattr(importlib.import_module(f"{_PARSERS}.{module}"), function)
