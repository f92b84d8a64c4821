"""Hooks: what they receive, in which order, and that they never harm a request."""

import asyncio
import contextlib
import contextvars
import dataclasses
import itertools
import logging
import sys
import typing
from pathlib import Path

import pytest

import embedway
from api_servers import KEY, OpenAIServer
from embedway import AsyncEmbedder, Config
from embedway.errors import BudgetExceededError, UsageError
from embedway.money import usd
from embedway.telemetry import hooks as module
from embedway.telemetry import open_hooks, operations
from embedway.telemetry.hooks import BaseHook, Hooks, current_operation
from embedway.telemetry.operations import (
    AttemptDetails,
    BatchDetails,
    BudgetRefusalDetails,
    BudgetStandingDetails,
    BudgetWarningDetails,
    CircuitDetails,
    CostDetails,
    LoadDetails,
    Operation,
    Outcome,
    RequestDetails,
    ReservationDetails,
    WaitDetails,
)

REQUEST = RequestDetails, "embed", "acme/m", 2
BATCH = BatchDetails, "acme/m", "routes.r", 2, 6
ATTEMPT = AttemptDetails, "acme/m", "routes.r", 1, 2, 6
PACKAGE = str(Path(embedway.__file__).parent)


class Recording(BaseHook):
    """Hook that records its calls."""

    def __init__(self, name="", calls=None):
        self.name = name
        self.calls = [] if calls is None else calls
        self.begun: list[Operation] = []
        self.ended: list[tuple[Operation, Outcome]] = []
        self.events: list[Operation] = []

    def begin(self, operation):
        self.calls.append(f"{self.name} begin")
        self.begun.append(operation)

    def end(self, operation, outcome):
        self.calls.append(f"{self.name} end")
        self.ended.append((operation, outcome))

    @contextlib.contextmanager
    def context(self, operation):
        self.calls.append(f"{self.name} enter")
        yield
        self.calls.append(f"{self.name} leave")

    def event(self, operation):
        self.events.append(operation)

    def of(self, details):
        return [operation for operation in self.begun if isinstance(operation.details, details)]


# ----------------------------------------------------------- parents of operations


def test_an_operation_has_the_one_that_it_began_in_as_parent():
    hook = Recording()
    hooks = Hooks([hook])
    with hooks.operation(*REQUEST), hooks.operation(*BATCH):
        with hooks.operation(*ATTEMPT):
            hooks.event(CircuitDetails, "routes.r", "closed", "open")
        with hooks.operation(*ATTEMPT):
            pass
    with hooks.operation(*REQUEST):
        pass
    request, batch, first, second, later = hook.begun
    assert [one.parent for one in hook.begun] == [None, request.id, batch.id, batch.id, None]
    assert [one.parent for one in hook.events] == [first.id]
    assert len({one.id for one in (*hook.begun, *hook.events)}) == 6
    assert [one for one, _ in hook.ended] == [first, second, batch, request, later]
    assert current_operation.get() is None


def test_tasks_of_one_operation_are_its_children_and_not_each_others():
    hook = Recording()
    hooks = Hooks([hook])

    async def attempt(number, others):
        with hooks.operation(AttemptDetails, "acme/m", "routes.r", number, 1, 1):
            await others.wait()
            with hooks.operation(WaitDetails, "retry", "routes.r"):
                await asyncio.sleep(0)

    async def request(others):
        with hooks.operation(*REQUEST):
            async with asyncio.TaskGroup() as group:
                for number in range(3):
                    group.create_task(attempt(number, others))

    async def main():
        others = asyncio.Barrier(6)
        await asyncio.gather(request(others), request(others))

    asyncio.run(main())
    requests = [one.id for one in hook.of(RequestDetails)]
    attempts = hook.of(AttemptDetails)
    assert sorted(one.parent for one in attempts) == sorted(requests * 3)
    assert sorted(one.parent for one in hook.of(WaitDetails)) == [one.id for one in attempts]


