"""Reading until the readers' own interface is merged."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace

from embedway.collections.documents import DocumentKey, RawDocument
from embedway.collections.readers import find_files, read_files
from embedway.collections.record import SourceRecord
from embedway.errors import SourceError


@dataclass(frozen=True)
class Inventory:
    files: tuple
    sources: tuple
    skipped: dict
    faults: tuple = ()


def find_sources(sources, options):
    named = []
    paths = []
    for source in sources:
        name, equals, path = source.partition("=")
        if not equals or "/" in name:
            name, path = "", source
        paths.append(path)
        real = os.path.realpath(path) if path != "-" else "-"
        named.append(SourceRecord(name or os.path.basename(real), real))
    links = []
    try:
        files = find_files(paths, options, on_link=links.append)
    except SourceError as error:
        if "no readable file" not in str(error):
            raise
        files = ()
    return Inventory(files, tuple(named), {"link": links})


def read_documents(inventory, options, *, on_bad_row, counter, standard_input=None):
    for document in read_files(
        inventory.files, options, on_bad_row=on_bad_row, counter=counter, standard_input=standard_input
    ):
        real = os.path.realpath(document.source) if document.source != "-" else "-"
        for source in inventory.sources:
            if real == source.path or real.startswith(source.path + "/"):
                break
        if real == source.path and document.line is None:
            ident = os.path.basename(real)
        elif document.line is not None:
            ident = document.id
        else:
            ident = real[len(source.path) + 1 :]
        own = replace(document, id=ident, source=source.name)
        digest = hashlib.sha256(f"{document.title}\0{document.text}\0{document.metadata}".encode()).hexdigest()
        yield RawDocument(DocumentKey(source.name, ident), digest, lambda own=own: own)
