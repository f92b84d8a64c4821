"""A pause ends after its seconds, whatever the wall clock does."""

import pytest

from embedway.cache.pause import Pause


class Times:
    wall, monotonic = 1e9, 50.0

    def pass_(self, seconds):
        self.wall += seconds
        self.monotonic += seconds


@pytest.fixture
def times():
    return Times()


@pytest.fixture
def pause(times):
    return Pause(5.0, lambda: times.wall, lambda: times.monotonic)


def test_a_pause_ends_after_its_seconds_and_starts_again(pause, times):
    assert not pause.is_running()
    pause.start()
    times.pass_(4.9)
    assert pause.is_running()
    times.pass_(0.2)
    assert not pause.is_running()
    pause.start()
    assert pause.is_running()


@pytest.mark.parametrize("jump", [-86_400, -1, 6, 30 * 86_400])
def test_a_jump_of_the_wall_clock_makes_no_pause_longer(pause, times, jump):
    times.pass_(1)
    pause.start()
    times.wall += jump
    assert not pause.is_running()
    times.wall -= jump
    assert not pause.is_running()


def test_a_wall_clock_that_stands_still_does_not_prolong_a_pause(pause, times):
    pause.start()
    times.monotonic += 5
    assert not pause.is_running()