def test_a_batch_of_several_requests_is_the_first_ones_and_is_linked_to_the_others():
    hook = Recording()
    hooks = Hooks([hook])
    requests = []

    def request():
        with hooks.operation(*REQUEST):
            requests.append(current_operation.get())

    async def main():
        for _ in range(3):
            request()
        # Another caller, whose operation has ended, makes the task of the batch.
        with hooks.operation(*REQUEST):
            task = asyncio.create_task(batch())
        await task

    async def batch():
        first, second, third = requests
        with hooks.merged_operation([second, None, first, second, third, first], *BATCH), hooks.operation(*ATTEMPT):
            pass
        with hooks.merged_operation([third], *BATCH):
            pass
        with hooks.merged_operation([None], *BATCH):
            pass

    asyncio.run(main())
    first, second, third = requests
    merged, own, nobodys = hook.of(BatchDetails)
    assert (merged.parent, merged.links) == (second, (first, third))
    assert (own.parent, own.links) == (third, ())
    assert (nobodys.parent, nobodys.links) == (None, ())
    assert [one.parent for one in hook.of(AttemptDetails)] == [merged.id]


def test_an_operation_that_ends_in_another_context_leaves_the_current_one_as_it_was():
    hooks = Hooks([Recording()])
    with hooks.operation(*REQUEST):
        outer = current_operation.get()
        inner = hooks.operation(*BATCH)
        contextvars.copy_context().run(inner.__enter__)
        inner.__exit__(None, None, None)
        assert current_operation.get() == outer


# ------------------------------------------------------------------ order, and outcomes


def test_contexts_are_entered_in_order_and_left_in_reverse_between_begin_and_end():
    calls = []
    hooks = Hooks([Recording("one", calls), Recording("two", calls)])
    with hooks.operation(*ATTEMPT):
        calls.append("work")
    before = ["one begin", "two begin", "one enter", "two enter"]
    assert calls == [*before, "work", "two leave", "one leave", "two end", "one end"]


def test_the_context_is_current_where_the_work_is_done():
    span = contextvars.ContextVar("span", default=None)

    class Spans(BaseHook):
        @contextlib.contextmanager
        def context(self, operation):
            token = span.set(operation.id)
            yield
            span.reset(token)

    hooks = Hooks([Spans()])

    async def main():
        with hooks.operation(*REQUEST):
            assert span.get() == current_operation.get()
            await asyncio.gather(attempt(), attempt())
            assert span.get() == current_operation.get()
        assert span.get() is None

    async def attempt():
        with hooks.operation(*ATTEMPT):
            await asyncio.sleep(0)
            assert span.get() == current_operation.get()

    asyncio.run(main())


def test_the_outcome_has_the_reported_facts_and_the_duration():
    hook = Recording()
    times = iter([10.0, 12.5])
    with Hooks([hook], clock=lambda: next(times)).operation(*ATTEMPT) as outcome:
        outcome.tokens = 7
    ((_, ended),) = hook.ended
    assert ended == Outcome(duration_s=2.5, tokens=7)


def test_an_error_ends_an_operation_by_its_name_and_goes_on():
    hook = Recording()
    with pytest.raises(ValueError, match="a text"), Hooks([hook]).operation(*ATTEMPT):
        raise ValueError("a text of the user's")
    ((_, ended),) = hook.ended
    assert ended.error == "ValueError"
    assert "text of" not in repr(ended)


def test_a_cancellation_ends_an_operation():
    hook = Recording("one")
    hooks = Hooks([hook])

    async def work():
        with hooks.operation(*REQUEST), hooks.operation(*ATTEMPT):
            await asyncio.Event().wait()

    async def main():
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(main())
    assert [outcome.error for _, outcome in hook.ended] == ["CancelledError"] * 2
    assert hook.calls[-4:] == ["one leave", "one end"] * 2


def test_a_context_neither_sees_nor_swallows_an_error():
    seen = []

    class Greedy(BaseHook):
        def context(self, operation):
            return self

        def __enter__(self):
            return self

        def __exit__(self, *error):
            seen.append(error)
            return True

    with pytest.raises(ValueError, match="mine"), Hooks([Greedy()]).operation(*ATTEMPT):
        raise ValueError("mine")
    assert seen == [(None, None, None)]


# ----------------------------------------------------------------------- failing hooks


class Failing(BaseHook):
    """Hook that fails in one method."""

    def __init__(self, place):
        self.place = place

    def fail(self, place):
        if place == self.place:
            raise ValueError("with a secret-text in it")

    def begin(self, operation):
        self.fail("begin")

    def end(self, operation, outcome):
        self.fail("end")

    def context(self, operation):
        self.fail("context")
        return self.wrapped()

    @contextlib.contextmanager
    def wrapped(self):
        self.fail("enter")
        yield
        self.fail("leave")

    def event(self, operation):
        self.fail("event")

    async def flush(self):
        self.fail("flush")


