"""Models in the memory of the inference process: loading, waiting, unused ones, and the bound of memory."""

import asyncio

import pytest

from async_tests import in_loop
from clocks import Clock
from embedway.errors import ClosedError, RuntimeUnavailableError, UnavailableError, UnsupportedModelError, WeightsError
from embedway.local.backend import SessionOptions
from embedway.local.remote import ModelSpec
from embedway.local.runtime_choice import RuntimeChoice
from embedway.server.inference.residency import Residents
from inference_service import until

OPTIONS = SessionOptions("onnxruntime", "f32", 1, 1)
CHOICE = RuntimeChoice(OPTIONS, OPTIONS, 2048)
MIB = 1 << 20


def spec(name, mib=100):
    return ModelSpec(name, name, "embed", raw=False, digest=name, weights_bytes=mib * MIB, choice=CHOICE)


class Fake:
    """Loaded model that answers a job with its name, when the job is an event that is set."""

    runtime, waiting = "fake", 0

    def __init__(self, loader, spec):
        self.loader, self.name = loader, spec.name
        self.bytes = loader.measured.get(spec.name, spec.weights_bytes)

    async def run(self, job):
        if job is not None:
            await job.wait()
        return self.name

    async def close(self):
        self.loader.closed.append(self.name)


class Loader:
    """Loads fakes; a load waits for its gate, if it has one, and fails with its error, if it has one."""

    def __init__(self):
        self.loaded, self.closed, self.gates, self.errors = [], [], {}, {}
        #: Memory of models, if it is not the size of their files.
        self.measured = {}
        self.concurrent = self.most = 0

    async def __call__(self, spec):
        self.concurrent += 1
        self.most = max(self.most, self.concurrent)
        try:
            if spec.name in self.gates:
                await self.gates[spec.name].wait()
            if spec.name in self.errors:
                raise self.errors[spec.name]
        finally:
            self.concurrent -= 1
        self.loaded.append(spec.name)
        return Fake(self, spec)


@in_loop
async def test_a_model_is_loaded_once_for_all_its_jobs():
    loader = Loader()
    residents = Residents(loader)
    assert await asyncio.gather(*(residents.run(spec("a"), None) for _ in range(20))) == ["a"] * 20
    assert loader.loaded == ["a"]


@in_loop
async def test_models_are_loaded_one_after_another():
    loader = Loader()
    residents = Residents(loader)
    await asyncio.gather(*(residents.run(spec(name), None) for name in "abcd"))
    assert (sorted(loader.loaded), loader.most) == (list("abcd"), 1)


@in_loop
async def test_an_unused_model_is_unloaded_after_its_time_and_loaded_again():
    loader, clock = Loader(), Clock()
    residents = Residents(loader, keep_alive_s=60, clock=clock)
    await residents.run(spec("a"), None)
    clock.now += 59
    assert await residents.sweep() == 1
    assert not loader.closed
    clock.now += 1
    assert await residents.sweep() is None
    assert (loader.closed, residents.states()) == (["a"], [])
    assert await residents.run(spec("a"), None) == "a"
    assert loader.loaded == ["a", "a"]


@in_loop
async def test_a_model_in_use_is_not_unloaded_however_long_its_job_takes():
    loader, clock, job = Loader(), Clock(), asyncio.Event()
    residents = Residents(loader, keep_alive_s=60, clock=clock)
    running = asyncio.create_task(residents.run(spec("a"), job))
    await until(lambda: loader.loaded)
    clock.now += 1000
    await residents.sweep()
    assert not loader.closed
    job.set()
    assert await running == "a"
    await residents.sweep()
    assert not loader.closed  # its time begins with its last use
    clock.now += 60
    await residents.sweep()
    assert loader.closed == ["a"]


@in_loop
async def test_the_time_of_one_model_can_be_set():
    loader, clock = Loader(), Clock()
    residents = Residents(loader, keep_alive_s=60, clock=clock)
    for name in "ab":
        await residents.run(spec(name), None)
    assert (residents.keep("a", None), residents.keep("b", 0.0), residents.keep("c", 1.0)) == (1, 1, 0)
    await residents.sweep()
    clock.now += 10_000
    await residents.sweep()
    assert loader.closed == ["b"]


@in_loop
async def test_a_sweep_in_the_background_unloads_at_once_on_request():
    loader = Loader()
    residents = Residents(loader)
    sweeping = asyncio.create_task(residents.keep_sweeping())
    await residents.run(spec("a"), None)
    residents.keep("a", 0.0)
    await until(lambda: loader.closed)
    sweeping.cancel()


@in_loop
async def test_the_least_recently_used_model_makes_room():
    loader, clock = Loader(), Clock()
    residents = Residents(loader, models_bytes=250 * MIB, clock=clock)
    for name in ("a", "b", "a", "c"):  # a is used after b
        clock.now += 1
        await residents.run(spec(name), None)
    assert loader.closed == ["b"]
    assert {one["model"] for one in residents.states()} == {"a", "c"}


