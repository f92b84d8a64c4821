"""Loaded encoder: tokenizer, sessions and their threads."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from embedway.errors import ClosedError
from embedway.local.backend import Session, SessionOptions, open_session
from embedway.local.onnx_file import onnx_facts
from embedway.local.tables import check_tables
from embedway.local.tokenize import TextTokenizer
from embedway.weights.held_file import check_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.local.recipe import Recipe
    from embedway.local.runtime_choice import RuntimeChoice
    from embedway.types import Batch, InputType, Space, TokenizedTexts, Vectors

#: Maximum padded tokens of a query. A query is one batch that uses all threads.
QUERY_TOKENS = 128


class Encoder:
    """Encoder on the built-in runtime.

    It has a session for bulk work and, if the choice names other options, one for single queries. Sessions are loaded
    lazily. `models/local.py` reads its public attributes.
    """

    def __init__(self, recipe: Recipe, choice: RuntimeChoice, space: Space) -> None:
        self.recipe = recipe
        self.choice = choice
        self.space = space
        self.name = f"local:{space.model}"
        self.model = recipe.name
        self.sizes = recipe.sizes
        self.max_tokens = recipe.max_tokens
        self.token_budget = choice.token_budget
        self.streams = choice.bulk.streams
        self.runtime = str(choice.bulk)
        self.variant = " ".join(sorted({choice.bulk.precision, choice.single.precision}))
        graph = None if recipe.onnx is None else onnx_facts(recipe.onnx)
        self.batch_dependent = graph is not None and graph.batch_dependent
        self.tokenizer = TextTokenizer(
            recipe.tokenizer, max_tokens=recipe.max_tokens, lowercase=recipe.lowercase, written=recipe.tokenizer_json
        )
        check_tables(recipe, self.tokenizer, {} if graph is None else graph.table_rows)
        self._files = recipe.files
        self._sessions: dict[SessionOptions, Session] = {}
        self._loading = threading.Lock()
        self._closed = False
        self._bulk_threads = ThreadPoolExecutor(choice.bulk.streams, thread_name_prefix="embedway-bulk")
        self._query_threads = ThreadPoolExecutor(choice.single.streams, thread_name_prefix="embedway-query")

    def tokenize(self, texts: Sequence[str], input_type: InputType) -> TokenizedTexts:
        """Tokenize texts with the prompt of the input type."""
        return self.tokenizer.encode(texts, prompt=self.recipe.prompts[input_type])

    def warm(self) -> None:
        """Load the session for bulk work. Blocking."""
        self._session(self.choice.bulk)

    async def run(self, tokenized: TokenizedTexts, batch: Batch) -> Vectors:
        """Compute a batch on the encoder's own threads and return float32 (b, full width)."""
        if self._closed:
            raise ClosedError(f"{self.name} is closed")
        query = len(tokenized.ids) == 1 and batch.padded_tokens <= QUERY_TOKENS
        options = self.choice.single if query else self.choice.bulk
        threads = self._query_threads if query else self._bulk_threads
        types = [tokenized.types[row] for row in batch.rows] if tokenized.types else None
        return await asyncio.get_running_loop().run_in_executor(
            threads, self.compute, options, [tokenized.ids[row] for row in batch.rows], batch.width, types
        )

    def compute(
        self, options: SessionOptions, rows: Sequence[np.ndarray], width: int, types: Sequence[np.ndarray] | None = None
    ) -> Vectors:
        """Compute one batch with these options on the caller's thread."""
        ids = np.full((len(rows), width), self.recipe.pad_token_id, np.int32)
        mask = np.zeros((len(rows), width), np.int32)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = 1
        token_types = None
        if types is not None and self.recipe.token_types:
            token_types = np.zeros((len(rows), width), np.int32)
            for index, row in enumerate(types):
                token_types[index, : len(row)] = row
        # Backends read tables from the mapped files during a computation.
        stamps = check_all(self._files)
        vectors = self._session(options).run(ids, mask, token_types)
        check_all(self._files, stamps)
        return vectors

    def _session(self, options: SessionOptions) -> Session:
        session = self._sessions.get(options)
        if session is not None:
            return session
        with self._loading:
            if self._closed:
                raise ClosedError(f"{self.name} is closed")
            if options not in self._sessions:
                self._sessions[options] = open_session(self.recipe, options)
            return self._sessions[options]

    def drop(self, options: SessionOptions) -> None:
        """Unload one session; it is loaded again at its next use."""
        with self._loading:
            session = self._sessions.pop(options, None)
        if session is not None:
            session.close()

    async def close(self) -> None:
        """Wait for running batches, then unload all sessions."""
        self._closed = True
        for threads in (self._bulk_threads, self._query_threads):
            await asyncio.to_thread(threads.shutdown, wait=True, cancel_futures=True)
        for options in list(self._sessions):
            self.drop(options)
