"""Loaded encoder: tokenizer, sessions and their threads."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from embedway.errors import ClosedError
from embedway.local.backend import Session, SessionOptions, open_session
from embedway.local.lanes import Lanes
from embedway.local.onnx_file import onnx_facts
from embedway.local.tables import check_tables
from embedway.local.tokenize import TextTokenizer
from embedway.types import Spread
from embedway.urgency import DOCUMENTS
from embedway.weights.held_file import check_all

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from embedway.local.lanes import Lane
    from embedway.local.recipe import Recipe
    from embedway.local.remote import RemoteModel
    from embedway.local.runtime_choice import RuntimeChoice
    from embedway.types import Batch, InputType, Space, TokenizedTexts, Vectors
    from embedway.urgency import Urgency


class Encoder:
    """Encoder on the built-in runtime.

    It has a session for bulk work and, if the choice names other options, one in which a batch has all threads
    (`lanes.py`). The first request loads the session that it needs. Later ones never wait for the other: it is loaded
    in the background. `models/local.py` reads its public attributes.

    With `remote`, another process computes: this one tokenizes and loads no session. `bulk_nice` is added to the nice
    value of the threads that compute bulk work after `warm`, so that queries get a busy core first; on Linux.
    """

    def __init__(
        self,
        recipe: Recipe,
        choice: RuntimeChoice,
        space: Space,
        *,
        remote: RemoteModel | None = None,
        bulk_nice: int = 0,
    ) -> None:
        self.recipe = recipe
        self.choice = choice
        self.space = space
        self.remote = remote
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
        self._lanes = Lanes(choice, bulk_nice=bulk_nice)
        self.spread = Spread(choice.bulk.streams, self._lanes.whole_tokens)
        #: Loads the second session, once.
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="embedway-load")
        self._later: Future[Session] | None = None

    def tokenize(self, texts: Sequence[str], input_type: InputType) -> TokenizedTexts:
        """Tokenize texts with the prompt of the input type."""
        return self.tokenizer.encode(texts, prompt=self.recipe.prompts[input_type])

    def warm(self) -> None:
        """Load all sessions, and compute a short text once on every thread. Blocking."""
        ids = self.tokenize(["a"], "query").ids[0]
        for lane in self._lanes:  # the threads of a session inherit the priority of the thread that loads it
            lane.threads.submit(self._session, lane.options).result()
        runs = [
            lane.threads.submit(self.compute, lane.options, [ids], len(ids))
            for lane in self._lanes
            for _ in range(lane.options.streams)
        ]
        for run in runs:
            run.result()

    async def prepare(self) -> None:
        """Load all sessions, here or in the process that computes, without blocking the event loop."""
        await (asyncio.to_thread(self.warm) if self.remote is None else self.remote.warm())

    async def run(
        self, tokenized: TokenizedTexts, batch: Batch, urgency: Urgency = DOCUMENTS, behind_s: float = 0.0
    ) -> Vectors:
        """Compute a batch on the encoder's own threads and return float32 (b, full width).

        `urgency` and `behind_s` are for the process that computes for several others.
        """
        if self._closed:
            raise ClosedError(f"{self.name} is closed")
        if self.remote is not None:
            return await self.remote.run(tokenized, batch, urgency, behind_s)
        lane, small = self._lanes.choose(tokenized, batch)
        lane = self._loaded(lane)
        types = [tokenized.types[row] for row in batch.rows] if tokenized.types else None
        with lane.occupied(tokenized if small else None):
            return await asyncio.get_running_loop().run_in_executor(
                lane.threads, self.compute, lane.options, [tokenized.ids[row] for row in batch.rows], batch.width, types
            )

    def _loaded(self, lane: Lane) -> Lane:
        """Return the lane, or the other one while the lane's session is loaded in the background."""
        other = self._lanes.bulk if lane is self._lanes.single else self._lanes.single
        if lane.options in self._sessions or other.options not in self._sessions:
            return lane
        if self._later is None:
            self._later = self._loader.submit(self._session, lane.options)
            return other
        # If loading failed, the lane tries it again and raises its error.
        return lane if self._later.done() else other

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
        for threads in (self._loader, *(lane.threads for lane in self._lanes)):
            await asyncio.to_thread(threads.shutdown, wait=True, cancel_futures=True)
        for options in list(self._sessions):
            self.drop(options)
