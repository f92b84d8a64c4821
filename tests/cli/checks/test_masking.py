"""Replacement of secrets in texts and documents."""

import pytest

from embedway.cli.checks.masking import Mask

MARK = "MaRkEr0fAs3cret"


def test_a_short_secret_does_not_garble_other_words():
    mask = Mask.of({"openai", "1", "", "none"})
    assert mask.text("openai-compatible, myopenai, openai_x, 1, none") == "***-compatible, myopenai, openai_x, 1, none"


def test_documents_are_masked_at_every_depth():
    mask = Mask.of({MARK})
    document = {"a": [MARK, {f"k{MARK}": (f"x{MARK}y", 1, None, True)}]}
    assert mask.document(document) == {"a": ["***", {"k***": ["x***y", 1, None, True]}]}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://u:p@h/v1", "http://***@h/v1"),
        ("write http://USER:PASSWORD@HOST:PORT", "write http://USER:PASSWORD@HOST:PORT"),
        ("see https://h/a?b=c, and", "see https://h/a?***, and"),
        ("Authorization: Bearer abcdefgh123", "Authorization: Bearer ***"),
        ("api_key_env = sk-proj-abcdefgh1234567890", "api_key_env = ***"),
        ("hf_abcdefgh1234567890 AIzaSyabcdefgh1234567890", "*** ***"),
        ("hf_transfer_without_any_digits, sk-learn-1.2", "hf_transfer_without_any_digits, sk-learn-1.2"),
        ("a plain text with a ? and an @", "a plain text with a ? and an @"),
    ],
)
def test_credentials_of_unknown_urls_are_masked(text, shown):
    assert Mask.of(set()).text(text) == shown


def test_every_form_of_a_secret_is_masked():
    mask = Mask.of({'pass"word/with@signs'})
    for form in ('pass"word/with@signs', "pass%22word%2Fwith%40signs", 'pass\\"word/with@signs'):
        assert mask.text(f"x {form} y") == "x *** y"
