"""Preparation of a job and of its dry run: which documents are read, how they are cut, and the model for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from embedway.collections.changes import Changes
from embedway.collections.chunk_reader import ChunkReader
from embedway.collections.cutting import open_chunker
from embedway.collections.documents import ByteCounter
from embedway.collections.fault_list import FaultList
from embedway.collections.file_formats import FORMATS
from embedway.collections.job_sources import (
    check_not_removed_too,
    find_known_sources,
    refuse_same_names,
)
from embedway.collections.preparation import describe_model
from embedway.collections.readers import read_documents
from embedway.collections.rows import ColumnsError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from embedway._embedder import AsyncEmbedder
    from embedway.collections.documents import OnBadRow
    from embedway.collections.inventory import Inventory
    from embedway.collections.options import RunOptions
    from embedway.collections.preparation import Opened
    from embedway.collections.record import ChunkSettings, Record
    from embedway.collections.stores.base import Store
    from embedway.collections.values import Value
    from embedway.errors import SourceError
    from embedway.types import ModelDescription


@dataclass(frozen=True, slots=True)
class PreparedJob:
    """Documents of sources, compared with the collection while they are read, and the model for them.

    `recut` is true if the chunk settings are not those of the collection.
    """

    options: RunOptions
    described: ModelDescription
    settings: ChunkSettings
    inventory: Inventory
    changes: Changes
    chunk_reader: ChunkReader
    recut: bool

    def kept_values(self, old: Record | None) -> Iterator[Mapping[str, Value]]:
        """Iterate over the kept values of all rows in files. Blocks.

        Raises ColumnsError for a column that no row of any source has. Other errors are those of the job, later.
        """
        files = [file for file in self.inventory.files if file.size_bytes is not None and FORMATS[file.format].rows]
        found: list[SourceError] = []
        documents = read_documents(
            files,
            self.options.read_options(),
            faults=FaultList(found.append),
            counter=ByteCounter(),
            optional_columns=() if old is None else old.keep,
        )
        try:
            for raw in documents:
                if (document := raw.parse()) is not None:
                    yield document.metadata
        except ColumnsError:
            if not found and all(file.size_bytes is not None for file in self.inventory.files):
                raise


def find_inventory(opened: Opened, sources: Sequence[str], removed_sources: Collection[str]) -> Inventory:
    """Return the files of sources. Blocks. Raises SourceError and UsageError."""
    old = opened.old
    inventory = find_known_sources(sources, opened.options.read_options(), old)
    if old is not None:
        refuse_same_names(inventory.sources, old.sources, sources)
        check_not_removed_too(inventory.sources, removed_sources)
    return inventory


async def prepare_job(
    embedder: AsyncEmbedder,
    store: Store,
    opened: Opened,
    inventory: Inventory,
    on_bad_row: OnBadRow,
    *,
    standard_input: IO[bytes] | None,
    load: bool = True,
) -> PreparedJob:
    """Describe the model, loaded with `load`, and open the documents; nothing is read yet. Raises as `describe_model`.

    `on_bad_row` gets the faults of the readers. Documents that a fault may concern keep their rows.
    """
    old = opened.old
    options, described = await describe_model(embedder, opened.options, old, store.destination, load=load)
    chunker, settings = open_chunker(described, options)
    changes = Changes(opened.manifest, settings, inventory.sources)

    def report(fault: SourceError) -> None:
        on_bad_row(fault)
        changes.keep_of_fault(fault)

    counter, faults = ByteCounter(), FaultList(report)
    documents = read_documents(
        inventory,
        options.read_options(),
        faults=faults,
        counter=counter,
        standard_input=standard_input,
        # The rows of one sync may lack columns that the collection has.
        optional_columns=() if old is None else old.keep,
    )
    chunk_reader = ChunkReader(documents, chunker, changes, faults=faults, counter=counter)
    recut = old is not None and old.chunking != settings
    return PreparedJob(options, described, settings, inventory, changes, chunk_reader, recut)
