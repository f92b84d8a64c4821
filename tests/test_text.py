"""External text in terminals, logs and messages."""

from unicodedata import category

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway.cli import main
from embedway.config.discovered_file import shorten
from embedway.errors import ConfigError
from embedway.text import has_surrogate, printable, shown, single_line


@given(st.text())
def test_printable_text_is_printable_and_has_an_encoding(text):
    shown = printable(text)
    assert shown.isprintable()
    shown.encode()


@given(st.text())
def test_a_message_has_no_control_characters_but_ends_of_lines(text):
    shown = printable(text, keep_layout=True)
    assert not {one for one in shown if category(one).startswith("C")} - {"\n", "\t"}
    shown.encode()


def test_a_message_keeps_its_lines_and_writes_other_control_characters_out():
    assert (
        printable("a\x1b[31m\x9b\u202eb\r\n\tnaïve\xa0日本 \udc80", keep_layout=True)
        == "a\\x1b[31m\\x9b\\u202eb\\r\n\tnaïve\xa0日本 \\udc80"
    )


def test_a_name_keeps_nothing_but_what_can_be_printed():
    assert printable("naïve 日本\n\t\xa0\x1b") == "naïve 日本\\n\\t\\xa0\\x1b"


@given(st.text())
def test_a_single_line_is_printable_and_has_single_spaces(text):
    line = single_line(text)
    assert line.isprintable()
    assert line == " ".join(line.split(" ")).strip()
    assert "  " not in line


@pytest.mark.parametrize(("text", "holds"), [("plain \U0001f600", False), ("\ud83d", True), ("a\udc80b", True)])
def test_halves_of_surrogate_pairs_are_found(text, holds):
    assert has_surrogate(text) is holds


def test_an_error_of_settings_writes_names_out():
    error = ConfigError("is no\x1b setting\nsecond line", where="a\nb.toml", key="k\x1b[31m")
    assert (error.where, error.key) == ("a\\nb.toml", "k\\x1b[31m")
    assert str(error) == "a\\nb.toml: k\\x1b[31m: is no\\x1b setting\nsecond line"


def test_a_key_of_a_discovered_file_is_written_out_and_short():
    assert shorten("a\x1bb") == "a\\x1bb"
    assert len(shorten("\x1b" * 100)) == 60


def test_an_error_of_the_command_line_is_written_out(capsys):
    with pytest.raises(SystemExit):
        main(["--config", "no\x1bfile.toml", "models", "list"])
    shown = capsys.readouterr().err
    assert "no\\x1bfile.toml" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize(
    "value", [5, 0.5, True, "fastest", "a lot", "", "-5 %", "$0.05", float("nan"), np.str_("fast")]
)
def test_short_words_and_numbers_are_shown(value):
    assert shown(value).strip("'") == str(value)


@pytest.mark.parametrize(
    "value",
    ["my private text", "x" * 33, "a\x1b[31m", "a\nb", ["a"], b"a", None, 10**50, {"a": 1}, object()],
    ids=lambda value: type(value).__name__,
)
def test_texts_and_other_values_are_shown_by_their_type(value):
    assert shown(value) == f"of type {type(value).__name__}"
