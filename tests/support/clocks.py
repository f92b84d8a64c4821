"""Clock that tests set."""


class Clock:
    """Seconds that pass when a test says so: `clock.now += 3`."""

    def __init__(self, now=1_000_000.0):
        self.now = now

    def __call__(self):
        return self.now
