"""Names of types, formats, ways to search, and columns' values, light to import: the command line lists them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, TypeAlias

#: Value of a kept column: texts, numbers, truth values, timestamps (with time zone), lists of texts; JSON otherwise.
Value: TypeAlias = str | int | float | bool | datetime | list[Any] | dict[str, Any] | None

#: Type of a kept column. `list` is a list of texts; `json` is any JSON value, also of mixed types.
ColumnType: TypeAlias = Literal["text", "int", "float", "bool", "timestamp", "list", "json"]
#: Format of standard input, and of files with an unknown ending. `text` is one document per line on standard input, and
#: the complete file elsewhere; `lines` is one document per line everywhere.
SourceFormat: TypeAlias = Literal[
    "auto",
    "text",
    "lines",
    "markdown",
    "mdx",
    "rst",
    "html",
    "asciidoc",
    "ipynb",
    "code",
    "pdf",
    "docx",
    "pptx",
    "epub",
    "jsonl",
    "json",
    "csv",
    "tsv",
    "parquet",
]
#: Number format of stored vectors. `bits` keeps only the signs.
VectorType: TypeAlias = Literal["float32", "float16", "int8", "bits"]
#: `vector` ranks by cosine similarity, `keyword` by BM25, `hybrid` by both.
SearchMode: TypeAlias = Literal["vector", "keyword", "hybrid"]
#: How `hybrid` fuses its lists: by scores on one scale, or by ranks (reciprocal rank fusion).
Fusion: TypeAlias = Literal["scores", "ranks"]
