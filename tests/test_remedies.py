"""Options in messages."""

import pytest

from embedway.errors import TextTooLongError
from embedway.remedies import by_place, in_command, keep_as, option


def test_a_program_is_told_keywords_and_a_command_flags():
    def written():
        return [option("overwrite", True), option("id_field"), option("encoding", "cp1252"), keep_as("year", "int")]

    python = ["overwrite=True", "id_field", "encoding='cp1252'", "keep={'year': 'int'}"]
    assert written() == python
    with in_command():
        assert written() == ["--overwrite", "--id-field", "--encoding cp1252", "--keep year:int"]
        assert by_place(command="a", python="b") == "a"
    assert written() == python


def test_the_end_of_a_command_restores_the_place_after_an_error():
    with pytest.raises(ZeroDivisionError), in_command():
        raise ZeroDivisionError
    assert option("wait") == "wait"


def test_a_long_text_is_told_one_remedy():
    assert "--" not in str(TextTooLongError(row=0, max_tokens=512, tokens=600))
    with in_command():
        message = str(TextTooLongError(row=0, max_tokens=512, tokens=600))
    assert "--on-overflow truncate" in message
    assert "=" not in message