@in_loop
async def test_an_unused_model_makes_room_before_one_in_use():
    loader, clock, job = Loader(), Clock(), asyncio.Event()
    residents = Residents(loader, models_bytes=250 * MIB, clock=clock)
    running = asyncio.create_task(residents.run(spec("a"), job))
    await until(lambda: loader.loaded)
    clock.now += 1
    await residents.run(spec("b"), None)
    await residents.run(spec("c"), None)
    assert loader.closed == ["b"]
    job.set()
    await running


@in_loop
async def test_models_in_use_end_their_jobs_before_they_make_room():
    loader, job = Loader(), asyncio.Event()
    residents = Residents(loader, models_bytes=150 * MIB)
    first = asyncio.create_task(residents.run(spec("a"), job))
    await until(lambda: loader.loaded)
    other = asyncio.create_task(residents.run(spec("b"), None))
    await until(lambda: residents.states()[0]["state"] == "unloading")
    again = asyncio.create_task(residents.run(spec("a"), None))  # waits until there is room again
    await asyncio.sleep(0)
    assert not loader.closed
    job.set()
    async with asyncio.timeout(10):
        assert await asyncio.gather(first, other, again) == ["a", "b", "a"]
    assert loader.loaded == ["a", "b", "a"]
    assert loader.closed == ["a", "b"]


@in_loop
async def test_a_model_larger_than_the_bound_is_refused_and_unloads_nothing():
    loader = Loader()
    residents = Residents(loader, models_bytes=150 * MIB)
    await residents.run(spec("a"), None)
    with pytest.raises(RuntimeUnavailableError, match=r"needs about 200 MiB, and server\.models_mib allows 150"):
        await residents.run(spec("b", 200), None)
    assert await residents.run(spec("a"), None) == "a"
    assert not loader.closed


@in_loop
async def test_a_model_that_needs_more_than_its_files_makes_room_after_loading_and_before_the_next_time():
    loader, clock = Loader(), Clock()
    loader.measured["b"] = 200 * MIB
    residents = Residents(loader, models_bytes=250 * MIB, clock=clock)
    for name in "ab":
        clock.now += 1
        await residents.run(spec(name), None)
    await until(lambda: loader.closed)
    assert loader.closed == ["a"]
    residents.keep("b", 0.0)
    await residents.sweep()
    await residents.run(spec("a"), None)
    await residents.run(spec("b"), None)
    assert loader.closed == ["a", "b", "a"]
    assert loader.loaded == ["a", "b", "a", "b"]


@in_loop
async def test_a_job_waits_for_a_cold_model_at_most_for_its_time_and_loading_goes_on():
    loader = Loader()
    loader.gates["a"] = asyncio.Event()
    residents = Residents(loader, load_wait_s=0.0)
    for _ in range(3):
        with pytest.raises(UnavailableError, match="still being loaded") as caught:
            await residents.run(spec("a"), None)
        assert caught.value.loading
        assert caught.value.retry_after_s >= 1
    assert residents.states()[0]["state"] == "loading"
    loader.gates["a"].set()
    await until(lambda: residents.states()[0]["state"] == "loaded")
    assert await residents.run(spec("a"), None) == "a"
    assert loader.loaded == ["a"]


@in_loop
async def test_a_cancelled_job_does_not_end_the_loading_of_others():
    loader = Loader()
    loader.gates["a"] = asyncio.Event()
    residents = Residents(loader)
    first, second = (asyncio.create_task(residents.run(spec("a"), None)) for _ in range(2))
    await until(lambda: loader.concurrent)
    first.cancel()
    await asyncio.wait([first])
    loader.gates["a"].set()
    assert await second == "a"


@in_loop
async def test_all_jobs_get_the_error_of_loading_and_the_next_one_tries_again():
    loader = Loader()
    loader.errors["a"] = WeightsError("a file is missing")
    residents = Residents(loader)
    found = await asyncio.gather(*(residents.run(spec("a"), None) for _ in range(3)), return_exceptions=True)
    assert [str(error) for error in found] == ["a file is missing"] * 3
    assert residents.states() == []
    del loader.errors["a"]
    assert await residents.run(spec("a"), None) == "a"


@in_loop
async def test_other_errors_of_loading_are_named_without_their_message():
    loader = Loader()
    loader.errors["a"] = ValueError("a secret")
    with pytest.raises(UnsupportedModelError, match="cannot be loaded") as caught:
        await Residents(loader).run(spec("a"), None)
    assert "secret" not in str(caught.value)


@in_loop
async def test_closing_ends_waiting_jobs_and_unloads_all_models():
    loader = Loader()
    loader.gates["b"] = asyncio.Event()
    residents = Residents(loader)
    await residents.run(spec("a"), None)
    waiting = asyncio.create_task(residents.run(spec("b"), None))
    await until(lambda: loader.concurrent)
    await residents.aclose()
    with pytest.raises(ClosedError):
        await waiting
    assert loader.closed == ["a"]
    with pytest.raises(ClosedError):
        await residents.run(spec("a"), None)
