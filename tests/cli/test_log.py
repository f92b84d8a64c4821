"""The library's log on standard error."""

import json
import logging

from embedway import Config
from embedway.cli.log import apply_settings, show_log


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


def config_of(log_format):
    return Config.load(environ={}, overrides={"telemetry.log_format": log_format})


def test_lines_are_json_if_the_settings_say_so(capsys):
    for verbose in (True, False):
        end = show_log(verbose=verbose)
        apply_settings(config_of("json"))
        apply_settings(config_of("json"))  # a command may load its settings twice
        logging.getLogger("embedway.dispatch").info("a\ndetail")
        logging.getLogger("embedway.dispatch").warning("a\x1b[31m warning")
        end()
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        expected = [("INFO", "a\ndetail"), ("WARNING", "a\x1b[31m warning")]
        assert [(one["level"], one["message"]) for one in lines] == (expected if verbose else expected[1:])
    assert logging.getLogger("embedway").handlers == []


def test_a_command_with_json_prints_only_documents(command, place):
    (place / "embedway.toml").write_text(
        '[models.m]\nname = "acme/m"\ndimensions = 16\nmax_tokens = 50\n[routes.r]\nmodel = "acme/m"\n'
        'provider = "fake"\n[telemetry]\nlog_format = "json"\nlog_requests = true\n'
    )
    done = command("-c", "embedway.toml", "-q", "-v", "embed", "--model", "acme/m", "-", stdin="a secret text\n")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert (done.code, [one["logger"] for one in lines][-1]) == (0, "embedway.requests"), done.stderr
    assert (lines[-1]["model"], lines[-1]["texts"], lines[-1]["outcome"]) == ("acme/m", 1, "ok")
    assert "secret" not in done.stderr


def test_text_stays_text(capsys):
    end = show_log(verbose=True)
    apply_settings(config_of("text"))
    logging.getLogger("embedway.dispatch").info("a detail")
    end()
    assert capsys.readouterr().err == "INFO embedway.dispatch: a detail\n"