@pytest.mark.parametrize("place", ["begin", "context", "enter", "leave", "end", "event", "flush"])
def test_a_hook_that_fails_is_logged_once_and_harms_neither_the_work_nor_other_hooks(place, caplog):
    calls = []
    before, after = Recording("one", calls), Recording("two", calls)
    hooks = Hooks([before, Failing(place), after])

    async def main():
        for _ in range(2):
            with hooks.operation(*ATTEMPT) as outcome:
                outcome.attempts = 1
                hooks.event(CircuitDetails, "routes.r", "closed", "open")
            await hooks.flush()

    asyncio.run(main())
    assert len(calls) == 2 * 2 * 4
    assert [len(hook.events) for hook in (before, after)] == [2, 2]
    (line,) = [record.getMessage() for record in caplog.records if record.name == "embedway.hooks"]
    method = "context" if place in {"enter", "leave"} else place
    assert line.startswith(f"hook Failing: {method} failed with ValueError at test_hooks.py:")
    assert "secret-text" not in caplog.text


def test_a_context_that_is_none_is_a_failure_of_its_hook(caplog):
    class Forgetful(BaseHook):
        def context(self, operation):
            return None

    done = []
    with Hooks([Forgetful()]).operation(*ATTEMPT):
        done.append("work")
    assert done
    assert "hook Forgetful: context failed with " in caplog.text


def test_a_flush_that_hangs_holds_closing_up_only_for_a_time(monkeypatch, caplog):
    monkeypatch.setattr(module, "FLUSH_S", 0.01)

    class Hanging(BaseHook):
        async def flush(self):
            await asyncio.Event().wait()

    asyncio.run(Hooks([Hanging()]).flush())
    assert "hook Hanging: flush failed with TimeoutError" in caplog.text


# -------------------------------------------------------------------------- cost


def test_where_no_hook_wants_operations_none_is_made_and_nothing_of_the_package_runs():
    class Listening(BaseHook):
        def event(self, operation):
            pass

    frames = []

    def profile(frame, kind, _argument):
        if kind == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            frames.append(frame.f_code.co_qualname)

    def made(*facts):
        raise AssertionError("no hook wants it")

    for hooks in (Hooks(), Hooks([Listening()])):
        frames.clear()
        sys.setprofile(profile)
        try:
            with hooks.operation(made, 1) as outcome:
                outcome.tokens = 1
                current_operation.get()
        finally:
            sys.setprofile(None)
        assert frames == ["Hooks.operation"]
        with hooks.merged_operation([1, 2], made):
            assert current_operation.get() is None
    Hooks().event(made)


# --------------------------------------------------------------------- data that hooks may receive


def test_details_and_outcomes_can_hold_numbers_and_names_alone():
    allowed = {int, float, str, bool, type(None)}

    def leaves(annotation):
        parts = typing.get_args(annotation)
        if not parts or typing.get_origin(annotation) is typing.Literal:
            return {type(part) for part in parts} or {annotation}
        return {leaf for part in parts if part is not ... for leaf in leaves(part)}

    known = {**vars(operations), "InputType": embedway.types.InputType}
    kinds = typing.get_args(operations.Details)
    for one in (*kinds, Outcome):
        hints = typing.get_type_hints(one, known)
        assert dataclasses.is_dataclass(one)
        for field in dataclasses.fields(one):
            assert leaves(hints[field.name]) <= allowed, (one, field.name)
    assert tuple(one.kind for one in kinds) == typing.get_args(operations.Kind)


class Service(OpenAIServer):
    width = 1536


