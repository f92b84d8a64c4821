"""Rows of files to documents: text, id, title and kept columns, with unique ids."""

from __future__ import annotations

import difflib
import hashlib
import json
from typing import TYPE_CHECKING, get_args

from embedway.collections.column_types import convert_value, plain_value
from embedway.collections.documents import (
    MAX_ID_CHARACTERS,
    MAX_TITLE_CHARACTERS,
    NO_METADATA,
    Document,
    DocumentKey,
    RawDocument,
    surrogate_fault,
    text_fault,
)
from embedway.collections.row_ids import RowIds
from embedway.collections.values import ColumnType
from embedway.errors import SourceError
from embedway.remedies import keep_as, option

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterable, Mapping, Sequence

    from embedway.collections.documents import ReadOptions
    from embedway.collections.values import Value

_SHOWN_COLUMNS = 10
_SHOWN_CHARACTERS = 40
_COMPARED_COLUMNS = 1000
_DEFAULT_ID = "id"


class NoTextField(SourceError):  # noqa: N818  not an error: the file is skipped
    """A file of rows in a folder does not have the field of texts, so it is skipped."""


class ColumnsError(SourceError):
    """A named file lacks a requested column. It stops a job that skips bad rows, too: the option is wrong."""


class UnseenColumns:
    """Kept columns, without `optional` ones, that no row of any source has had so far."""

    def __init__(self, keep: Iterable[str], optional: Container[str] = ()) -> None:
        self._names = [name for name in keep if name not in optional]
        self._path = ""
        self._existing: dict[str, None] = {}

    def note(self, columns: Collection[str], path: str) -> None:
        """Note the columns of a file, or those of a row."""
        if not self._names:
            return
        self._path = path if self._path in {"", path} else "sources"  # for the error
        if len(self._existing) < _COMPARED_COLUMNS:
            self._existing |= dict.fromkeys(columns)
        self._names = [name for name in self._names if name not in columns]

    def raise_first(self) -> None:
        """Raise `ColumnsError` if rows were read, and none has a kept column: its name is wrong."""
        if self._names and self._path:
            name = self._names[0]
            raise ColumnsError(_unknown_column(name, list(self._existing)), path=self._path, field=name)


