"""A key in a variable that the user names."""

import pytest

from embedway.config.key_variable import read_key
from embedway.errors import UsageError


def test_a_key_without_white_space_around_it():
    assert read_key("OWN", option="--api-key-env", environ={"OWN": " sk-1\n"}) == "sk-1"


@pytest.mark.parametrize("environ", [{}, {"OWN": " "}, {"OWN": "sk-1\nsk-2"}, {"OWN": "Bearer sk-1"}])
def test_a_variable_without_a_usable_key_is_named_without_its_value(environ):
    with pytest.raises(UsageError, match="--api-key-env: the variable 'OWN'") as caught:
        read_key("OWN", option="--api-key-env", environ=environ)
    assert "sk-1" not in str(caught.value)
    assert caught.value.__context__ is None
