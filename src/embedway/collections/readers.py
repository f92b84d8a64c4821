"""Read documents from sources.

A source is a folder, a file, or `-` for standard input. Folders are walked in sorted order. A file is one document, or
has rows (JSON Lines, JSON arrays, CSV, TSV, Parquet), each of which is one document. `find_sources` says which files
are read; `docs/documents.md` describes the rules.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from embedway.collections.fault_list import FaultList
from embedway.collections.file_formats import FORMATS
from embedway.collections.file_reader import FileReader
from embedway.collections.inventory import STANDARD_INPUT, Inventory, SourceFile, find_sources, source_record
from embedway.collections.skipped import SkippedFiles
from embedway.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Container, Generator, Sequence

    from embedway.collections.documents import ByteCounter, Document, OnBadRow, RawDocument, ReadOptions

__all__ = [
    "STANDARD_INPUT",
    "Inventory",
    "SkippedFiles",
    "SourceFile",
    "find_sources",
    "read_documents",
    "read_files",
    "source_record",
]

#: How many rows take as long as parsing one file, when further errors are searched for.
_WEIGHT_OF_FILE = 50


def read_documents(
    files: Inventory | Sequence[SourceFile],
    options: ReadOptions,
    *,
    faults: FaultList,
    counter: ByteCounter,
    standard_input: IO[bytes] | None = None,
    optional_columns: Container[str] = (),
) -> Generator[RawDocument, None, None]:
    """Stream the documents of all files, in order, without parsing them.

    With an inventory, its `faults` go to `faults` first, and files that are empty or binary are added to its `skipped`.
    The error of a row or file goes to `faults`, with the key of its documents. After the handler of `faults` raised an
    error, documents are still yielded, because parsing them may find further errors, until enough are known; then the
    first one is raised. `standard_input` is the stream for `-`; by default the process's own.
    A kept column that no row has is an error, except `optional_columns`.
    """
    found = files if isinstance(files, Inventory) else Inventory(tuple(files), ())
    sizes = [file.size_bytes for file in found.files]
    counter.total = None if None in sizes else sum(size or 0 for size in sizes)
    for fault in found.faults:
        faults.add(fault)
    reader = FileReader(options, found.skipped, faults, counter, standard_input, optional_columns=optional_columns)
    for file in found.files:
        if faults.is_enough() or (faults.is_stopping() and file.size_bytes is None):
            break
        weight = 1 if file.format == "auto" or FORMATS[file.format].rows else _WEIGHT_OF_FILE
        for document in reader.read(file):
            if faults.is_enough(weight):
                break
            yield document
    faults.raise_first()
    reader.unseen.raise_first()


def read_files(
    files: Inventory | Sequence[SourceFile],
    options: ReadOptions,
    *,
    on_bad_row: OnBadRow,
    counter: ByteCounter,
    standard_input: IO[bytes] | None = None,
) -> Generator[Document, None, None]:
    """Stream the parsed documents of all files, in order; as `read_documents`, with the handler of errors."""
    faults = FaultList(on_bad_row)
    for raw in read_documents(files, options, faults=faults, counter=counter, standard_input=standard_input):
        try:
            document = raw.parse()
        except SourceError as error:
            faults.add(error)
            continue
        if document is not None and not faults.is_stopping():
            yield document