def test_an_embedder_reports_money_to_its_hooks_and_no_text_key_or_address(caplog):
    caplog.set_level(logging.DEBUG)
    hook = Recording()
    text = "a most private text"

    async def main():
        server = Service()
        async with server.running():
            settings = {
                "routes.r": {
                    "model": "text-embedding-3-small",
                    "provider": "openai",
                    "base_url": f"{server.url}/v1",
                    "api_key": KEY,
                },
                "cache.backend": "none",
                "budgets.b": {"usd": usd(150)},
            }
            config = Config.load(environ={}, overrides=settings)
            async with AsyncEmbedder(config=config, hooks=[hook]) as embedder:
                await embedder.embed([text], model="text-embedding-3-small", collection="docs")
                with pytest.raises(BudgetExceededError):
                    await embedder.embed([text, "more of it"], model="text-embedding-3-small")
                return server.url

    url = asyncio.run(main())
    first, second = hook.of(ReservationDetails)
    name = "openai/text-embedding-3-small"
    assert [first.details.nanousd, second.details.nanousd] == [80, 140]
    assert {first.details.model, second.details.model} <= {name, "text-embedding-3-small"}
    reserved = [outcome.error for one, outcome in hook.ended if one in (first, second)]
    assert reserved == [None, "BudgetExceededError"]
    cost, warning, refusal, standing = hook.events
    assert cost.details == CostDetails("text-embedding-3-small", 80, "reported")
    assert cost.parent == warning.parent == hook.of(AttemptDetails)[0].id
    # Sent when the embedder is closed, before a second has passed.
    assert standing.details == BudgetStandingDetails("b", 80, 0, 150, "total")
    assert standing.parent is None
    assert warning.details == BudgetWarningDetails("b", 50, 80, 150, "*", "total", hard=True)
    assert refusal.details == BudgetRefusalDetails("b", 140, 70)
    assert refusal.parent == second.id
    everything = repr((hook.begun, hook.ended, hook.events))
    for secret in ("private", "more of it", KEY, url):
        assert secret not in everything


def test_an_embedder_flushes_its_hooks_when_it_is_closed(config):
    flushed = []

    class Flushing(BaseHook):
        async def flush(self):
            flushed.append(True)

    async def main():
        async with AsyncEmbedder(config=config, hooks=[Flushing()]):
            assert not flushed

    asyncio.run(main())
    assert flushed == [True]


def test_a_hook_needs_no_base_class():
    class Plain:
        def __init__(self):
            self.told = []

        def begin(self, operation):
            self.told.append(operation.details)

        def end(self, operation, outcome):
            self.told.append(outcome.error)

        def context(self, operation):
            return contextlib.nullcontext()

        def event(self, operation):
            self.told.append(operation.details)

        async def flush(self):
            self.told.append("flush")

    plain = Plain()
    hooks = Hooks([plain])
    with hooks.operation(LoadDetails, "acme/m"):
        hooks.event(CircuitDetails, "routes.r", "closed", "open")
    asyncio.run(hooks.flush())
    assert plain.told == [LoadDetails("acme/m"), CircuitDetails("routes.r", "closed", "open"), None, "flush"]


class Async(BaseHook):
    async def begin(self, operation):
        del operation


@pytest.mark.parametrize("hooks", [None, "x", 5, [object()], [BaseHook], [Async()]])
def test_what_is_no_hook_is_a_usage_error(hooks):
    with pytest.raises(UsageError, match="hook"):
        open_hooks(hooks)


def test_a_hook_that_cancels_itself_cancels_nothing_else():
    class Cancelling(BaseHook):
        def begin(self, operation):
            del operation
            raise asyncio.CancelledError

        async def flush(self):
            raise asyncio.CancelledError

    async def main():
        hooks = Hooks([Cancelling()])
        with hooks.operation(operations.LoadDetails, "m"):
            pass
        await hooks.flush()
        return "went on"

    assert asyncio.run(main()) == "went on"


class Ending(BaseHook):
    """Hook that ends the program, from one of its methods."""

    def __init__(self, method, kind):
        def fail(*_):
            raise kind("a text of the user")

        async def fail_later():
            fail()

        setattr(self, method, fail_later if method == "flush" else fail)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, BaseException, asyncio.CancelledError])
@pytest.mark.parametrize("method", ["begin", "end", "context", "event", "flush"])
def test_a_hook_that_ends_the_program_does_not_end_the_embedder(config, method, kind):
    with embedway.Embedder(config=config, hooks=[Ending(method, kind)]) as embedder:
        for text in ("a b", "c"):
            assert len(embedder.embed([text])) == 1


def test_an_error_that_ends_a_program_does_not_end_the_event_loop(config):
    async def ends():
        raise SystemExit(2)

    with embedway.Embedder(config=config) as embedder:
        with pytest.raises(SystemExit):
            embedder._wait(ends())  # noqa: SLF001  any code in a task of the embedder
        assert len(embedder.embed(["a b"])) == 1


@pytest.mark.parametrize("hooks", [itertools.repeat(BaseHook()), 5, None, "a", {"a": BaseHook()}, [5], [BaseHook]])
def test_hooks_are_a_list_with_an_end(config, hooks):
    with pytest.raises(UsageError, match=r"^hooks? "):
        AsyncEmbedder(config=config, hooks=hooks)
