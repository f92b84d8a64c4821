"""Limits of one request that a service names when it refuses one, and remedies for answers of the wrong form."""

from __future__ import annotations

import copy
import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from embedway.providers.base import RequestLimits, lowest, sum_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from embedway.dispatch.request import Rows
    from embedway.errors import EmbedwayError, UpstreamError
    from embedway.providers.base import Declared
    from embedway.types import ServiceLimits

    E = TypeVar("E", bound=EmbedwayError)

_log = logging.getLogger(__name__)

#: Factor for a limit on tokens if our count of a refused request is within the limit: the service counts more.
_RECOUNT = 0.75
#: Times in a row that a limit is learned as it is named. Later ones must halve it, until a request that nearly fills it
#: is answered. Otherwise a server that always names a little less would be asked for every size.
_MOST_LESSONS, _FULL = 2, 0.9
#: Maximum lines of the log for a route.
_MOST_LINES = 20


@dataclass(slots=True)
class LearnedLimits:
    """Limits of a route, learned from refusals; None where nothing was learned.

    They are never lower than a request or text that the service accepted. `max_request_tokens` and `max_tokens` are in
    our own count of tokens, which may differ from the service's.
    """

    max_inputs: int | None = None
    max_request_tokens: int | None = None
    max_tokens: int | None = None
    #: Maximum texts of a request for which the order of answers without `index` is proved.
    max_ordered: int | None = None
    #: The largest request and text that the service accepted.
    _inputs: int = 0
    _tokens: int = 0
    _longest: int = 0
    #: Times that a limit was learned since a request nearly filled it, by name.
    _lessons: Counter[str] = field(default_factory=Counter)
    _lines: int = 0

    def applied_to(self, declared: Declared) -> Declared:
        """Return declared properties with the learned limits; they are never raised."""
        if not self.has_any:
            return declared
        limits = RequestLimits(lowest(self.max_inputs, self.max_ordered), self.max_request_tokens)
        return limits.applied_to(declared)

    @property
    def has_any(self) -> bool:
        """Whether a limit of a request was learned."""
        return not (self.max_inputs is self.max_request_tokens is self.max_ordered is None)

    def alone(self, parts: list[Rows], lengths: npt.NDArray[np.int32]) -> list[Rows]:
        """Take texts over the learned limit of a text out of their requests, so that they fail alone.

        They are still sent, because the service's count of tokens may differ.
        """
        if self.max_tokens is None:
            return parts
        found: list[Rows] = []
        for part in parts:
            is_long = lengths[part] > self.max_tokens
            found += [own for own in (part[~is_long], *np.split(part[is_long], is_long.sum())) if len(own)]
        return found

    def accept(self, lengths: npt.NDArray[np.int32]) -> None:
        """Record the texts of a request that the service accepted."""
        inputs, tokens, longest = _sizes(lengths)
        self._inputs, self._tokens = max(self._inputs, inputs), max(self._tokens, tokens)
        self._longest = max(self._longest, longest)
        if self._lessons:
            sizes = {"max_inputs": inputs, "max_request_tokens": tokens, "max_tokens": longest}
            for name in [name for name in self._lessons if sizes[name] >= _FULL * (getattr(self, name) or 0)]:
                del self._lessons[name]

    def learn(self, limits: ServiceLimits, lengths: npt.NDArray[np.int32], *, route: str) -> str:
        """Learn from the refusal of a request with these texts. Returns a note if a limit is new, otherwise "".

        A limit above the refused request is not its reason, unless it is a number of tokens, which we may count
        differently: then the limit in our count is lower.
        """
        inputs, tokens, longest = _sizes(lengths)
        by_count = limits.max_request_tokens
        if by_count is not None and by_count >= tokens and inputs > 1:
            by_count = max(1, int(tokens * _RECOUNT))
        found = (
            ("max_inputs", limits.max_inputs, self._inputs, inputs, "inputs per request"),
            ("max_request_tokens", by_count, self._tokens, tokens if inputs > 1 else 0, "tokens per request"),
            ("max_tokens", limits.max_tokens, self._longest, longest, "tokens per text"),
        )
        said = []
        for name, named, accepted, sent, of in found:
            most, known = max(_positive(named) or sent, accepted), getattr(self, name)
            if most < sent and (known is None or most < known):
                if known is not None and self._lessons[name] >= _MOST_LESSONS and 2 * most > known:
                    continue
                self._lessons[name] += 1
                setattr(self, name, most)
                said.append(f"at most {most} {of} ({name})")
        if not said:
            return ""
        note = f"{route} accepts {' and '.join(said)}, learned from a refusal"
        self._lines += 1
        if self._lines <= _MOST_LINES:
            _log.warning("%s, and kept until the embedder is closed", note)
        return note

    def note(self, route: str) -> str:
        """Return the note for a receipt whose request was split at learned limits."""
        facts = (("inputs", self.max_inputs), ("tokens", self.max_request_tokens))
        named = [f"{most} {unit}" for unit, most in facts if most is not None]
        return f"requests to {route} were split at {' and '.join(named)}, learned from a refusal" if named else ""


def add_note(notes: list[str], note: str, route: str) -> None:
    """Add the note on a route's learned limits to a receipt, in place of an earlier one."""
    about = f"{route} accepts ", f"requests to {route} were split at "
    notes[:] = [*(one for one in notes if not one.startswith(about)), note]


def too_long(error: UpstreamError, tokens: int) -> UpstreamError:
    """Return the refusal of a single text with its tokens, the limit and the remedy."""
    limits = error.limits
    most = _positive(limits.max_tokens) or _positive(limits.max_request_tokens)
    if most is None:
        return error
    return with_advice(
        error,
        f"; the text has {tokens} tokens by our count, and the service accepts {most}: split it into chunks; if the "
        f"model has its own section [models.NAME], set max_tokens = {most} there, so that longer texts are truncated "
        "or averaged",
    )


def with_advice(error: E, advice: str) -> E:
    """Return a copy of an error, with its class and attributes, whose message continues with advice."""
    longer = copy.copy(error)
    longer.args = (f"{error.args[0] if error.args else ''}{advice}", *error.args[1:])
    longer.__cause__ = error.__cause__
    return longer


def _sizes(lengths: npt.NDArray[np.int32]) -> tuple[int, int, int]:
    """Return the inputs, the tokens, and the tokens of the longest text of a request."""
    tokens = sum_of(lengths)
    return len(lengths), tokens, tokens if len(lengths) == 1 else int(lengths.max(initial=0))


def _positive(number: int | None) -> int | None:
    return number if type(number) is int and number > 0 else None
