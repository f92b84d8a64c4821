"""A loaded model of the inference process: its sessions, and the scheduler that merges the jobs of all clients."""

from __future__ import annotations

import ctypes
import gc
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from embedway.batching.backends import LocalBackend, WorkItem
from embedway.batching.scheduler import BatchScheduler
from embedway.errors import UsageError, WeightsError
from embedway.local import loading
from embedway.local.remote import ModelSpec
from embedway.local.tables import largest_indexes
from embedway.server.inference.progress import WatchedModel
from embedway.telemetry.memory import resident_bytes

if TYPE_CHECKING:
    from embedway.config import Config
    from embedway.local.encoder import Encoder
    from embedway.server.inference.frames import Job
    from embedway.server.inference.progress import Progress
    from embedway.types import Vectors

#: Added to the nice value of threads that compute bulk work: a query's threads get nine times their share of a core.
_BULK_NICE = 10


class ComputingModel:
    """An encoder with loaded sessions. Used from one event loop."""

    def __init__(self, encoder: Encoder, config: Config, progress: Progress, measured_bytes: int) -> None:
        self.runtime = encoder.runtime
        #: Measured memory of its sessions and tokenizer.
        self.bytes = measured_bytes
        self._encoder = encoder
        self._most_id, self._most_type = largest_indexes(encoder.tokenizer)
        batching = config.batching
        self._backend = LocalBackend(WatchedModel(encoder, progress), max_batch_size=batching.max_batch_size)
        self._scheduler = BatchScheduler(self._backend) if batching.across_callers else None

    @property
    def waiting(self) -> int:
        """Number of jobs that wait for their batch."""
        return 0 if self._scheduler is None else self._scheduler.waiting

    async def run(self, job: Job) -> Vectors:
        """Compute a job, merged with those of other clients. Raises UsageError for ids that the model does not have."""
        self._check(job)
        item = WorkItem(job.tokenized, job.batch, job.urgency.query)
        if self._scheduler is None:
            return await self._backend.run(item)
        return await self._scheduler.run(item, job.urgency, behind_s=job.behind_s)

    def _check(self, job: Job) -> None:
        # A backend may read memory outside of its tables for a wrong index.
        for name, rows, most in (
            ("token ids", job.tokenized.ids, self._most_id),
            ("token types", job.tokenized.types, self._most_type),
        ):
            if any(int(row.min()) < 0 or int(row.max()) > most for row in rows):
                raise UsageError(f"a job has {name} that {self._encoder.model} does not have")
        if job.batch.width > self._encoder.max_tokens:
            raise UsageError(
                f"a job has {job.batch.width} tokens; {self._encoder.model} reads {self._encoder.max_tokens}"
            )

    async def close(self) -> None:
        """Wait for running batches and unload the sessions."""
        await self._encoder.close()


def load_model(spec: ModelSpec, config: Config, progress: Progress) -> ComputingModel:
    """Load a model and its sessions, and measure its memory. Blocking.

    Raises the errors of weights and runtimes, and WeightsError if the files are not those of the specification.
    """
    from embedway.local.cross_encoder import CrossEncoder  # noqa: PLC0415  imports the backends

    before = resident_bytes() or 0
    loaded = loading.load(loading.resolve(spec.name), config)
    recipe = loaded.recipe
    if ModelSpec.of(spec.name, recipe, spec.choice, raw=spec.raw) != spec:
        raise WeightsError(f"the files of {spec.model} have changed since a worker opened it: restart the gateway")
    if spec.raw:
        recipe = replace(recipe, normalized=False)
    loaded = replace(loaded, recipe=recipe, choice=spec.choice)
    if recipe.task == "rerank":
        encoder: Encoder = CrossEncoder(recipe, spec.choice, bulk_nice=_BULK_NICE)
    else:
        encoder = loading.encoder_of(loaded, bulk_nice=_BULK_NICE)
    encoder.warm()
    return_memory()
    # Memory that an unloaded model left behind is used again, and the difference may then be too small.
    return ComputingModel(encoder, config, progress, max((resident_bytes() or 0) - before, spec.weights_bytes // 2))


def return_memory() -> None:
    """Return freed memory to the system. Blocking."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
