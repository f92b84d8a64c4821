"""Arguments of a call: texts and options, checked before anything is computed."""

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
