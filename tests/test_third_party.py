"""Failures of third-party code: which errors pass, and what is said of the others."""

import asyncio
import logging
import threading

import pytest

from embedway.third_party import guarded, is_interrupt, must_pass, place_of


def in_a_thread(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_only_the_main_thread_is_interrupted():
    assert is_interrupt(KeyboardInterrupt())
    assert not in_a_thread(lambda: is_interrupt(KeyboardInterrupt()))
    assert not is_interrupt(SystemExit())


def test_only_a_cancellation_of_this_task_passes():
    async def main():
        own = must_pass(asyncio.CancelledError())
        asyncio.current_task().cancel()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError as error:
            return own, must_pass(error)

    assert asyncio.run(main()) == (False, True)
    assert not must_pass(asyncio.CancelledError())


def test_the_message_of_an_error_is_not_repeated():
    with pytest.raises(ValueError, match="text") as caught:
        int("a text of the user")
    assert place_of(caught.value).startswith("ValueError at test_third_party.py:")
    assert place_of(ValueError("a text of the user")) == "ValueError"


@pytest.mark.parametrize("kind", [ValueError, SystemExit, GeneratorExit, asyncio.CancelledError])
def test_a_guarded_function_never_fails_and_is_logged_once(caplog, kind):
    def failing(*_):
        raise kind("a text of the user")

    call = guarded(failing, "progress Bar")
    with caplog.at_level(logging.WARNING):
        call(1)
        call(2)
    (line,) = caplog.messages
    assert line.startswith(f"progress Bar failed with {kind.__name__} at test_third_party.py")
    assert "user" not in line


def test_an_interrupt_passes_a_guarded_function():
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        guarded(interrupted, "progress")()
