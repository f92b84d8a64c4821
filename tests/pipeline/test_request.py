"""Arguments of a call: texts and options, checked before anything is computed."""

import numpy as np
import pytest

from embedway.errors import InputError, UsageError
from embedway.pipeline.request import Call, inspect


def look(texts, **options):
    return inspect(Call(texts, **options), "truncate")


@pytest.mark.parametrize("bad", ["", "  \n\t", "\ud800 alone", None, 7, b"bytes"])
def test_a_bad_text_is_named_by_its_row_and_not_shown(bad):
    with pytest.raises(InputError, match=r"^text 1: ") as caught:
        look(["good", bad])
    assert caught.value.row == 1
    assert "alone" not in str(caught.value)


def test_texts_pass_unchanged():
    texts = [" Polish", "polish\x00", "ßé漢字🙂"]
    assert look(texts).texts == tuple(texts)
    assert look("one").texts == ("one",)


@pytest.mark.parametrize("option", [{"input_type": "passage"}, {"on_overflow": "drop"}, {"dimensions": 0}])
def test_wrong_options_are_usage_errors(option):
    with pytest.raises(UsageError, match=next(iter(option))):
        look(["a"], **option)


@pytest.mark.parametrize("number", [3, np.int64(3), np.uint8(3)])
def test_a_priority_may_be_any_kind_of_integer(number):
    priority = look(["a"], priority=number).priority
    assert (priority, type(priority)) == (3, int)


@pytest.mark.parametrize("number", [True, 3.0, "3", np.int64(10), -1, None])
def test_a_priority_is_an_integer_from_0_to_9(number):
    with pytest.raises(UsageError, match="from 0 to 9"):
        look(["a"], priority=number)
