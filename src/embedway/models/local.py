"""Local models: batches of all callers run on the model's own threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from embedway.batching.backends import LocalBackend, ScheduledModel, UnmergedJobs
from embedway.batching.run import run_batches
from embedway.batching.scheduler import BatchScheduler
from embedway.models.base import Estimate, Model, Profile
from embedway.quality.checks import AnswerHistory, DiversityCheck
from embedway.quality.reading import TokenComparer, ignored_ids
from embedway.types import Bill, ModelDescription

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.batching.backends import WorkItem
    from embedway.batching.ready_rows import ReadyRows
    from embedway.batching.work import Work
    from embedway.compute import ComputeRequest
    from embedway.errors import EmbedwayError
    from embedway.local.encoder import Encoder
    from embedway.models.base import ModelEnvironment
    from embedway.types import Space, TokenizedTexts, Vectors


class LocalModel(Model):
    """A local encoder, free of charge."""

    def __init__(self, encoder: Encoder, environment: ModelEnvironment, *, normalized: Space | None = None) -> None:
        """Create the model. `normalized` is the space with normalization, if the encoder is without it."""
        super().__init__(profile_of(encoder), environment.hooks, token_budget=encoder.token_budget)
        if normalized is not None:
            self.baseline_space_id = normalized.id
        self.quarantines = environment.quarantines
        batching = environment.config.batching
        self.spread = encoder.spread
        self.max_batch_size = batching.max_batch_size
        self._encoder = encoder
        # An exported graph may end with the normalization.
        self.can_be_raw = encoder.recipe.onnx is None
        self._checks = AnswerHistory()
        self._reader: TokenComparer | None = None
        if self.task == "embed" and environment.config.quality.check_diversity:
            self._reader = TokenComparer(ignored_ids(encoder.tokenizer.plain))
        self._backend = LocalBackend(encoder, max_batch_size=batching.max_batch_size, hooks=environment.hooks)
        self._scheduler: BatchScheduler[WorkItem, Vectors] | UnmergedJobs | None = None
        if encoder.remote is not None:
            self._scheduler = UnmergedJobs(self._backend, encoder)
        elif batching.across_callers:
            self._scheduler = BatchScheduler(self._backend, on_wait=self.scheduler_wait())

    @override
    def tokenize(self, texts: Sequence[str], request: ComputeRequest) -> TokenizedTexts:
        return self._encoder.tokenize(texts, request.input_type)

    async def _run(
        self, work: Work, request: ComputeRequest, on_ready: ReadyRows | None
    ) -> tuple[Vectors, dict[int, EmbedwayError], Bill]:
        errors: dict[int, EmbedwayError] = {}
        vectors = await run_batches(
            work.tokenized,
            work.batches,
            ScheduledModel(self._backend, self._scheduler, request.urgency),
            width=self.space.dimensions,
            errors=errors if request.partial else None,
            on_ready=on_ready,
        )
        return vectors, errors, Bill(0, 0, len(work.batches), (self.profile.route,))

    @override
    def _diversity(self, request: ComputeRequest) -> DiversityCheck | None:
        if self._reader is None:
            return None
        return DiversityCheck(
            self._reader, self._checks, self.profile.route, self.name, self.hooks, (request.input_type,)
        )

    def cost_nanousd(self, tokens: int, dimensions: int | None = None) -> int:
        """Return 0: this machine costs nothing."""
        del tokens, dimensions
        return 0

    @override
    def estimate(self, work: Work, dimensions: int) -> Estimate:
        del dimensions
        return Estimate(work.tokenized.tokens, requests=0, cost_nanousd=0, batch_cost_nanousd=None)

    @property
    @override
    def may_depend_on_batch(self) -> bool:
        return self._encoder.batch_dependent

    async def warm(self) -> None:
        """Load all sessions and start their threads."""
        await self._encoder.prepare()

    @override
    def encoder(self) -> Encoder:
        return self._encoder

    async def _close(self) -> None:
        await self._encoder.close()


def profile_of(encoder: Encoder) -> Profile:
    """Return the profile of an encoder."""
    tokenizer = encoder.tokenizer
    description = ModelDescription(
        model=encoder.model,
        space=encoder.space,
        sizes=encoder.sizes,
        max_tokens=encoder.max_tokens,
        special_tokens=tokenizer.special_tokens,
        tokenizer=tokenizer.plain,
        runtime=encoder.runtime,
    )
    return Profile(description, encoder.name, encoder.space.dimensions, encoder.variant, exact=True)
