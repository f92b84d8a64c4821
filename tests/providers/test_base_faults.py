"""Random mixes of all upstream faults, over real HTTP: a row is right, or it has an error."""

import asyncio
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from api_misdeeds import ENCODINGS, INDEX, LIST, NUMBERS, ORDERS, error
from embedway.errors import EmbedwayError, RefusedInputError
from provider_suite import APIS, INDEXED, MODEL, embedder_for, limited, wanted

#: After these faults a text is retried until its attempts are used up.
PASSING = ["reset", "hang up", "html error", "408", "409", "429", "429 at once", "429 date"]
PASSING += ["500", "502", "503 at once", "504"]
#: These last as long as the timeout, so a mix has at most one.
SLOW = ["slow", "drip", "stall"]
#: Bad answers, of which one is tolerated; and final failures.
BAD = [*LIST, *NUMBERS, *(f"first: {name}" for name in NUMBERS), "no field", "html", "half json"]
FINAL = ["redirect", "404", "501", "401", "403", "402", "429 quota"]
HARMLESS = [*ENCODINGS, *(f"first: {name}" for name in ENCODINGS)]
BY_INDEX = [*INDEX, *ORDERS]
ATTEMPTS = 5


@dataclass(frozen=True)
class Mix:
    """Behaviour of an upstream, and the request."""

    name: str
    misdeeds: tuple[str | None, ...]
    #: Whether the faults repeat after the last one.
    for_ever: bool
    texts: tuple[str, ...]
    poison: frozenset[str]
    max_inputs: int
    concurrency: int


@st.composite
def mixes(draw, kinds, *, for_ever=st.just(False), most=12):  # noqa: B008 - strategies are values
    name = draw(st.sampled_from(sorted(APIS)))
    choices = [None, *kinds, *(BY_INDEX if name in INDEXED and BAD[0] in kinds else ())]
    misdeeds = draw(st.lists(st.sampled_from(choices), max_size=most))
    # One that never ends is enough.
    slow = [number for number, misdeed in enumerate(misdeeds) if misdeed in SLOW]
    kept = [misdeed for number, misdeed in enumerate(misdeeds) if number not in slow[1:]]
    texts = draw(st.lists(st.integers(0, 30), min_size=1, max_size=32))
    poison = draw(st.frozensets(st.sampled_from(texts), max_size=max(1, len(set(texts)) // 2)))
    return Mix(
        name,
        tuple(kept),
        draw(for_ever) and not slow,
        tuple(f"text {number}" for number in texts),
        frozenset(f"text {number}" for number in poison),
        draw(st.integers(1, 32)),
        draw(st.integers(1, 4)),
    )


def serve(mix):
    """Return the API's own server, which also refuses requests that contain poison."""

    class Picky(APIS[mix.name].server):
        def refusal(self, request, body):
            poisoned = any(text.endswith(poison) for text in self.texts_of(body) for poison in mix.poison)
            return super().refusal(request, body) or (self.refuse() if poisoned else None)

        def refuse(self):
            return self.bad(400, "poison") if hasattr(self, "bad") else error(400, "content_filter", "poison")

        def misdeed_for(self, body):
            if mix.for_ever and mix.misdeeds:
                return mix.misdeeds[(len(self.bodies) - 1) % len(mix.misdeeds)]
            return super().misdeed_for(body)

    server = Picky()
    server.width, server.sizes, server.widest = 8, None, None
    server.misdeeds = list(mix.misdeeds)
    return server


def run(mix, *, timeout_s=0.05, **options):
    """Return the outcome of a mix; any error but ours fails the test."""
    server = serve(mix)
    given_settings = {
        "upstream.max_attempts": ATTEMPTS,
        "upstream.timeout_s": timeout_s,
        "upstream.concurrency": mix.concurrency,
        "upstream.deadline_s": 20.0,
    }

    async def main():
        async with embedder_for(mix.name, server, **given_settings) as embedder:
            return await embedder.embed(mix.texts, model=MODEL, **options)

    with pytest.MonkeyPatch.context() as patch:
        limited(patch, mix.max_inputs)
        return server, asyncio.run(main())


def assert_right_or_errors(result, mix, server):
    """Check that every row is its text's vector or has an error, and that only poison is refused."""
    right = wanted(mix.texts, server)
    for row, text in enumerate(mix.texts):
        failure = result.errors.get(row)
        if failure is None:
            np.testing.assert_allclose(result.vectors[row], right[row], atol=1e-6)
            assert text not in mix.poison
        else:
            assert isinstance(failure, EmbedwayError)
            assert np.isnan(result.vectors[row]).all()
            assert text in mix.poison or not isinstance(failure, RefusedInputError)


def assert_sent_no_more_than_needed(mix, server):
    """Check that no answered text is sent again, and that each is sent at most once per attempt, refusals aside."""
    answered, sent = set(), dict.fromkeys(mix.texts, 0)
    for served in server.log:
        for text in served.texts:
            own = next(known for known in sent if text.endswith(known))
            assert own not in answered
            sent[own] += served.fate != "refused"
        if served.fate in {"answered", *ORDERS, *HARMLESS}:
            answered |= {known for known in sent for text in served.texts if text.endswith(known)}
    assert max(sent.values()) <= ATTEMPTS


ANYTHING = mixes([*PASSING, *SLOW, *BAD, *FINAL, *HARMLESS], for_ever=st.booleans())
bounded = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])


@given(ANYTHING)
@bounded
def test_each_row_is_right_or_an_error_and_only_poison_is_refused(mix):
    server, result = run(mix, partial=True)
    assert_right_or_errors(result, mix, server)


@given(ANYTHING)
@bounded
def test_all_rows_are_right_or_the_call_is_one_error(mix):
    try:
        server, result = run(mix)
    except EmbedwayError:
        return
    np.testing.assert_allclose(result.vectors, wanted(mix.texts, server), atol=1e-6)
    assert not mix.poison


#: One text at fault among 32, which takes five halvings, with failures before and during them.
DEEP = Mix(
    name="openai",
    misdeeds=("500", "500", *[None] * 6, "500", "429"),
    for_ever=False,
    texts=tuple(f"text {number}" for number in range(32)),
    poison=frozenset({"text 13"}),
    max_inputs=32,
    concurrency=1,
)


@given(mixes([*PASSING, *SLOW, *HARMLESS], most=ATTEMPTS - 2), st.sampled_from([None, *BAD]), st.integers(0, 3))
@example(DEEP, None, 3)
@bounded
def test_faults_that_end_cost_no_innocent_text_its_vector(mix, bad, place):
    misdeeds = [*mix.misdeeds[:place], bad, *mix.misdeeds[place:]]
    # Long enough for a busy machine, because an unplanned timeout would be an extra fault.
    timeout_s = 0.3 if {*misdeeds} & {*SLOW} else 20.0
    server, result = run(replace(mix, misdeeds=tuple(misdeeds)), timeout_s=timeout_s, partial=True)
    assert_right_or_errors(result, mix, server)
    assert {mix.texts[row] for row in result.errors} == mix.poison
    assert_sent_no_more_than_needed(mix, server)
