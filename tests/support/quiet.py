"""Processes without Internet access, and the files they leave and processes they start."""

import subprocess
import sys

import pytest

import quiet_child

#: Our own folders in a home, and tiktoken's for its vocabularies among temporary files.
_KNOWN = (".cache/embedway/", ".local/share/embedway/", ".local/state/embedway/", "data-gym-cache/")
needs_seccomp = pytest.mark.skipif(not quiet_child.supported(), reason="this system has no seccomp filters that kill")


def run_quietly(folder, source, *arguments, flags=(), variables=None):
    """Run a script in an empty home below a folder, without Internet access.

    The result also has `left`, the third-party files in the home and among temporary files, and `started`.
    """
    home, place, temporary, report = (folder / name for name in ("home", "place", "temporary", "report"))
    for made in (home, place, temporary):
        made.mkdir(exist_ok=True)
    script = folder / "script.py"
    script.write_text(source)
    report.write_bytes(b"")
    done = subprocess.run(
        [sys.executable, quiet_child.__file__, *flags, str(report), str(script), *map(str, arguments)],
        env={"HOME": str(home), "PATH": "/usr/bin:/bin", "TMPDIR": str(temporary), **(variables or {})},
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    done.started = report.read_text().splitlines()
    files = [path.relative_to(top) for top in (home, temporary) for path in top.rglob("*") if not path.is_dir()]
    done.left = sorted(path.as_posix() for path in files if not path.as_posix().startswith(_KNOWN))
    return done


def assert_quiet(done):
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert (done.left, done.started) == ([], [])