class RowReader:
    """Converter of the rows of one file. `source` is the name of the source; ids of rows follow `prefix`."""

    def __init__(
        self,
        path: str,
        source: str,
        prefix: str,
        options: ReadOptions,
        unseen: UnseenColumns | None = None,
        *,
        named: bool = True,
    ) -> None:
        self.path = path
        self.options = options
        self._source = source
        self._prefix = prefix
        self._named = named
        self._unseen = unseen or UnseenColumns(())
        self._ids = RowIds()
        self._columns_are_known = False
        self._begun = False
        #: Whether all values are texts, as in CSV: a column that is declared as `json` then has texts of JSON.
        self.has_only_texts = False

    def fault(self, reason: str, line: int | None, field: str | None = None) -> SourceError:
        """Return an error of a row whose id is unknown."""
        return SourceError(reason, path=self.path, line=line, field=field)

    def check_columns(self, columns: Sequence[str], *, line: int | None, what: str) -> None:
        """Raise `SourceError` if a requested column is missing, or is the name of several columns.

        A file of a folder may lack kept columns. Without a column of texts, it raises `NoTextField`.
        """
        options = self.options
        self._columns_are_known = self._begun = True
        if not self._named and options.text_field not in columns:
            raise NoTextField("has no texts", path=self.path)
        self._unseen.note(columns, self.path)
        shown = _list_of(columns)
        named = ((options.text_field, "text_field"), (options.id_field, "id_field"))
        for name, field in named:
            similar = [column for column in columns if column.strip().lower() == name.lower()]
            optional = name == options.id_field and name in {_DEFAULT_ID, ""} and not similar
            if name not in columns and not optional:
                meant = f"; did you mean {similar[0][:_SHOWN_CHARACTERS]!r}?" if similar else ""
                remedy = f"{meant}; name the right one with {option(field)}; columns: {shown}"
                reason = f"the {what} has no such column{remedy}"
                raise ColumnsError(reason, path=self.path, line=line, field=name)
        for name in options.keep if self._named else ():
            if name not in columns:
                raise ColumnsError(_unknown_column(name, columns), path=self.path, line=line, field=name)
        for name in wanted_columns(options):
            if columns.count(name) > 1:
                reason = "is the name of several columns; rename all but one"
                raise ColumnsError(reason, path=self.path, line=line, field=name)

    def line(self, text: str, number: int) -> RawDocument:
        """Return the document of a line of plain text. Raises SourceError."""
        return self.document({self.options.text_field: text}, number)

    def document(self, row: Mapping[str, object], line: int, *, number: int | None = None) -> RawDocument:
        """Return the document of a row. Raises SourceError, with the row's id if it is known.

        `number` is the id of a row without one; by default its line.
        """
        if not self._named and not self._begun and self.options.text_field not in row:
            raise NoTextField("has no texts", path=self.path)
        self._begun = True
        self._unseen.note(row.keys(), self.path)
        name = self._identifier(row, line, line if number is None else number)
        key = DocumentKey(self._source, f"{self._prefix}{name}")
        try:
            if (first := self._ids.add(name, line)) is not None:
                reason = f"the id {name!r} is also that of line {first:,}; ids must be unique"
                raise self.fault(reason, line, self.options.id_field)
            return self._document(row, key, line)
        except SourceError as error:
            error.key = key
            if row.get(self.options.id_field) not in (None, ""):
                error.id = name
            raise

    def _document(self, row: Mapping[str, object], key: DocumentKey, line: int) -> RawDocument:
        name = self.options.text_field
        text = row.get(name)
        if text is None:
            raise self.fault(f"is missing{self._similar(row)}", line, name)
        if reason := text_fault(text):
            raise self.fault(reason, line, name)
        title = row.get("title")
        title = title[:MAX_TITLE_CHARACTERS] if isinstance(title, str) and text_fault(title) is None else None
        metadata = self._metadata(row, line) if self.options.keep else NO_METADATA
        digest = _hash(str(text), title, metadata)
        document = Document(
            id=key.document_id,
            text=str(text),
            source=key.source,
            line=line,
            title=title,
            metadata=metadata,
            content_hash=digest,
        )
        return RawDocument(key, digest, lambda: document)

    def _similar(self, row: Mapping[str, object]) -> str:
        if not row or self._columns_are_known:
            return ""
        return f"; the row has {_list_of(list(row))}: {option('text_field')} names the right one"

    def _identifier(self, row: Mapping[str, object], line: int, number: int) -> str:
        field = self.options.id_field
        value = row.get(field)
        if value is None or value == "":
            return str(number)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            raise self.fault(f"must be text or an integer, is {type(value).__name__}", line, field)
        if "\0" in value:
            raise self.fault("has a NUL character", line, field)
        if reason := surrogate_fault(value):
            raise self.fault(reason, line, field)
        if len(value) > MAX_ID_CHARACTERS:
            reason = f"has {len(value):,} characters; an id may have {MAX_ID_CHARACTERS:,}"
            raise self.fault(reason, line, field)
        return value

    def _metadata(self, row: Mapping[str, object], line: int) -> dict[str, Value]:
        kept: dict[str, Value] = {}
        for name in self.options.keep:
            try:
                value = plain_value(row.get(name))
                declared = self.options.keep_types.get(name)
                if declared is not None and (declared != "json" or self.has_only_texts):
                    value = convert_value(value, declared)
            except ValueError as error:
                remedy = keep_as(name, "text" if isinstance(row.get(name), str) else "json")
                what = "any text" if isinstance(row.get(name), str) else "any JSON value"
                raise self.fault(f"{error}; {remedy} keeps {what}", line, name) from None
            texts = [value] if isinstance(value, str) else value if isinstance(value, list) else []
            for text in texts:
                if isinstance(text, str) and (reason := surrogate_fault(text)):
                    raise self.fault(reason, line, name)
            kept[name] = value
        return kept


def wanted_columns(options: ReadOptions) -> list[str]:
    """Return the columns that are read, without duplicates."""
    return [*dict.fromkeys((options.text_field, options.id_field, "title", *options.keep))]


def _list_of(columns: Sequence[str]) -> str:
    return ", ".join(repr(name[:_SHOWN_CHARACTERS]) for name in columns[:_SHOWN_COLUMNS]) or "none"


def _unknown_column(name: str, columns: Sequence[str]) -> str:
    similar = difflib.get_close_matches(name, columns[:_COMPARED_COLUMNS], n=1)
    meant = f" (did you mean {similar[0][:_SHOWN_CHARACTERS]!r}?)" if similar else ""
    remedy = _type_remedy(name, columns) or meant
    return f"is not a column that can be kept{remedy}; existing columns: {_list_of(columns)}"


def _type_remedy(name: str, columns: Sequence[str]) -> str:
    """Return a remedy for `price:number` if there is a column `price`; else an empty text."""
    column, colon, suffix = name.rpartition(":")
    if not colon or column not in columns:
        return ""
    shown = column[:_SHOWN_CHARACTERS]
    if suffix in get_args(ColumnType):  # the command splits such a name before
        return f"; a type is declared as keep={{{shown!r}: {suffix!r}}}"
    return f"; {suffix[:_SHOWN_CHARACTERS]!r} is no type; the types of {shown!r} are {', '.join(get_args(ColumnType))}"


def _hash(text: str, title: str | None, metadata: Mapping[str, Value]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    parts: Iterable[str] = (
        text,
        title or "",
        json.dumps(dict(metadata), default=str, sort_keys=True) if metadata else "",
    )
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()
