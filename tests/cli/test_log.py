"""The library's log on standard error."""

import logging

from embedway.cli.log import show_log


def test_verbose_shows_every_line_once_and_the_default_only_warnings(capsys):
    for verbose in (True, False):
        end = show_log(verbose=verbose)
        for area in ("embedway.dispatch", "embedway.rows"):
            logging.getLogger(area).info("a detail")
            logging.getLogger(area).warning("a warning")
        end()
        lines = capsys.readouterr().err.splitlines()
        expected = [
            f"{level} {area}: {message}"
            for area in ("embedway.dispatch", "embedway.rows")
            for level, message in (("INFO", "a detail"), ("WARNING", "a warning"))
        ]
        assert lines == (expected if verbose else [])
    assert logging.getLogger("embedway").handlers == []
    assert logging.getLogger("embedway.rows").level == logging.NOTSET
