"""Lines that a child process writes, read until its end, so that it never waits for a reader."""

import re
import threading


class ChildLines:
    """Reads a stream of a child process in a thread."""

    def __init__(self, stream):
        self.lines = []
        self._stream = stream
        self._has_ended = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self._stream:
            with self._changed:
                self.lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def wait_for(self, pattern, patience_s):
        """Return the first group of the first line with a pattern. Fails if the process ends before."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_ended or self._find(pattern), patience_s)
            found = self._find(pattern)
            assert found, f"no line has {pattern}: {''.join(self.lines)}"
            return found[1]

    def _find(self, pattern):
        return next(filter(None, (re.search(pattern, line) for line in self.lines)), None)

    def close(self):
        """Read the rest of an ended process."""
        self._reader.join()
        self._stream.close()
