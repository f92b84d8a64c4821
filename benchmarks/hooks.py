"""Cost of one operation of hooks: without a hook, with one for events only, and with one for operations.

python benchmarks/hooks.py
"""

import timeit

from embedway.telemetry.hooks import BaseHook, Hooks
from embedway.telemetry.operations import AttemptDetails

COUNT = 100_000


class Listening(BaseHook):
    """Hook for events only, like the embedder's own hooks."""

    def event(self, operation):
        pass


class Operating(BaseHook):
    """No-op hook for operations."""

    def begin(self, operation):
        pass

    def end(self, operation, outcome):
        pass


def nanoseconds(hooks):
    """Return the minimum of seven series, per operation."""

    def run():
        with hooks.operation(AttemptDetails, "acme/m", "routes.r", 1, 3, 120) as outcome:
            outcome.tokens = 120

    return min(timeit.repeat(run, number=COUNT, repeat=7)) / COUNT * 1e9


if __name__ == "__main__":
    for name, hooks in (("none", []), ("events only", [Listening()]), ("operations", [Operating()])):
        print(f"{name:13} {nanoseconds(Hooks(hooks)):6,.0f} ns")
