"""Ids of requests, and what was tried for them."""

import pytest

from embedway.telemetry.hooks import Hooks
from embedway.telemetry.operations import AttemptDetails, BatchDetails, CacheDetails, Operation, RequestDetails
from embedway.telemetry.requests import (
    RequestTracker,
    RouteFacts,
    current_requests,
    provider_of,
    request_id,
    requested_model,
)
from embedway.telemetry.settings_hook import SettingsHook

REQUEST = RequestDetails("embed", "acme/m", 1)


def test_ids_are_unique_and_stable():
    assert request_id(1) == request_id(1)
    assert len({request_id(number) for number in range(1000)}) == 1000


@pytest.mark.parametrize(
    ("named", "opened", "models", "expected"),
    [
        ("acme/m", None, {"acme/m"}, "acme/m"),
        ("alias", "acme/m", set(), "alias"),
        ("a text by mistake", None, {"acme/m"}, None),
        ("auto", None, {"auto"}, None),
        ("auto", "acme/m", set(), "acme/m"),
        ("/home/alice/models/m", "m", set(), "m"),
        ("C:\\models\\m", "m", set(), "m"),
        ("~/m", "m", set(), "m"),
        ("hf:acme/m@main", "acme/m", set(), "hf:acme/m@main"),
        ("fastembed:acme/m-v1.5", "fastembed:acme/m-v1.5", set(), "fastembed:acme/m-v1.5"),
    ],
)
def test_the_requested_model_is_a_known_one(named, opened, models, expected):
    assert requested_model(RequestDetails("embed", named, 1), opened, frozenset(models)) == expected


def test_providers_of_routes():
    facts = {"routes.a": RouteFacts("voyage")}
    routes = ("routes.a", "routes.b", "openai:text-embedding-3-small", "fastembed:x", "onnxruntime")
    assert [provider_of(route, facts) for route in routes] == ["voyage", "other", "openai", "fastembed", "local"]


def test_attempts_are_counted_for_all_requests_of_their_batch():
    tracker = RequestTracker()
    requests = [Operation(number, None, REQUEST) for number in (1, 2, 3)]
    batch = Operation(4, 1, BatchDetails("acme/m", "routes.a", 2, 2), (2,))
    attempts = [Operation(number, 4, AttemptDetails("acme/m", f"routes.{number}", 1, 2, 2)) for number in (5, 6)]
    lookup = Operation(7, 3, CacheDetails("lookup", "acme/n", 1))
    for operation in (*requests, batch, *attempts, lookup):
        tracker.begin(operation)
    assert [tracker.end(operation) for operation in (lookup, *attempts, batch)] == [None] * 4
    first, second, third = (tracker.end(request) for request in requests)
    assert (first.attempts, first.model, list(first.routes)) == (2, "acme/m", ["routes.5", "routes.6"])
    assert second == first
    assert (third.attempts, third.model, third.routes) == (0, "acme/n", {})


def test_a_tracker_keeps_nothing_of_ended_operations():
    tracker = RequestTracker()
    late = Operation(3, 1, AttemptDetails("acme/m", "routes.a", 1, 1, 1))
    for operation in (Operation(1, None, REQUEST), Operation(2, 1, BatchDetails("acme/m", "routes.a", 1, 1))):
        tracker.begin(operation)
        tracker.end(operation)
    tracker.begin(late)  # its request has ended
    tracker.end(late)
    assert not any(vars(tracker).values())


def test_the_requests_of_a_task_are_restored():
    class Operating(SettingsHook):
        def begin(self, operation):
            pass

    hooks = Hooks([Operating()])
    with hooks.operation(RequestDetails, "embed", "acme/m", 1):
        (request,) = current_requests.get()
        with hooks.merged_operation([7, 8], BatchDetails, "m", "local", 2, 2):
            assert current_requests.get() == (7, 8)
        assert current_requests.get() == (request,)
    assert current_requests.get() == ()


def test_a_hook_of_several_embedders_knows_the_routes_of_all():
    hook = SettingsHook()
    for number in range(2):
        hook.use_settings(lambda name=f"acme/{number}": {name: name}, {f"routes.{number}": RouteFacts("openai")})
    assert hook.models == {"acme/0", "acme/1"}
    assert list(hook.routes) == ["routes.0", "routes.1"]
